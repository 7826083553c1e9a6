"""Which part of the space a stage opens, and its learning rate."""

from __future__ import annotations

import pytest

from bootstrapnas_ext.config.elasticity import ElasticityConfig
from bootstrapnas_ext.config.training import (
    LRScheduleConfig,
    LRScheduleParams,
    ScheduleConfig,
    StageConfig,
    TrainingConfig,
)
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.space import Choice, SearchSpace
from bootstrapnas_ext.training.stages import plan_stages, stage_space
from tests.training.fake_supernet import SPACE


def values(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    return {choice.dimension: choice.values for choice in space.choices}


def with_stages(*stages: StageConfig) -> TrainingConfig:
    return TrainingConfig(schedule=ScheduleConfig(stages))


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (StageConfig(train_dims=("kernel",)), {"kernel": (3, 1), "depth": (2,), "width": (16,)}),
        (StageConfig(train_dims=("width",), width_indicator=2), {"kernel": (3,), "depth": (2,), "width": (16, 12)}),
        (
            StageConfig(train_dims=("width",), width_indicator=9),
            {"kernel": (3,), "depth": (2,), "width": (16, 12, 8, 4)},
        ),
        (
            StageConfig(train_dims=("kernel", "width"), kernel_indicator=1),
            {"kernel": (3,), "depth": (2,), "width": (16, 12, 8, 4)},
        ),
        (StageConfig(train_dims=("depth",), depth_indicator=1), {"kernel": (3,), "depth": (2, 1), "width": (16,)}),
        (StageConfig(train_dims=("depth",)), {"kernel": (3,), "depth": (2, 1, 0), "width": (16,)}),
        (StageConfig(), {"kernel": (3, 1), "depth": (2, 1, 0), "width": (16, 12, 8, 4)}),
    ],
)
def test_stage_opens_what_it_says(stage: StageConfig, expected: dict[str, tuple[int, ...]]) -> None:
    assert values(stage_space(SPACE, stage)) == expected


def test_dimension_without_an_indicator_is_open() -> None:
    space = SearchSpace((Choice("heads:a", (8, 4, 2), "heads"), *SPACE.choices))
    assert values(stage_space(space, StageConfig()))["heads"] == (8, 4, 2)


def test_without_a_list_each_stage_adds_a_dimension() -> None:
    config = TrainingConfig(progressivity_of_elasticity=("width", "kernel", "depth"))
    stages = plan_stages(SPACE, config)
    assert [stage.config.train_dims for stage in stages] == [
        ("width",),
        ("width", "kernel"),
        ("width", "kernel", "depth"),
    ]
    assert [stage.first_epoch for stage in stages] == [0, 1, 2]
    assert stages[-1].space == SPACE


def test_without_a_list_dimensions_that_the_space_lacks_are_left_out() -> None:
    space = SearchSpace(tuple(choice for choice in SPACE.choices if choice.dimension != "kernel"))
    dims = [stage.config.train_dims for stage in plan_stages(space, TrainingConfig())]
    assert dims == [("depth",), ("depth", "width")]


def test_stage_without_dimensions_trains_those_of_the_space() -> None:
    space = SearchSpace(SPACE.choices[1:])
    (stage,) = plan_stages(space, with_stages(StageConfig()))
    assert set(stage.config.train_dims or ()) == {"depth", "width"}


def test_stage_that_names_a_missing_dimension_is_refused() -> None:
    space = SearchSpace(SPACE.choices[1:])
    config = with_stages(StageConfig(train_dims=("depth",)), StageConfig(train_dims=("depth", "kernel")))
    match = r"list_stage_descriptions\[1\]\.train_dims must name .* has \['depth', 'width'\], but got 'kernel'"
    with pytest.raises(ConfigError, match=match):
        plan_stages(space, config)


def test_stage_that_opens_the_maximum_only_is_refused() -> None:
    config = with_stages(StageConfig(train_dims=("kernel",)), StageConfig(train_dims=("kernel",), kernel_indicator=1))
    match = r"list_stage_descriptions\[1\] must open more than the maximum subnet, .* got \(train_dims=\['kernel'\]"
    with pytest.raises(ConfigError, match=match):
        plan_stages(SPACE, config)


def test_each_stage_has_a_cosine_of_its_own() -> None:
    config = with_stages(StageConfig(epochs=2, init_lr=0.8), StageConfig(epochs=2, init_lr=0.2, epochs_lr=4))
    first, second = plan_stages(SPACE, config)
    assert [first.learning_rate(epoch, 9.0) for epoch in (0.0, 1.0, 2.0)] == pytest.approx([0.8, 0.4, 0.0])
    assert [second.learning_rate(epoch, 9.0) for epoch in (2.0, 4.0)] == pytest.approx([0.2, 0.1])


def test_a_stage_may_warm_up() -> None:
    first, second = plan_stages(SPACE, with_stages(StageConfig(), StageConfig(epochs=4, warmup_epochs=2)))
    assert first.learning_rate(0.0, 0.8) == 0.8
    rates = [second.learning_rate(epoch, 0.8) for epoch in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert rates == pytest.approx([0.0, 0.4, 0.8, 0.4, 0.0])


def test_a_stage_without_a_rate_begins_with_the_optimizers_own() -> None:
    (stage,) = plan_stages(SPACE, with_stages(StageConfig(epochs=2)))
    assert [stage.learning_rate(epoch, 0.6) for epoch in (0.0, 1.0, 2.0)] == pytest.approx([0.6, 0.3, 0.0])


def test_overall_schedule_spans_all_stages() -> None:
    config = TrainingConfig(
        schedule=ScheduleConfig((StageConfig(epochs=2), StageConfig(epochs=2))),
        lr_schedule=LRScheduleConfig(LRScheduleParams(base_lr=0.8)),
    )
    first, second = plan_stages(SPACE, config)
    assert [
        first.learning_rate(0.0, 9.0),
        second.learning_rate(2.0, 9.0),
        second.learning_rate(4.0, 9.0),
    ] == pytest.approx([0.8, 0.4, 0.0])


@pytest.mark.parametrize(
    "params", [LRScheduleParams(base_lr=0.1, warmup_epochs=1), LRScheduleParams(base_lr=0.1, num_epochs=1)]
)
def test_overall_schedule_must_cover_the_stages(params: LRScheduleParams) -> None:
    epochs = 1 if params.num_epochs is None else 2
    config = TrainingConfig(
        schedule=ScheduleConfig((StageConfig(epochs=epochs),)), lr_schedule=LRScheduleConfig(params)
    )
    with pytest.raises(ConfigError, match="`warmup_epochs < num_epochs` and `epochs of all stages <= num_epochs`"):
        plan_stages(SPACE, config)


def test_available_dimensions_of_the_config_bound_the_default_stages() -> None:
    config = TrainingConfig(elasticity=ElasticityConfig(available_elasticity_dims=("width",)))
    (stage,) = plan_stages(SPACE, config)
    assert values(stage.space) == {"kernel": (3,), "depth": (2,), "width": (16, 12, 8, 4)}
