"""Progressive shrinking as a pure function of the step."""

from __future__ import annotations

from bootstrapnas_ext.config.training import StageConfig
from bootstrapnas_ext.training.stages import stage_space
from bootstrapnas_ext.training.strategies import STRATEGIES, Step, progressive_shrinking
from tests.training.fake_supernet import SPACE


def test_is_registered() -> None:
    assert STRATEGIES.get("progressive_shrinking") is progressive_shrinking


def test_depends_on_seed_and_step_alone() -> None:
    forward = [progressive_shrinking(Step(i, SPACE, 3, 1)) for i in range(20)]
    backward = [progressive_shrinking(Step(i, SPACE, 3, 1)) for i in reversed(range(20))]
    other = [progressive_shrinking(Step(i, SPACE, 4, 1)) for i in range(20)]
    assert forward == backward[::-1]
    assert forward != other


def test_one_subnet_a_step_and_in_time_all_of_the_stage() -> None:
    space = stage_space(SPACE, StageConfig(train_dims=("depth", "width"), width_indicator=2))
    drawn = [progressive_shrinking(Step(i, space, 0, 1)) for i in range(100)]
    assert {len(subnets) for subnets in drawn} == {1}
    assert len({subnets[0] for subnets in drawn}) == space.size == 6


def test_sample_rate_keeps_a_subnet_for_that_many_steps() -> None:
    drawn = [progressive_shrinking(Step(i, SPACE, 0, 5))[0] for i in range(50)]
    assert all(len(set(drawn[start : start + 5])) == 1 for start in range(0, 50, 5))
    assert len(set(drawn)) > 5
