"""Uniform sampling."""

from __future__ import annotations

from bootstrapnas_ext.training.strategies.base import STRATEGIES, Pass, Step


@STRATEGIES.register("random")
def random(step: Step) -> tuple[Pass, ...]:
    """
    Trains one subnet of the whole super-network, every value of a choice equally likely, from the first step on:
    whatever a stage opens, it does not count.

    Z. Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020,
    https://arxiv.org/abs/1904.00420.

    :param step: The training step.
    """
    return (step.learns(step.whole.sample(step.rng)),)
