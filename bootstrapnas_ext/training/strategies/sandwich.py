"""The sandwich rule."""

from __future__ import annotations

from bootstrapnas_ext.training.strategies.base import STRATEGIES, Pass, Step


@STRATEGIES.register("sandwich")
def sandwich(step: Step) -> tuple[Pass, ...]:
    """
    Trains the maximum on the labels, and the minimum and some random subnets on the outputs of the maximum. The
    minimum and the random ones are those of what the stage has opened.

    J. Yu, T. Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019,
    https://arxiv.org/abs/1903.05134.

    :param step: The training step.
    """
    rng = step.rng
    others = (step.space.sample(rng) for _ in range(step.config.sandwich.num_random))
    return (step.learns(step.whole.maximum), step.imitates(step.space.minimum), *map(step.imitates, others))
