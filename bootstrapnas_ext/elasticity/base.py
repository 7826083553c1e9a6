"""What every elasticity is made of: choices, pre-op hooks that read one cell, and blocks that are left out."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.config.rules import DIMENSIONS
from bootstrapnas_ext.graph import ModelGraph, Path, Propagation
from bootstrapnas_ext.graph.blocks import Block
from bootstrapnas_ext.registry import Registry
from bootstrapnas_ext.space import Choice, Subnet

Shape = tuple[int, ...]


class ActiveSubnet:
    """
    The one mutable cell: every hook reads the active subnet here.

    :param subnet: The active subnet.
    :ivar statistics: What its norms have counted since it is active; nothing at first.
    """

    def __init__(self, subnet: Subnet) -> None:
        self.subnet = subnet
        self.statistics: dict[int, list[dict[str, Tensor | None]]] = {}

    def activate(self, subnet: Subnet) -> None:
        """
        Makes a subnet the active one, which it may be already.

        :param subnet: The subnet.
        """
        if subnet != self.subnet:
            self.subnet, self.statistics = subnet, {}


class PortHook(nn.Module):
    """
    A pre-op hook: changes an argument of an operation to what the active subnet needs.

    A subclass gives :meth:`forward`, which must return its argument unchanged at the maximum subnet.

    :param cell: Where the active subnet is read.
    """

    def __init__(self, cell: ActiveSubnet) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, value: Any) -> Any:
        """
        Returns the argument of the active subnet.

        :param value: The argument of the maximum subnet.
        """
        raise NotImplementedError

    def rules(self) -> Mapping[Path, Any]:
        """
        Returns which parts of its argument it changes, and something that is equal for hooks that change it alike.

        The part that is the whole argument is named by the empty way into it.
        """
        return {(): self}

    def wrong_parts(self, value: Any, traced: Any) -> frozenset[Path]:
        """
        Returns where an argument is not yet what the active subnet needs, as in :attr:`PortValue.path`.

        :param value: The argument as it arrived, perhaps computed from what other hooks have changed.
        :param traced: The argument in the trace.
        """
        return frozenset({()})

    def limited_to(self, parts: Container[Path]) -> PortHook:
        """
        Returns a hook that changes only some parts of its argument; what the model's code gets right by itself is left
        to it, since it may depend on the input.

        :param parts: What :meth:`wrong_parts` returned for any subnet.
        """
        return self

    def write_back(self, whole: Tensor, part: Tensor) -> None:
        """
        Copies what an operation wrote into a part, such as running statistics, to where it belongs.

        :param whole: The buffer of the maximum subnet; changed in place.
        :param part: What :meth:`forward` made of it for the active subnet.
        """


@dataclass(frozen=True)
class Hook:
    """
    A hook and its place.

    :param op: NNCF's name of the operation.
    :param port: NNCF's port number of the argument, or :data:`~bootstrapnas_ext.graph.ir.ATTRIBUTE`.
    :param argument: The argument's name in the function's signature, or the attribute's; ``None`` for a parameter or
        buffer, whose name the graph knows.
    :param module: The hook itself.
    """

    op: str
    port: int
    argument: str | None
    module: PortHook


@dataclass(frozen=True)
class StaticLayer:
    """
    A layer that stayed as it is.

    :param name: Path of the module, or name of the operation.
    :param reason: Why.
    """

    name: str
    reason: str


def _unchanged(_: int, shape: Shape, __: Mapping[str, int]) -> Shape:
    return shape


@dataclass(frozen=True)
class Elasticity:
    """
    One elastic dimension of a model.

    :param dimension: Its name, for example ``width``.
    :param choices: Its variables.
    :param hooks: What changes arguments of operations.
    :param blocks: Choice name to the blocks that run one after the other; of value n, the first n run.
    :param resize: Returns the shape of a tensor in a subnet, from the tensor's index in the graph, its shape so far and
        the subnet.
    :param static: Layers that it left as they are.
    :param reorganize: Sorts channels of a model by importance in place, keeping the function of the maximum subnet.
    """

    dimension: str
    choices: tuple[Choice, ...]
    hooks: tuple[Hook, ...] = ()
    blocks: Mapping[str, Sequence[Block]] = field(default_factory=dict)
    resize: Callable[[int, Shape, Mapping[str, int]], Shape] = _unchanged
    static: tuple[StaticLayer, ...] = ()
    reorganize: Callable[[nn.Module], None] | None = None

    def skipped(self, subnet: Subnet) -> list[Block]:
        """
        Returns the blocks that do not run.

        :param subnet: Any subnet.
        """
        return [block for name, blocks in self.blocks.items() for block in blocks[subnet[name] :]]


Refused = Mapping[str, str]
"""Name of a choice to why a trial has shown that it must not be one: with less, the model does not run."""
Builder = Callable[[Propagation, ActiveSubnet, ElasticityConfig, Refused], Elasticity]
ELASTICITIES: Registry[Builder] = Registry("elastic dimension", DIMENSIONS)
"""Dimension name to a function that finds what is elastic, but for what is refused. A new elasticity is one file with
one registration; configs may name it from then on."""


def layer_name(graph: ModelGraph, op: str) -> str:
    """
    Returns what a user calls a layer: the module's path, or its parameter's name where layers share the module.

    :param graph: The traced model.
    :param op: Name of the layer's operation.
    """
    found = graph.ops[graph.op_index[op]]
    alone = sum(other.module == found.module and other.kind == found.kind for other in graph.ops) == 1
    if found.module and alone:
        return found.module
    values = (graph.values[value] for value in found.tensors)
    weights = [value.name for value in values if value.is_constant and len(value.shape) > 1]
    return weights[0].removesuffix(".weight") if weights else op
