"""Uniform sampling."""

from __future__ import annotations

from collections import Counter

from bootstrapnas_ext.training import Pass
from bootstrapnas_ext.training.strategies import random
from tests.training.fake_supernet import SPACE
from tests.training.steps import step_of


def test_subnets_are_of_the_whole_space_whatever_a_stage_opens_and_equally_likely() -> None:
    opened = SPACE.restrict({"kernel": None})
    counts = Counter(random(step_of(index, opened)) for index in range(2400))
    assert len(counts) == SPACE.size == 24
    assert all(60 < count < 140 for count in counts.values()), "100 times each, give or take four deviations"
    assert all(passes == (Pass(passes[0].subnet),) for passes in counts)
