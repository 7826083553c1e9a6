"""Strict fairness, as a property of any space."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bootstrapnas_ext.space import Choice, SearchSpace
from bootstrapnas_ext.training.strategies import fair
from tests.training.fake_supernet import SPACE
from tests.training.steps import step_of

SPACES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(
    lambda sizes: SearchSpace(
        tuple(Choice(f"c{index}", tuple(range(size, 0, -1)), "width") for index, size in enumerate(sizes))
    )
)


def spread(space: SearchSpace, name: str, first: int, last: int) -> int:
    """How much more often the most frequent value of a choice is trained than the least frequent, in some steps."""
    choice = next(choice for choice in space.choices if choice.name == name)
    counts = Counter(dict.fromkeys(choice.values, 0))
    counts.update(one.subnet[name] for index in range(first, last) for one in fair(step_of(index, space)))
    assert set(counts) == set(choice.values)
    return max(counts.values()) - min(counts.values())


@given(SPACES, st.integers(0, 10**6), st.integers(1, 8))
def test_values_of_a_choice_are_trained_equally_often(space: SearchSpace, first: int, steps: int) -> None:
    longest = max(len(choice.values) for choice in space.choices)
    for choice in space.choices:
        if longest % len(choice.values) == 0:
            assert spread(space, choice.name, first, first + steps) == 0
        else:
            assert spread(space, choice.name, first, first + steps) <= 2
            assert spread(space, choice.name, 0, steps) <= 1


def test_choices_are_shuffled_apart_and_anew() -> None:
    space = SearchSpace(tuple(Choice(f"c{index}", (5, 4, 3, 2, 1), "width") for index in range(3)))
    steps = [fair(step_of(index, space)) for index in range(50)]
    rows = [[tuple(one.subnet[f"c{c}"] for one in step) for step in steps] for c in range(3)]
    assert all(len(set(row)) > 25 for row in rows), "of 120 permutations"
    assert all(sum(a == b for a, b in zip(*pair, strict=True)) < 5 for pair in pairwise(rows))


def test_a_step_has_as_many_passes_as_the_longest_choice_has_values() -> None:
    assert len(fair(step_of(3))) == 4
    assert len(fair(step_of(3, SPACE.restrict({"depth": None})))) == 3
