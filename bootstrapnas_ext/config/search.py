"""How subnets are searched: the ``bootstrapNAS.search`` block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from bootstrapnas_ext.config.rules import (
    Fraction,
    Measure,
    NonNegativeInt,
    Objective,
    Percent,
    PositiveFloat,
    PositiveInt,
    Rule,
    SearchAlgorithm,
    Violation,
)
from bootstrapnas_ext.config.training import BatchnormAdaptationConfig

_WITH_GENERATIONS = "NSGA2"
_ACCURACY = "accuracy"


@dataclass(frozen=True)
class ConstraintConfig:
    """
    Limits that a chosen subnet keeps, in the unit of the objective or relative to the input model.

    :param min: At least this value.
    :param max: At most this value.
    :param min_ratio: At least this part of the input model's value.
    :param max_ratio: At most this part of the input model's value.
    """

    min: float | None = None
    max: float | None = None
    min_ratio: PositiveFloat | None = None
    max_ratio: PositiveFloat | None = None

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if all(bound is None for bound in (self.min, self.max, self.min_ratio, self.max_ratio)):
            yield Violation((), "must give at least one of `min`, `max`, `min_ratio` and `max_ratio`, but got none")
        for low_name, high_name in (("min", "max"), ("min_ratio", "max_ratio")):
            low, high = getattr(self, low_name), getattr(self, high_name)
            if low is not None and high is not None and low > high:
                yield Violation(
                    (low_name,),
                    f"`{low_name} <= {high_name}` must hold, but got ({low_name}={low}, {high_name}={high})",
                )


@dataclass(frozen=True)
class LatencyConfig:
    """
    How OpenVINO measures latency on the CPU.

    :param num_threads: Threads of an inference; all cores that the process may use if not given.
    :param performance_hint: OpenVINO's performance hint.
    :param inference_precision: Precision of the arithmetic. It is always set, because OpenVINO left alone takes bf16
        where the CPU has it.
    :param warmup: Inferences before the first measured one.
    :param iterations: Measured inferences, whose median is the latency.
    :param max_seconds: Time after which no more inferences of a model are started, though it is measured at least once.
    """

    num_threads: PositiveInt | None = None
    performance_hint: Literal["latency", "throughput"] = "latency"
    inference_precision: Literal["f32", "bf16", "f16"] = "f32"
    warmup: NonNegativeInt = 10
    iterations: PositiveInt = 200
    max_seconds: PositiveFloat = 1.0


@dataclass(frozen=True)
class SearchConfig:
    """
    How subnets are searched and chosen.

    :param algorithm: Name of a registered search algorithm.
    :param num_evals: How many subnets are evaluated.
    :param population: How many subnets a generation has, where the algorithm has generations, as "NSGA2".
    :param seed: The same seed gives the same trials.
    :param crossover_prob: Probability that two parents are crossed.
    :param crossover_eta: Distribution index of simulated binary crossover; the larger, the nearer are children to their
        parents.
    :param mutation_prob: Probability that one value of a child mutates.
    :param mutation_eta: Distribution index of polynomial mutation; larger mutates less.
    :param ref_acc: Accuracy, in percent, that chosen subnets are compared with; the input model's if not given.
        For searches that measure accuracy only.
    :param acc_delta: A chosen subnet loses at most this many percentage points against `ref_acc`.
    :param batchnorm_adaptation: Recalibration of BatchNorm statistics before the accuracy of a subnet is measured.
    :param objectives: What is optimised: names of registered objectives, two or more. "accuracy", "macs", "parameters"
        and "latency_ms" are there by default.
    :param constraints: Limits that a chosen subnet keeps, by the name of what is measured.
    :param latency: How latency is measured.
    """

    algorithm: SearchAlgorithm = _WITH_GENERATIONS
    num_evals: PositiveInt = 3000
    population: Annotated[int, Rule("minimum", 2)] = 40
    seed: NonNegativeInt = 0
    crossover_prob: Fraction = 0.9
    crossover_eta: PositiveFloat = 10.0
    mutation_prob: Fraction = 0.02
    mutation_eta: PositiveFloat = 3.0
    ref_acc: Percent | None = None
    acc_delta: Percent = 1.0
    batchnorm_adaptation: BatchnormAdaptationConfig = field(default_factory=BatchnormAdaptationConfig)
    objectives: Annotated[tuple[Objective, ...], Rule("minItems", 2), Rule("uniqueItems", True)] = ("accuracy", "macs")
    constraints: Mapping[Measure, ConstraintConfig] = field(default_factory=dict)
    latency: LatencyConfig = field(default_factory=LatencyConfig)

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if self.algorithm == _WITH_GENERATIONS and self.population > self.num_evals:
            yield Violation(
                ("population",),
                f"`population <= num_evals` must hold, but got (population={self.population}, "
                f"num_evals={self.num_evals})",
            )
        if self.ref_acc is not None and _ACCURACY not in (*self.objectives, *self.constraints):
            yield Violation(
                ("ref_acc",),
                f"is for searches that measure accuracy, but got {self.ref_acc} with the objectives "
                f"{list(self.objectives)}; remove it, or add 'accuracy' to `objectives`",
            )
