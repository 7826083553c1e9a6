"""Proposals: a function of the finished trials and the seed, and never a subnet twice."""

from __future__ import annotations

import dataclasses

import pytest
from optuna.samplers import RandomSampler

from bootstrapnas_ext.search import ALGORITHMS, Measurement, SearchSettings
from bootstrapnas_ext.search.proposal import Proposer
from bootstrapnas_ext.space import Choice, SearchSpace


def space_of(*sizes):
    return SearchSpace(tuple(Choice(f"c{i}", tuple(range(size, 0, -1)), "width") for i, size in enumerate(sizes)))


def search(plan, evaluate, count, finished=()):
    """Returns the subnets and the finished trials of a search without a database."""
    proposer, subnets, finished = Proposer(plan, finished), [], list(finished)
    while len(subnets) < count and (proposal := proposer.ask()) is not None:
        subnets.append(proposal[1])
        finished.append(proposer.tell(proposal[0], evaluate(proposal[1])))
    return subnets, finished


@pytest.mark.parametrize("algorithm", ["NSGA2", "random"])
def test_proposal_depends_on_nothing_but_the_finished_trials(plan, evaluate, algorithm):
    settings = dataclasses.replace(plan.settings, algorithm=algorithm)
    plan = dataclasses.replace(plan, settings=settings)
    subnets, finished = search(plan, evaluate, 40)
    for number in range(39):
        assert search(plan, evaluate, 2, finished[:number])[0] == subnets[number : number + 2]


@pytest.mark.parametrize("algorithm", ["NSGA2", "random"])
@pytest.mark.parametrize("sizes", [(), (1,), (2,), (3, 2, 1, 4), (1, 30)])
def test_every_subnet_is_proposed_once(plan, algorithm, sizes):
    plan = dataclasses.replace(plan, space=space_of(*sizes), settings=SearchSettings(algorithm, population=2))
    subnets, _ = search(plan, lambda subnet: Measurement({"accuracy": 1, "macs": 1}), plan.space.size + 5)
    assert len(subnets) == len(set(subnets)) == plan.space.size


@pytest.mark.parametrize("sizes", [(5, 4), (9, 9, 9, 9)])
def test_an_algorithm_that_repeats_itself_still_finds_new_subnets(plan, evaluate, monkeypatch, sizes):
    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS._entries))
    ALGORITHMS.register("stubborn")(lambda settings, seed: RandomSampler(seed=0))
    plan = dataclasses.replace(plan, space=space_of(*sizes), settings=SearchSettings("stubborn"))
    subnets, finished = search(plan, evaluate, 15)
    assert len(set(subnets)) == 15
    assert search(plan, evaluate, 15)[0] == subnets
    assert search(plan, evaluate, 5, finished[:10])[0] == subnets[10:]


def test_nsga2_beats_random_search(plan):
    def evaluate(subnet):
        # Half of the choices give much for little, half the opposite, so the front is far from what chance finds.
        values = list(subnet.values())
        good, bad = sum(values[:8]), sum(values[8:])
        return Measurement({"accuracy": 3 * good + bad, "macs": good + 3 * bad})

    def gain(algorithm):
        settings = SearchSettings(algorithm, population=16, mutation_prob=0.05)
        subnets, _ = search(dataclasses.replace(plan, space=space_of(*[8] * 16), settings=settings), evaluate, 120)
        return max(sum(list(s.values())[:8]) - sum(list(s.values())[8:]) for s in subnets)

    assert gain("NSGA2") > 1.2 * gain("random")


@pytest.mark.parametrize(
    "change",
    [
        {"population": 8},
        {"crossover_prob": 0.0},
        {"crossover_eta": 0.1},
        {"mutation_prob": 0.9},
    ],
)
def test_settings_of_nsga2_matter(plan, evaluate, change):
    changed = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, **change))
    assert search(changed, evaluate, 30)[0] != search(plan, evaluate, 30)[0]


def test_large_mutation_eta_changes_values_little(plan, evaluate):
    def steps(mutation_eta):
        """Returns how far each child is from the trial that is nearest to it."""
        settings = SearchSettings(population=4, crossover_prob=0.0, mutation_prob=0.5, mutation_eta=mutation_eta)
        changed = dataclasses.replace(plan, space=space_of(*[30] * 6), settings=settings)
        encoded = [changed.space.encode(subnet) for subnet in search(changed, evaluate, 40)[0]]
        return [min(abs(child - parent).sum() for parent in encoded[:i]) for i, child in enumerate(encoded) if i >= 4]

    assert sum(steps(50.0)) < 0.5 * sum(steps(1.0))
