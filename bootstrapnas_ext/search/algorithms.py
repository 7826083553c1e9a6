"""Search algorithms: each is one function from the settings to an Optuna sampler, and one registration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.study import Study
from optuna.trial import FrozenTrial

from bootstrapnas_ext.config import SearchConfig
from bootstrapnas_ext.config.rules import SEARCH_ALGORITHMS
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.registry import Registry
from bootstrapnas_ext.search._optuna import quiet


@dataclass(frozen=True)
class SearchSettings:
    """
    How subnets are proposed. Together with the space, the objectives and the measurements, it decides every trial.

    :param algorithm: A name in :data:`ALGORITHMS`.
    :param population: Individuals in a generation, at least 2.
    :param crossover_prob: Probability that a child mixes two parents rather than copies one, 0 to 1.
    :param crossover_eta: Above 0; the larger, the nearer a child's values are to its parents'.
    :param mutation_prob: Probability of each choice of a child to mutate, 0 to 1.
    :param mutation_eta: Above 0; the larger, the nearer a mutated value is to what it was.
    :param seed: Source of all randomness, at least 0.
    """

    algorithm: str = SearchConfig.algorithm
    population: int = SearchConfig.population
    crossover_prob: float = SearchConfig.crossover_prob
    crossover_eta: float = SearchConfig.crossover_eta
    mutation_prob: float = SearchConfig.mutation_prob
    mutation_eta: float = SearchConfig.mutation_eta
    seed: int = SearchConfig.seed

    def __post_init__(self) -> None:
        if self.population < 2:
            msg = f"`population >= 2` must hold, but got {self.population}."
            raise ConfigError(msg)
        if self.seed < 0:
            msg = f"`seed >= 0` must hold, but got {self.seed}."
            raise ConfigError(msg)
        for name in ("crossover_prob", "mutation_prob"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"`0 <= {name} <= 1` must hold, but got {getattr(self, name)}."
                raise ConfigError(msg)
        for name in ("crossover_eta", "mutation_eta"):
            if getattr(self, name) <= 0:
                msg = f"`{name} > 0` must hold, but got {getattr(self, name)}."
                raise ConfigError(msg)


Algorithm = Callable[[SearchSettings, int], BaseSampler]
"""From the settings and the seed of one proposal to a sampler. The sampler makes that proposal and is thrown away: what
it knows of the past, it reads from the study, so that a resumed search goes on as if it had never stopped."""

ALGORITHMS: Registry[Algorithm] = Registry("search algorithm", SEARCH_ALGORITHMS)


class _NSGA2(NSGAIISampler):
    """Optuna's sampler, made to be thrown away after one proposal."""

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        # Parents that Optuna's cache has seen come in the order of their numbers; a resumed search has no cache yet.
        return sorted(super().select_parent(study, generation), key=lambda parent: parent.number)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        # Optuna intersects the spaces of all trials, anew in each sampler; here they are all the same.
        first = study.get_trials(deepcopy=False)[0]
        return {name: values for name, values in first.distributions.items() if not values.single()}


@ALGORITHMS.register("NSGA2")
def nsga2(settings: SearchSettings, seed: int) -> BaseSampler:
    """
    NSGA-II (Deb et al., 2002, https://doi.org/10.1109/4235.996017) with simulated binary crossover and polynomial
    mutation of the indices of the values. The first generation is random.

    :param settings: Population, probabilities and distribution indices.
    :param seed: Seed of one proposal.
    """
    with quiet():
        return _NSGA2(
            population_size=settings.population,
            crossover=SBXCrossover(settings.crossover_eta),
            crossover_prob=settings.crossover_prob,
            mutation=PolynomialMutation(settings.mutation_eta),
            mutation_prob=settings.mutation_prob,
            seed=seed,
        )


@ALGORITHMS.register("random")
def random(settings: SearchSettings, seed: int) -> BaseSampler:
    """
    Every value of a choice equally likely: the baseline that an algorithm has to beat.

    :param settings: None of its parameters counts.
    :param seed: Seed of one proposal.
    """
    return RandomSampler(seed=seed)
