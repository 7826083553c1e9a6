"""Which subnet to measure next: a function of the finished trials and the seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from bootstrapnas_ext.search._optuna import quiet
from bootstrapnas_ext.search.algorithms import ALGORITHMS
from bootstrapnas_ext.search.plan import SearchPlan
from bootstrapnas_ext.search.trial import Measurement
from bootstrapnas_ext.space import SearchSpace, Subnet

_DRAWS = 20
"""How often the algorithm may propose a subnet that was measured before, until an unseen one is drawn at random."""


class Proposer:
    """
    Asks the algorithm for subnets that were not measured before.

    The algorithm works on a study in memory that holds the finished trials, and the sampler of each draw is new, with a
    seed of its own. So it makes no difference whether the finished trials come from this process or from the database.
    The first two proposals are the maximum and the minimum subnet: the ends of the front that is looked for.

    :param plan: What the search is of.
    :param finished: The trials so far, as Optuna keeps them, in order.
    """

    def __init__(self, plan: SearchPlan, finished: Iterable[FrozenTrial]) -> None:
        self._space = plan.space
        self._objectives = plan.objectives
        self._settings = plan.settings
        self._algorithm = ALGORITHMS.get(plan.settings.algorithm)
        # A parameter is the index of a value, so that samplers which know about order can use it.
        self._distributions: dict[str, BaseDistribution] = {
            choice.name: IntDistribution(0, len(choice.values) - 1) for choice in plan.space.choices
        }
        with quiet():
            self._study = optuna.create_study(directions=[o.direction for o in plan.objectives])
        self._seen: set[Subnet] = set()
        for trial in finished:
            self._study.add_trial(trial)
            self._seen.add(subnet_of(self._space, trial))

    def ask(self) -> tuple[optuna.Trial, Subnet] | None:
        """
        Returns the next trial and its subnet, which was never proposed before; ``None`` if there is no such subnet.
        """
        number = len(self._seen)
        if number == self._space.size:
            return None
        if number < 2:
            return self._given((self._space.maximum, self._space.minimum)[number])
        for draw in range(_DRAWS):
            trial, subnet = self._draw(draw)
            if subnet not in self._seen:
                return trial, subnet
            self._study.tell(trial, state=TrialState.FAIL)
        return self._given(self._unseen(np.random.default_rng([self._settings.seed, number])))

    def tell(self, trial: optuna.Trial, measurement: Measurement) -> FrozenTrial:
        """
        Returns the finished trial, ready to be stored.

        :param trial: As asked for.
        :param measurement: Of its subnet, with a finite value for every objective.
        """
        trial.set_user_attr("values", measurement.values)
        trial.set_user_attr("attributes", measurement.attributes)
        finished = self._study.tell(trial, [measurement.values[o.name] for o in self._objectives])
        self._seen.add(subnet_of(self._space, finished))
        return finished

    def _draw(self, draw: int) -> tuple[optuna.Trial, Subnet]:
        entropy = np.random.SeedSequence([self._settings.seed, len(self._seen), draw])
        self._study.sampler = self._algorithm(self._settings, int(entropy.generate_state(1)[0]))
        trial = self._study.ask(self._distributions)
        return trial, subnet_of(self._space, trial)

    def _given(self, subnet: Subnet) -> tuple[optuna.Trial, Subnet]:
        indices = self._space.encode(subnet)
        self._study.enqueue_trial({name: int(i) for name, i in zip(self._distributions, indices, strict=True)})
        return self._draw(_DRAWS)

    def _unseen(self, rng: np.random.Generator) -> Subnet:
        if self._space.size > 2 * len(self._seen):
            return next(subnet for subnet in iter(lambda: self._space.sample(rng), None) if subnet not in self._seen)
        every = itertools.product(*(range(len(choice.values)) for choice in self._space.choices))
        unseen = [subnet for subnet in map(self._space.decode, every) if subnet not in self._seen]
        return unseen[rng.integers(len(unseen))]


def subnet_of(space: SearchSpace, trial: optuna.Trial | FrozenTrial) -> Subnet:
    """
    Returns the subnet that the parameters of a trial mean.

    :param space: The space that the trial is of.
    :param trial: With one parameter a choice: the index of its value.
    """
    params = trial.params  # a copy at each access
    return space.decode([params[choice.name] for choice in space.choices])
