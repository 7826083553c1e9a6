"""Attentive sampling."""

from __future__ import annotations

import numpy as np

from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.strategies.base import STRATEGIES, Pass, Step

#: Random subnets for each candidate, among which those of about the same MACs are looked for.
_POOL = 4


@STRATEGIES.register("attentive")
def attentive(step: Step) -> tuple[Pass, ...]:
    """
    Trains as the sandwich rule does, but the subnets between maximum and minimum are the best or the worst of some
    candidates of about the same MACs: those that are on the way to the Pareto front, or those that hold it back.

    D. Wang et al., AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling, CVPR 2021,
    https://arxiv.org/abs/2011.09011.

    Candidates are a random subnet and those that are nearest to it in MACs among four times as many random ones as
    candidates. Which one is best says the smallest ``step.estimate``: in the package's own loop the loss on the batch.

    :param step: The training step.
    """
    rng = step.rng
    chosen = (_choose(step, rng) for _ in range(step.config.attentive.num_subnets))
    return (step.learns(step.whole.maximum), step.imitates(step.space.minimum), *map(step.imitates, chosen))


def _choose(step: Step, rng: np.random.Generator) -> Subnet:
    settings = step.config.attentive
    pool = [step.space.sample(rng) for _ in range(_POOL * settings.num_candidates)]
    macs = [step.macs(subnet) for subnet in pool]
    nearest = sorted(range(len(pool)), key=lambda index: abs(macs[index] - macs[0]))
    candidates = [pool[index] for index in nearest[: settings.num_candidates]]
    best = min if settings.mode == "best_up" else max
    return best(candidates, key=step.estimate)
