"""Measurements and trials: plain values that survive a round trip through JSON unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bootstrapnas_ext.space import Subnet


@dataclass(frozen=True)
class Measurement:
    """
    What the evaluation of a subnet found.

    .. code-block:: python

        >>> Measurement({"accuracy": 93.5, "macs": 12_000_000}, {"latency": {"threads": 2}})
        Measurement(values={'accuracy': 93.5, 'macs': 12000000.0}, attributes={'latency': {'threads': 2}})

    :param values: Every measurement by name, the objectives among them.
    :param attributes: Anything else worth keeping that JSON can hold, for example how the latency was measured.
    """

    values: Mapping[str, float]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A trial of this process and the same trial read back from the database must be equal.
        object.__setattr__(self, "values", {name: float(value) for name, value in self.values.items()})
        object.__setattr__(self, "attributes", json.loads(json.dumps(dict(self.attributes))))


@dataclass(frozen=True)
class Trial:
    """
    One subnet with its measurements.

    :param number: 0 for the first trial of the search, without gaps.
    :param subnet: What was measured.
    :param values: Every measurement by name, the objectives among them.
    :param attributes: Whatever else the evaluation returned.
    """

    number: int
    subnet: Subnet
    values: Mapping[str, float]
    attributes: Mapping[str, Any] = field(default_factory=dict)
