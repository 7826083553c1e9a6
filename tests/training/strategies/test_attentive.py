"""Attentive sampling."""

from __future__ import annotations

import pytest

from bootstrapnas_ext.config import AttentiveConfig
from bootstrapnas_ext.space import Choice, SearchSpace, Subnet
from bootstrapnas_ext.training.strategies import attentive
from tests.training.fake_supernet import SPACE
from tests.training.steps import step_of

SPACE_OF_MANY = SearchSpace(tuple(Choice(f"c{index}", tuple(range(40, 0, -1)), "width") for index in range(3)))


@pytest.mark.parametrize("mode", ["best_up", "worst_up"])
def test_best_or_worst_of_candidates_with_about_the_same_macs_is_trained(mode: str) -> None:
    estimates: dict[Subnet, float] = {}

    def estimate(subnet: Subnet) -> float:
        return estimates.setdefault(subnet, subnet["c0"] - subnet["c1"])

    settings = AttentiveConfig(mode=mode, num_candidates=4, num_subnets=1)
    for index in range(20):
        estimates.clear()
        step = step_of(index, SPACE_OF_MANY, attentive=settings, estimate=estimate)
        (_, _, chosen) = attentive(step)
        assert len(estimates) == 4
        best = min if mode == "best_up" else max
        assert estimates[chosen.subnet] == best(estimates.values())
        macs = [step.macs(subnet) for subnet in estimates]
        assert max(macs) - min(macs) < 40, "all subnets span 117"


def test_it_is_a_sandwich() -> None:
    passes = attentive(step_of(3, attentive=AttentiveConfig(num_subnets=3)))
    assert len(passes) == 5
    assert [(one.subnet, one.teacher) for one in passes[:2]] == [(SPACE.maximum, "none"), (SPACE.minimum, "maximum")]
    assert all(one.task_weight == 0.0 or one.subnet == SPACE.maximum for one in passes[1:])
