"""Progressive shrinking."""

from __future__ import annotations

from bootstrapnas_ext.config.training import StageConfig
from bootstrapnas_ext.training import Pass
from bootstrapnas_ext.training.stages import stage_space
from bootstrapnas_ext.training.strategies import progressive_shrinking
from tests.training.fake_supernet import SPACE
from tests.training.steps import step_of


def test_one_subnet_a_step_and_in_time_all_of_the_stage() -> None:
    space = stage_space(SPACE, StageConfig(train_dims=("depth", "width"), width_indicator=2))
    drawn = [progressive_shrinking(step_of(index, space)) for index in range(100)]
    assert all(passes == (Pass(passes[0].subnet),) for passes in drawn)
    assert len(set(drawn)) == space.size == 6
