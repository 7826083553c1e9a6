"""The Pareto front of trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bootstrapnas_ext.search.objectives import Objective
from bootstrapnas_ext.search.trial import Trial


def pareto_front(trials: Sequence[Trial], objectives: Sequence[Objective]) -> tuple[Trial, ...]:
    """
    Returns the trials that no other trial dominates, that is, is as good in every objective and better in one.

    Trials with equal values do not dominate each other: they are on the front together or not at all.

    :param trials: Trials that measured all the objectives.
    :param objectives: At least one.
    :return: The front, in the order of the trials.
    """
    if not trials:
        return ()
    losses = np.array([[o.loss(trial.values[o.name]) for o in objectives] for trial in trials])
    return tuple(
        trial
        for trial, loss in zip(trials, losses, strict=True)
        if not np.any(np.all(losses <= loss, axis=1) & np.any(losses < loss, axis=1))
    )
