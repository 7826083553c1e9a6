"""Strict fairness."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bootstrapnas_ext.training.strategies.base import STRATEGIES, Pass, Step


@STRATEGIES.register("fair")
def fair(step: Step) -> tuple[Pass, ...]:
    """
    Trains every value of every choice equally often: as many subnets a step as the longest choice has values.

    X. Chu, B. Zhang, R. Xu, FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search,
    ICCV 2021, https://arxiv.org/abs/1907.01845.

    There, all choices have the same number of values, and each step uses each value once. Here, each choice goes
    through its values again and again, each time in another random order, and steps cut these rows into pieces of the
    same length. Hence, for two values of one choice:

    - if their number divides that of the passes of a step, a step uses both equally often, as in the paper;
    - over any run of draws within a stage, the one is used at most two times more often than the other, and at most
      once more often counted from the first step of a training.

    What a block computes inside is trained only when the block is not skipped.

    :param step: The training step.
    """
    count = max(len(choice.values) for choice in step.space.choices)
    rows = [list(_row(step, index, count)) for index in range(len(step.space.choices))]
    return tuple(step.learns(step.space.decode(indices)) for indices in zip(*rows, strict=True))


def _row(step: Step, index: int, count: int) -> Iterator[int]:
    """Yields the value indices of a choice in the passes of a step: part of an endless row of permutations."""
    size = len(step.space.choices[index].values)
    first = step.draw * count
    for turn in range(first // size, (first + count - 1) // size + 1):
        order = np.random.default_rng([step.seed, index, turn]).permutation(size)
        yield from (
            int(order[i - turn * size]) for i in range(turn * size, (turn + 1) * size) if 0 <= i - first < count
        )
