"""What a training strategy is, and the registry that the config's ``training.strategy`` is looked up in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bootstrapnas_ext.config import rules
from bootstrapnas_ext.registry import Registry
from bootstrapnas_ext.space import SearchSpace, Subnet


@dataclass(frozen=True)
class Step:
    """
    One training step, as a strategy sees it.

    :param index: Number of the step since the start of training, from 0.
    :param space: The subnets that the current stage has opened.
    :param seed: The seed of the whole training.
    :param sample_rate: After how many steps other subnets are drawn, at least 1.
    """

    index: int
    space: SearchSpace
    seed: int
    sample_rate: int

    @property
    def rng(self) -> np.random.Generator:
        """
        A new generator that depends on the seed and the index alone, and is the same for ``sample_rate`` steps.

        So the subnets of any step are known without running the steps before it, and a resumed training needs no
        random state.
        """
        return np.random.default_rng([self.seed, self.index // self.sample_rate])


#: Names the subnets that one step trains, at least one. The loop averages their losses, adds up the gradients and
#: then lets the optimizer step once. A strategy is a pure function of the step.
Strategy = Callable[[Step], tuple[Subnet, ...]]

STRATEGIES: Registry[Strategy] = Registry("training strategy", rules.STRATEGIES)
