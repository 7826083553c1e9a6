"""What can be measured of a subnet, by the names of the objectives.

A new objective is one function here or anywhere else, registered under its name with its unit and direction:

.. code-block:: python

    @objective("file_size", unit="bytes", direction="minimize")
    def file_size(candidate: Candidate) -> Found:
        return len(to_onnx(candidate.module, candidate.context.example)), {}
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from torch import nn

from bootstrapnas_ext.config import LatencyConfig, rules
from bootstrapnas_ext.cost import Cost
from bootstrapnas_ext.evaluation.latency import measure_latency
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.registry import Registry
from bootstrapnas_ext.search import ACCURACY, OBJECTIVES, Measurement, Objective
from bootstrapnas_ext.search.objectives import Direction

LATENCY = "latency_ms"
"""Name of the one measure that the config's ``latency`` is about."""

Found = tuple[float, Mapping[str, Any]]
"""A value and anything else worth keeping that JSON can hold."""


@dataclass(frozen=True)
class Context:
    """
    What is the same for all candidates of a search.

    :param accuracy: Module to its accuracy on the data that the search may see, in percent.
    :param example: What to call a module with.
    :param latency: How latency is measured.
    """

    accuracy: Callable[[nn.Module], float]
    example: ExampleInput
    latency: LatencyConfig


@dataclass(frozen=True)
class Candidate:
    """
    A plain module to measure.

    :param make: Makes the module, with norm statistics of its own; called once, and only if a measure needs it.
    :param cost: Its multiply-accumulates and parameters.
    :param context: What is the same for all candidates.
    """

    make: Callable[[], nn.Module]
    cost: Cost
    context: Context

    @cached_property
    def module(self) -> nn.Module:
        """The module, in evaluation mode."""
        return self.make().eval()


Measure = Callable[[Candidate], Found]
MEASURES: Registry[Measure] = Registry("measure", rules.MEASURES)
"""Names of objectives to functions that measure them."""


def objective(name: str, *, unit: str, direction: Direction, label: str | None = None) -> Callable[[Measure], Measure]:
    """
    Returns a decorator that registers a measure as an objective.

    :param name: Its name in the config's ``search.objectives``.
    :param unit: For tables and plots; empty for a plain count.
    :param direction: Whether more (``maximize``) or less (``minimize``) is better.
    :param label: Name on the axis of a plot; the name if not given.
    :raises RegistryError: If the name is taken.
    """

    def register(measure: Measure) -> Measure:
        OBJECTIVES.register(name)(Objective(name, unit, direction, label))
        return MEASURES.register(name)(measure)

    return register


def measure_candidate(candidate: Candidate, names: Iterable[str]) -> Measurement:
    """
    Measures a candidate.

    :param candidate: What to measure.
    :param names: Registered measures.
    :raises RegistryError: If a name is not registered.
    """
    found = {name: MEASURES.get(name)(candidate) for name in dict.fromkeys(names)}
    return Measurement(
        {name: value for name, (value, _) in found.items()},
        {name: dict(attributes) for name, (_, attributes) in found.items() if attributes},
    )


@MEASURES.register(ACCURACY)
def _accuracy(candidate: Candidate) -> Found:
    return candidate.context.accuracy(candidate.module), {}


@MEASURES.register("macs")
def _macs(candidate: Candidate) -> Found:
    return candidate.cost.macs, {}


@MEASURES.register("parameters")
def _parameters(candidate: Candidate) -> Found:
    return candidate.cost.parameters, {}


@MEASURES.register(LATENCY)
def _latency(candidate: Candidate) -> Found:
    module = candidate.module
    if any(tensor.device.type != "cpu" for tensor in chain(module.parameters(), module.buffers())):
        module = copy.deepcopy(module).cpu()  # the candidate's own stays where the other measures expect it
    record = measure_latency(module, candidate.context.example.to("cpu"), candidate.context.latency)
    return record.median_ms, record.as_dict()
