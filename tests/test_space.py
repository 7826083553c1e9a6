"""Choices, subnets and the space that they span."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrapnas_ext.errors import SubnetError
from bootstrapnas_ext.space import Choice, SearchSpace, Subnet

VALUES = st.lists(st.integers(0, 512), min_size=1, max_size=6, unique=True).map(
    lambda v: tuple(sorted(v, reverse=True))
)
DIMENSIONS = st.sampled_from(["width", "depth", "kernel"])


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True))
    return SearchSpace(tuple(Choice(name, draw(VALUES), draw(DIMENSIONS)) for name in names))


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace(
        (
            Choice("width:a", (16, 8, 4), "width"),
            Choice("depth:b", (2, 1, 0), "depth"),
            Choice("width:c", (32, 16), "width"),
        )
    )


@given(spaces(), st.integers(0, 2**32 - 1))
def test_encode_and_decode_are_inverse(space: SearchSpace, seed: int) -> None:
    subnet = space.sample(np.random.default_rng(seed))
    indices = space.encode(subnet)
    assert indices.shape == (len(space.choices),)
    assert space.decode(indices) == subnet
    assert space.decode(list(indices)) == subnet
    assert np.array_equal(space.encode(space.decode(indices)), indices)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_subnets_survive_json(space: SearchSpace, seed: int) -> None:
    subnet = space.sample(np.random.default_rng(seed))
    loaded = space.validate(json.loads(json.dumps(dict(subnet))))
    assert loaded == subnet
    assert hash(loaded) == hash(subnet)


@given(spaces(), st.dictionaries(DIMENSIONS, st.none() | st.integers(1, 7)))
def test_a_restricted_space_is_a_part_with_the_same_maximum(
    space: SearchSpace, open_values: Mapping[str, int | None]
) -> None:
    part = space.restrict(open_values)
    assert part.maximum == space.maximum
    assert part.size <= space.size
    for choice, small in zip(space.choices, part.choices, strict=True):
        limit = open_values.get(choice.dimension, 1)
        assert small.values == choice.values[:limit]
    space.validate(part.minimum)


@given(spaces())
def test_the_ends_of_a_space(space: SearchSpace) -> None:
    assert not space.encode(space.maximum).any()
    assert all(space.minimum[choice.name] == min(choice.values) for choice in space.choices)
    assert all(space.maximum[choice.name] == max(choice.values) for choice in space.choices)


def test_the_size_is_exact_however_large() -> None:
    assert SearchSpace(tuple(Choice(f"{i}", (4, 3, 2), "width") for i in range(100))).size == 3**100
    assert SearchSpace(()).size == 1


def test_every_value_is_equally_likely(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng)["width:a"] for _ in range(3000)]
    assert all(900 < drawn.count(value) < 1100 for value in (16, 8, 4))


def test_the_same_seed_gives_the_same_subnets(space: SearchSpace) -> None:
    one, two = (np.random.default_rng(7) for _ in range(2))
    assert [space.sample(one) for _ in range(5)] == [space.sample(two) for _ in range(5)]


def test_dimensions_are_in_order_of_occurrence(space: SearchSpace) -> None:
    assert space.dimensions == ("width", "depth")


def test_a_subnet_is_a_value() -> None:
    one, two = Subnet({"a": 1, "b": 2}), Subnet({"b": 2, "a": 1})
    assert one == two
    assert len({one, two}) == 1
    assert one != Subnet({"a": 1, "b": 3})
    assert one != {"a": 1, "b": 2}
    assert dict(one) == {"a": 1, "b": 2}
    assert repr(one) == "Subnet({'a': 1, 'b': 2})"
    source = {"a": 1}
    subnet = Subnet(source)
    source["a"] = 2
    assert subnet["a"] == 1


def test_a_pickled_subnet_is_found_in_a_set_of_another_process() -> None:
    code = (
        "import pickle, sys; from bootstrapnas_ext.space import Subnet; "
        "print(pickle.load(sys.stdin.buffer) in {Subnet({'a': 1})})"
    )
    for seed in ("1", "2"):  # strings have another hash in each
        pickled = pickle.dumps(Subnet({"a": 1}))
        run = subprocess.run(
            [sys.executable, "-c", code], input=pickled, capture_output=True, env={"PYTHONHASHSEED": seed}, check=True
        )
        assert run.stdout.strip() == b"True"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width:a": None}, "no value for the choice 'width:a'; give one of \\[16, 8, 4\\]"),
        ({"width:a": 5}, "Choice 'width:a' must be one of \\[16, 8, 4\\], but got 5"),
        ({"width:a": "16"}, "must be one of \\[16, 8, 4\\], but got '16'"),
        ({"widht:c": 16}, "the choice 'widht:c', which this super-network does not have; did you mean 'width:c'\\?"),
    ],
)
def test_what_is_not_in_the_space_is_refused(space: SearchSpace, change: dict[str, Any], message: str) -> None:
    wanted = {name: value for name, value in {**space.maximum, **change}.items() if value is not None}
    for refuse in (space.validate, space.encode):
        with pytest.raises(SubnetError, match=message):
            refuse(wanted)


def test_validated_values_are_the_spaces_own_integers(space: SearchSpace) -> None:
    valid = space.validate({"width:c": 16.0, "depth:b": True, "width:a": 8})  # type: ignore[dict-item]
    assert list(valid.items()) == [("width:a", 8), ("depth:b", 1), ("width:c", 16)]
    assert {type(value) for value in valid.values()} == {int}


@pytest.mark.parametrize("values", [(), (1, 2), (2, 2), (4, 2, 3)])
def test_values_of_a_choice_descend(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`values` must be strictly descending and not empty, but choice 'a' got"):
        Choice("a", values, "width")


def test_choices_have_different_names() -> None:
    choice = Choice("a", (1, 0), "depth")
    with pytest.raises(ValueError, match="Choice names must be unique, but 'a' occur more than once"):
        SearchSpace((choice, Choice("b", (1,), "depth"), choice))
