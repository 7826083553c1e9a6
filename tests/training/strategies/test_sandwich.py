"""The sandwich rule."""

from __future__ import annotations

import pytest

from bootstrapnas_ext.config import SandwichConfig
from bootstrapnas_ext.training import Pass
from bootstrapnas_ext.training.strategies import sandwich
from tests.training.fake_supernet import SPACE
from tests.training.steps import step_of


@pytest.mark.parametrize("count", [0, 1, 3])
def test_maximum_and_minimum_are_around_random_ones(count: int) -> None:
    passes = sandwich(step_of(5, source="none", sandwich=SandwichConfig(num_random=count)))
    assert len(passes) == 2 + count
    assert [one.subnet for one in passes[:2]] == [SPACE.maximum, SPACE.minimum]
    assert len({one.subnet for one in passes[2:]}) == count


def test_others_learn_from_the_maximum_alone() -> None:
    maximum, *others = sandwich(step_of(5))
    assert maximum == Pass(SPACE.maximum)
    assert {(one.teacher, one.task_weight) for one in others} == {("maximum", 0.0)}


def test_minimum_is_that_of_the_stage() -> None:
    opened = SPACE.restrict({"width": 2})
    assert sandwich(step_of(5, opened))[1].subnet == opened.minimum
