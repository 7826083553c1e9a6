"""Progressive shrinking."""

from __future__ import annotations

from bootstrapnas_ext.training.strategies.base import STRATEGIES, Pass, Step


@STRATEGIES.register("progressive_shrinking")
def progressive_shrinking(step: Step) -> tuple[Pass, ...]:
    """
    Trains one random subnet of what the stage has opened; the stages open ever smaller subnets.

    H. Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR 2020,
    https://arxiv.org/abs/1908.09791.

    :param step: The training step.
    """
    return (step.learns(step.space.sample(step.rng)),)
