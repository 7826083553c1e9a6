"""A small search space and an evaluation that needs no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bootstrapnas_ext.search import OBJECTIVES, Measurement, SearchPlan, SearchSettings, Trial
from bootstrapnas_ext.space import Choice, SearchSpace, Subnet


def measure(subnet: Subnet) -> Measurement:
    """Wider and deeper is better with diminishing returns, and every subnet has measurements of its own."""
    width = sum(value * (1 + 0.1 * i) for i, value in enumerate(subnet.values()))
    return Measurement(
        {"accuracy": 99 - 300 / width, "macs": width**2, "latency_ms": 0.1 * (width % 7 + width)},
        {"threads": 2, "runs": (1, 2)},
    )


@pytest.fixture(scope="session")
def evaluate() -> Callable[[Subnet], Measurement]:
    return measure


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    widths = tuple(Choice(f"width:conv{i}", (32, 24, 16, 8), "width") for i in range(4))
    return SearchSpace((*widths, Choice("depth:layer1", (1, 0), "depth"), Choice("kernel:conv0", (3,), "kernel")))


@pytest.fixture(scope="session")
def plan(space: SearchSpace) -> SearchPlan:
    objectives = (OBJECTIVES.get("accuracy"), OBJECTIVES.get("macs"))
    return SearchPlan(
        space, objectives, SearchSettings(population=4, mutation_prob=0.2, seed=5), measure(space.maximum)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.db"


@pytest.fixture(scope="session")
def trial() -> Callable[..., Trial]:
    """Makes a trial of nothing but its values."""

    def make(number: int, **values: float) -> Trial:
        return Trial(number, Subnet({"width:conv0": number}), values)

    return make
