"""A super-network as tables for people who read a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bootstrapnas_ext.cost import Cost
from bootstrapnas_ext.space import SearchSpace, Subnet


class Summarized(Protocol):
    """What a table of a super-network needs of it."""

    @property
    def space(self) -> SearchSpace:
        """All subnets."""

    def cost(self, subnet: Mapping[str, int]) -> Cost:
        """Returns what a subnet costs."""

    def static_layers(self) -> dict[str, dict[str, str]]:
        """Returns for each elastic dimension the layers that stayed as they are, and why."""


def supernet_table(supernet: Summarized) -> Group:
    """
    Returns tables of the choices, of the largest and the smallest subnet, and of the layers that stayed static.

    :param supernet: The super-network.
    """
    choices = _table("dimension", "choice", "values", title=f"Super-network of {_count(supernet.space.size)} subnets")
    for choice in supernet.space.choices:
        values = ", ".join(map(str, choice.values))
        choices.add_row(*map(Text, (choice.dimension, choice.name.partition(":")[2], values)))
    costs = _table("subnet", "MACs", "parameters", title="Cost of one forward with the example input")
    for name, subnet in (("maximum", supernet.space.maximum), ("minimum", supernet.space.minimum)):
        costs.add_row(name, *_cost_cells(supernet, subnet))
    parts = [choices, costs]
    static = _table("dimension", "layer", "reason", title="Layers that stay as they are")
    for dimension, layers in supernet.static_layers().items():
        for layer, reason in layers.items():
            static.add_row(*map(Text, (dimension, layer, reason)))
    if static.row_count:
        parts.append(static)
    return Group(*parts)


def _table(*titles: str, title: str) -> Table:
    """Returns a table whose cells go on in the next line rather than lose their end, which tells layers apart."""
    table = Table(title=title)
    for column in titles:
        table.add_column(column, overflow="fold")
    return table


def _cost_cells(supernet: Summarized, subnet: Subnet) -> tuple[str, str]:
    cost = supernet.cost(subnet)
    return f"{cost.macs:,}", f"{cost.parameters:,}"


def _count(size: int) -> str:
    return f"{size:,}" if size < 10**9 else f"{size:.2e}".replace("e+", " x 10^") if size < 10**300 else "over 10^300"
