"""What a training strategy is, and the registry that the config's ``training.strategy`` is looked up in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bootstrapnas_ext.config import TrainingConfig, rules
from bootstrapnas_ext.config.training import Source
from bootstrapnas_ext.registry import Registry
from bootstrapnas_ext.space import SearchSpace, Subnet


@dataclass(frozen=True)
class Pass:
    """
    One forward and backward pass of a step: a subnet, and what it learns from.

    Its loss is ``task_weight`` times that of the task, plus ``distillation_weight`` times that of distillation. The
    losses of all passes of a step are added up, and the optimizer steps once.

    :param subnet: The subnet that is trained.
    :param teacher: Whose outputs it learns: those of the ``maximum`` in place, of the ``input_model``, or of ``none``.
    :param task_weight: Factor of the task's loss, at least 0.
    :param distillation_weight: Factor of the loss of distillation, on top of the config's ``distillation.weight``, at
        least 0.
    """

    subnet: Subnet
    teacher: Source = "none"
    task_weight: float = 1.0
    distillation_weight: float = 1.0


@dataclass(frozen=True)
class Step:
    """
    One training step, as a strategy sees it.

    :param index: Number of the step since the start of training, from 0.
    :param space: The subnets that the current stage has opened.
    :param whole: All subnets of the super-network.
    :param seed: The seed of the whole training.
    :param sample_rate: After how many steps other subnets are drawn, at least 1.
    :param config: The config of the training, with the settings of each strategy.
    :param macs: A subnet to its multiply-accumulates.
    :param estimate: A subnet to how large its loss is, for the strategies that compare subnets: in the package's own
        loop the loss on the batch of the step.
    """

    index: int
    space: SearchSpace
    whole: SearchSpace
    seed: int
    sample_rate: int
    config: TrainingConfig = field(repr=False)
    macs: Callable[[Subnet], float] = field(repr=False)
    estimate: Callable[[Subnet], float] = field(repr=False)

    @property
    def draw(self) -> int:
        """How often other subnets were drawn before this step: its index where ``sample_rate`` is 1."""
        return self.index // self.sample_rate

    @property
    def rng(self) -> np.random.Generator:
        """
        A new generator that depends on the seed and :attr:`draw` alone.

        So the subnets of any step are known without running the steps before it, and a resumed training needs no
        random state.
        """
        return np.random.default_rng([self.seed, self.draw])

    def learns(self, subnet: Subnet) -> Pass:
        """
        Returns a pass that learns from the labels, and from the config's teacher if there is one.

        :param subnet: The subnet to train.
        """
        return Pass(subnet, self.config.distillation.source or "none")

    def imitates(self, subnet: Subnet) -> Pass:
        """
        Returns a pass that learns from a teacher instead of the labels: from the maximum in place, unless the config
        names another. Where the config wants no teacher, and for the maximum itself, it is :meth:`learns`.

        :param subnet: The subnet to train.
        """
        teacher = self.config.distillation.source or "maximum"
        if teacher == "none" or (teacher == "maximum" and subnet == self.whole.maximum):
            return self.learns(subnet)
        return Pass(subnet, teacher, task_weight=0.0)


#: Names the passes of one step, at least one. A strategy is a pure function of the step.
Strategy = Callable[[Step], tuple[Pass, ...]]

STRATEGIES: Registry[Strategy] = Registry("training strategy", rules.STRATEGIES)
