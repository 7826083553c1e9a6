"""Stages: which part of the search space a period of training opens, and at which learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bootstrapnas_ext.config.training import StageConfig, TrainingConfig
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.space import SearchSpace
from bootstrapnas_ext.training.learning_rate import CosineSchedule

# How many of each choice's largest values a stage opens, for the dimensions that have an indicator. A depth indicator
# counts the blocks that may be skipped, so it opens one value more: skip none.
_OPEN_VALUES: dict[str, Callable[[StageConfig], int | None]] = {
    "width": lambda stage: stage.width_indicator,
    "kernel": lambda stage: stage.kernel_indicator,
    "depth": lambda stage: None if stage.depth_indicator is None else stage.depth_indicator + 1,
}


LearningRate = Callable[[float, float], float]


@dataclass(frozen=True)
class Stage:
    """
    A period of training.

    :param config: What the config says about it.
    :param space: The subnets that it trains.
    :param first_epoch: Its first epoch, counted from 0 over all stages.
    :param learning_rate: The number of epochs done, over all stages and with the fraction of the current one, and the
        optimizer's own learning rate, to the learning rate.
    """

    config: StageConfig
    space: SearchSpace
    first_epoch: int
    learning_rate: LearningRate


def stage_space(space: SearchSpace, stage: StageConfig) -> SearchSpace:
    """
    Returns the part of the space that the stage trains.

    Dimensions that the stage does not train stay at their largest values. Of each width, ``width_indicator`` values are
    open, the largest first, of each kernel ``kernel_indicator``; of each group of blocks, at most ``depth_indicator``
    are skipped; without an indicator, and in every other dimension, all values are open.

    :param space: The whole space.
    :param stage: The stage.
    """
    names = stage.train_dims or space.dimensions
    return space.restrict({name: _OPEN_VALUES[name](stage) if name in _OPEN_VALUES else None for name in names})


def plan_stages(space: SearchSpace, config: TrainingConfig) -> tuple[Stage, ...]:
    """
    Returns the stages of a training, in order.

    Where the config lists no stages, each adds one elastic dimension to those of the stage before it, in the order of
    ``progressivity_of_elasticity``; dimensions that the space does not have are left out.

    :param space: The whole space, with at least one dimension.
    :param config: The config of the training.
    :raises ConfigError: If a stage names a dimension that the space does not have, or opens nothing but the maximum, or
        `lr_schedule` reaches zero before training ends.
    """
    configs = _fit_dimensions(space, config)
    epochs = sum(stage.epochs for stage in configs)
    rate = None if config.lr_schedule is None else _overall_rate(config, epochs)
    stages = []
    first_epoch = 0
    for index, stage in enumerate(configs):
        opened = stage_space(space, stage)
        if opened.size == 1:
            msg = (
                f"$.bootstrapNAS.training.schedule.list_stage_descriptions[{index}] must open more than the maximum "
                f"subnet, else there is nothing to sample, but got (train_dims={list(stage.train_dims or ())}, "
                f"width_indicator={stage.width_indicator}, kernel_indicator={stage.kernel_indicator}); raise an "
                "indicator or add a dimension."
            )
            raise ConfigError(msg)
        stages.append(Stage(stage, opened, first_epoch, rate or _stage_rate(stage, first_epoch)))
        first_epoch += stage.epochs
    return tuple(stages)


def _fit_dimensions(space: SearchSpace, config: TrainingConfig) -> list[StageConfig]:
    present = space.dimensions
    given = config.schedule.list_stage_descriptions
    if given is None:
        # Of these stages, each adds its last dimension.
        return [_fit(stage, present) for stage in config.stages if stage.train_dims and stage.train_dims[-1] in present]
    for index, stage in enumerate(given):
        for name in stage.train_dims or ():
            if name not in present:
                msg = (
                    f"$.bootstrapNAS.training.schedule.list_stage_descriptions[{index}].train_dims must name elastic "
                    f"dimensions of the super-network, which has {list(present)}, but got {name!r}; remove it."
                )
                raise ConfigError(msg)
    return [_fit(stage, present) for stage in config.stages]


def _fit(stage: StageConfig, present: Sequence[str]) -> StageConfig:
    return replace(stage, train_dims=tuple(name for name in stage.train_dims or () if name in present))


def _stage_rate(stage: StageConfig, first_epoch: int) -> LearningRate:
    assert stage.epochs_lr is not None  # the config fills it in
    length = stage.epochs_lr
    return lambda epoch, own: CosineSchedule(stage.init_lr or own, length, stage.warmup_epochs)(epoch - first_epoch)


def _overall_rate(config: TrainingConfig, epochs: int) -> LearningRate:
    assert config.lr_schedule is not None
    params = config.lr_schedule.params
    length = epochs if params.num_epochs is None else params.num_epochs
    if length < epochs or params.warmup_epochs >= length:
        msg = (
            "`warmup_epochs < num_epochs` and `epochs of all stages <= num_epochs` must hold, but "
            f"$.bootstrapNAS.training.lr_schedule.params got (warmup_epochs={params.warmup_epochs}, "
            f"num_epochs={length}) and all stages together {epochs} epochs."
        )
        raise ConfigError(msg)
    schedule = CosineSchedule(params.base_lr, length, params.warmup_epochs, params.warmup_lr)
    return lambda epoch, _: schedule(epoch)
