"""What a search measures: the name, unit and direction of each objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bootstrapnas_ext.config import rules
from bootstrapnas_ext.registry import Registry

Direction = Literal["maximize", "minimize"]

ACCURACY = "accuracy"
"""Name of the one measurement that `ref_acc` and `acc_delta` are about; in percent."""


@dataclass(frozen=True)
class Objective:
    """
    One thing that a search improves.

    :param name: Under which the evaluation returns it, for example ``latency_ms``.
    :param unit: For tables and plots; empty for a plain count.
    :param direction: Whether more (``maximize``) or less (``minimize``) is better.
    :param label: Name on the axis of a plot; ``None`` uses the name.
    """

    name: str
    unit: str
    direction: Direction
    label: str | None = None

    def loss(self, value: float) -> float:
        """
        Returns the value turned so that less is always better.

        :param value: A measurement of this objective.
        """
        return -value if self.direction == "maximize" else value

    def format(self, value: float) -> str:
        """
        Returns the value for people, for example ``93.4 %`` or ``1.25e+07``.

        :param value: A measurement of this objective.
        """
        return f"{value:.4g} {self.unit}".rstrip()


OBJECTIVES: Registry[Objective] = Registry("objective", rules.OBJECTIVES)
"""Objectives by name. Register another, and let the evaluation return a measurement of that name."""

for _objective in (
    Objective(ACCURACY, "%", "maximize", "Top-1 accuracy"),
    Objective("macs", "", "minimize", "MACs"),
    Objective("parameters", "", "minimize", "Parameters"),
    Objective("latency_ms", "ms", "minimize", "Latency"),
):
    OBJECTIVES.register(_objective.name)(_objective)
