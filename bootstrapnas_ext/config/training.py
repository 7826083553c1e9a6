"""How the super-network is trained: the ``bootstrapNAS.training`` block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from bootstrapnas_ext.config.elasticity import ElasticityConfig
from bootstrapnas_ext.config.rules import (
    Dimensions,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ProperFraction,
    Rule,
    Strategy,
    Violation,
)

Source = Literal["none", "input_model", "maximum"]


@dataclass(frozen=True)
class BatchnormAdaptationConfig:
    """
    Recalibration of BatchNorm statistics.

    :param num_bn_adaptation_samples: How many training samples the statistics are taken from, rounded up to whole
        batches; 0 turns recalibration off.
    """

    num_bn_adaptation_samples: NonNegativeInt = 2000


@dataclass(frozen=True)
class StageConfig:
    """
    One period of training.

    :param train_dims: Dimensions that are elastic in this stage; all available ones if not given.
    :param epochs: How long the stage takes.
    :param depth_indicator: How many blocks of each chain may be skipped, from its end; all if not given.
    :param width_indicator: How many widths of each layer are open, the largest first; all if not given.
    :param kernel_indicator: How many sizes of each kernel are open, the largest first; all if not given.
    :param strategy: Which subnets a step of this stage trains; `training.strategy` if not given.
    :param reorg_weights: Sort channels by importance when the stage begins.
    :param bn_adapt: Recalibrate BatchNorm statistics when the stage begins.
    :param init_lr: Learning rate at the beginning of the stage, from which it falls along a cosine; the optimizer's
        own if not given (NNCF 2.x took 3.5e-6). Not together with `lr_schedule`.
    :param warmup_epochs: In how many of the stage's epochs the learning rate rises from 0 to that. Not together with
        `lr_schedule`.
    :param epochs_lr: Number of epochs in which the learning rate would fall to 0; `epochs` if not given. Without
        effect with `lr_schedule`.
    :param sample_rate: A new random subnet is drawn every this many training steps.
    """

    train_dims: Dimensions | None = None
    epochs: PositiveInt = 1
    depth_indicator: PositiveInt | None = None
    width_indicator: PositiveInt | None = None
    kernel_indicator: PositiveInt | None = None
    strategy: Strategy | None = None
    reorg_weights: bool = False
    bn_adapt: bool = False
    init_lr: PositiveFloat | None = None
    warmup_epochs: NonNegativeInt = 0
    epochs_lr: PositiveInt | None = None
    sample_rate: PositiveInt = 1


@dataclass(frozen=True)
class SandwichConfig:
    """
    The strategy "sandwich".

    :param num_random: How many random subnets a step trains beside the maximum and the minimum.
    """

    num_random: NonNegativeInt = 2


@dataclass(frozen=True)
class AttentiveConfig:
    """
    The strategy "attentive".

    :param mode: Whether a step trains the candidate with the smallest loss ("best_up") or the largest ("worst_up").
    :param num_candidates: From how many subnets of about the same MACs it is taken.
    :param num_subnets: How many subnets a step takes so, beside the maximum and the minimum.
    """

    mode: Literal["best_up", "worst_up"] = "worst_up"
    num_candidates: Annotated[int, Rule("minimum", 2)] = 3
    num_subnets: PositiveInt = 2


@dataclass(frozen=True)
class ScheduleConfig:
    """
    The stages of training.

    :param list_stage_descriptions: The stages, in order. If not given, one epoch for each available dimension, which
        join in the order of `progressivity_of_elasticity`.
    """

    list_stage_descriptions: Annotated[tuple[StageConfig, ...] | None, Rule("minItems", 1)] = None


@dataclass(frozen=True)
class LRScheduleParams:
    """
    One learning-rate curve over all stages: a linear warm-up, then a cosine.

    :param base_lr: Learning rate after the warm-up.
    :param num_epochs: Length of the curve in epochs; those of all stages together if not given.
    :param warmup_epochs: Length of the warm-up in epochs.
    :param warmup_lr: Learning rate at which the warm-up begins.
    """

    base_lr: PositiveFloat = 3.4e-4
    num_epochs: PositiveInt | None = None
    warmup_epochs: NonNegativeInt = 0
    warmup_lr: NonNegativeFloat = 3.4e-4

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if self.num_epochs is not None and self.warmup_epochs >= self.num_epochs:
            yield Violation(
                ("warmup_epochs",),
                f"`warmup_epochs < num_epochs` must hold, but got (warmup_epochs={self.warmup_epochs}, "
                f"num_epochs={self.num_epochs})",
            )


@dataclass(frozen=True)
class LRScheduleConfig:
    """
    A learning-rate schedule over all stages.

    :param params: Shape of the curve.
    """

    params: LRScheduleParams = field(default_factory=LRScheduleParams)


@dataclass(frozen=True)
class DistillationConfig:
    """
    Distillation: subnets learn from the outputs of a teacher.

    :param source: The teacher: "none", "input_model" (the given model as it was), or "maximum" (the super-network at
        its maximum, in place). If not given, the strategy decides: the maximum for "sandwich" and "attentive", none for
        the others.
    :param loss: How logits are compared: "kl" is the Kullback-Leibler divergence of soft outputs
        (https://arxiv.org/abs/1503.02531), "mse" the mean squared difference (https://arxiv.org/abs/2105.08919),
        "alpha_divergence" the adaptive alpha-divergence (https://arxiv.org/abs/2102.07954).
    :param temperature: Softens the outputs of both before they are compared; 1 leaves them as they are. Not for "mse".
    :param weight: Factor of the distillation loss in the sum with the loss of the task.
    :param class_dim: The dimension of the logits along which classes are, for example -1. If not given, the last of
        three dimensions, as of tokens, and the second of others.
    :param features: Paths of modules whose outputs are compared, too, by the mean squared difference
        (https://arxiv.org/abs/1412.6550); of a narrower subnet, the channels that it has.
    :param feature_weight: Factor of that difference, beside the logits.
    """

    source: Source | None = None
    loss: Literal["kl", "mse", "alpha_divergence"] = "kl"
    temperature: PositiveFloat = 1.0
    weight: NonNegativeFloat = 1.0
    class_dim: int | None = None
    features: Annotated[tuple[str, ...], Rule("uniqueItems", True)] = ()
    feature_weight: NonNegativeFloat = 1.0

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if self.loss == "mse" and self.temperature != 1.0:
            yield Violation(
                ("temperature",), f'has no effect with `loss` "mse", but got {self.temperature}; remove one of them'
            )
        if self.features and self.source in (None, "none"):
            yield Violation(
                ("features",),
                f'need a `source` that is "input_model" or "maximum", but got {list(self.features)} and '
                f"{'none' if self.source is None else repr(self.source)}; give one, or remove them",
            )


@dataclass(frozen=True)
class OptimizationConfig:
    """
    How the package's own loop changes the weights; a loop of one's own does as it likes.

    :param label_smoothing: Part of the target that the cross entropy spreads over all classes; for training without a
        `criterion` of one's own.
    :param gradient_clipping: The norm of all gradients together is at most this; no limit if not given.
    :param gradient_accumulation: How many batches make a step. Subnets are drawn once a step.
    :param bf16: Run forward passes under autocast to bfloat16, on the CPU or the GPU.
    :param channels_last: Let the channels of images and of the weights of convolutions lie next to each other in
        memory, which is faster on most devices.
    :param ema_decay: Keep an exponential moving average of the weights, with this part of it kept in a step, which is
        validated and becomes the best checkpoint; none if not given.
    """

    label_smoothing: Fraction = 0.0
    gradient_clipping: PositiveFloat | None = None
    gradient_accumulation: PositiveInt = 1
    bf16: bool = False
    channels_last: bool = False
    ema_decay: ProperFraction | None = None


@dataclass(frozen=True)
class TrainingConfig:
    """
    How the super-network is built and trained.

    :param algorithm: Training by stages, as in Once-for-all (https://arxiv.org/abs/1908.09791).
    :param strategy: Which subnets one training step uses: the name of a registered training strategy.
        "progressive_shrinking", "random", "fair", "sandwich" and "attentive" are there by default.
    :param sandwich: Settings of the strategy "sandwich".
    :param attentive: Settings of the strategy "attentive".
    :param progressivity_of_elasticity: In which order elastic dimensions join from stage to stage.
    :param batchnorm_adaptation: Recalibration of BatchNorm statistics in the stages with `bn_adapt`.
    :param schedule: The stages of training.
    :param elasticity: What of the model is elastic.
    :param lr_schedule: One learning-rate curve over all stages; each stage has its own if not given.
    :param optimization: How weights are changed.
    :param distillation: Whether and from what subnets learn in addition to the labels.
    :param checkpoint_minutes: A checkpoint is written after this many minutes, beside that at the end of each epoch.
    :param on_divergence: What happens when a loss or a gradient is not finite: "stop" ends the training with an error,
        "restore" goes back to the last checkpoint and on from there at half the learning rate.
    :param num_validation_subnets: How many random subnets are validated after each epoch, beside the maximum and the
        minimum; always the same ones.
    """

    algorithm: Literal["progressive_shrinking"] = "progressive_shrinking"
    strategy: Strategy = "progressive_shrinking"
    sandwich: SandwichConfig = field(default_factory=SandwichConfig)
    attentive: AttentiveConfig = field(default_factory=AttentiveConfig)
    progressivity_of_elasticity: Dimensions = ("kernel", "depth", "width")
    batchnorm_adaptation: BatchnormAdaptationConfig = field(default_factory=BatchnormAdaptationConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    elasticity: ElasticityConfig = field(default_factory=ElasticityConfig)
    lr_schedule: LRScheduleConfig | None = None
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    checkpoint_minutes: PositiveFloat = 10.0
    on_divergence: Literal["stop", "restore"] = "stop"
    num_validation_subnets: NonNegativeInt = 2

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """The stages in order, with what the config does not give filled in, except open indicators and `init_lr`."""
        given = self.schedule.list_stage_descriptions
        if given is None:
            order = self._available_in_order
            given = tuple(StageConfig(train_dims=order[: count + 1]) for count in range(len(order)))
        return tuple(
            replace(
                stage,
                train_dims=stage.train_dims or self.elasticity.available_elasticity_dims,
                epochs_lr=stage.epochs_lr or stage.epochs,
            )
            for stage in given
        )

    @property
    def _available_in_order(self) -> tuple[str, ...]:
        available = self.elasticity.available_elasticity_dims
        return tuple(dim for dim in self.progressivity_of_elasticity if dim in available)

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        available = self.elasticity.available_elasticity_dims
        missing = [dim for dim in available if dim not in self.progressivity_of_elasticity]
        if missing:
            yield Violation(
                ("progressivity_of_elasticity",),
                f"must contain every available elastic dimension {list(available)}, but got "
                f"{list(self.progressivity_of_elasticity)}; add {missing}",
            )
        stages = self.schedule.list_stage_descriptions or ()
        if (
            self.distillation.features
            and self.distillation.source == "input_model"
            and any(stage.reorg_weights for stage in stages)
        ):
            yield Violation(
                ("distillation", "features"),
                "cannot be compared with the input model's where `reorg_weights` of a stage sorts channels, but got "
                f'{list(self.distillation.features)}; remove one of them, or take the `source` "maximum"',
            )
        seen: tuple[str, ...] = ()
        for index, stage in enumerate(stages):
            path = ("schedule", "list_stage_descriptions", index)
            for key in ("init_lr", "warmup_epochs") if self.lr_schedule is not None else ():
                if getattr(stage, key):
                    yield Violation(
                        (*path, key),
                        f"must not be given together with `lr_schedule`, which sets the rate of all stages, but got "
                        f"{getattr(stage, key)}; remove one of them",
                    )
            if stage.warmup_epochs and stage.warmup_epochs >= (stage.epochs_lr or stage.epochs):
                yield Violation(
                    (*path, "warmup_epochs"),
                    f"`warmup_epochs < epochs_lr` must hold, but got (warmup_epochs={stage.warmup_epochs}, "
                    f"epochs_lr={stage.epochs_lr or stage.epochs})",
                )
            if self.lr_schedule is None and stage.epochs_lr is not None and stage.epochs_lr < stage.epochs:
                yield Violation(
                    (*path, "epochs_lr"),
                    f"`epochs <= epochs_lr` must hold, else the learning rate is zero before the stage ends, but got "
                    f"(epochs={stage.epochs}, epochs_lr={stage.epochs_lr})",
                )
            dims = stage.train_dims or available
            unavailable = [dim for dim in dims if dim not in available]
            if unavailable:
                yield Violation(
                    (*path, "train_dims"),
                    f"must be among the available elastic dimensions {list(available)}, but got {list(dims)}; add "
                    f"{unavailable} to `elasticity.available_elasticity_dims`",
                )
            elif not missing:
                yield from self._progress_violations((*path, "train_dims"), dims, seen)
            seen = dims

    def _progress_violations(
        self, path: tuple[str | int, ...], dims: tuple[str, ...], seen: tuple[str, ...]
    ) -> Iterator[Violation]:
        dropped = [dim for dim in seen if dim not in dims]
        if dropped:
            yield Violation(
                path, f"must keep the dimensions of the stage before, {list(seen)}, but got {list(dims)}; add {dropped}"
            )
            return
        order = self._available_in_order
        places = sorted(order.index(dim) for dim in dims)
        skipped = [dim for dim in order[places[0] : places[-1]] if dim not in dims]
        if skipped:
            yield Violation(
                path,
                f"must follow `progressivity_of_elasticity` {list(self.progressivity_of_elasticity)} without a gap, "
                f"but got {list(dims)}; add {skipped}",
            )
