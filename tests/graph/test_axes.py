"""The channel algebra, compared to union-find over single channels on random systems of equations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrapnas_ext.graph import Axis, AxisSolver, Segment

Channel = tuple[int, int]
"""A group that was made first, by its label, and one of its members."""
Spec = tuple[tuple[int, int], ...]
"""An axis as pairs of a label and a number of repetitions."""


class Oracle:
    """Which single channels live and die together, by union-find; the truth that the solver must find in groups."""

    def __init__(self) -> None:
        self._parent: dict[Channel, Channel] = {}

    def find(self, channel: Channel) -> Channel:
        while self._parent.get(channel, channel) != channel:
            channel = self._parent[channel]
        return channel

    def equate(self, one: Iterable[Channel], two: Iterable[Channel]) -> None:
        for a, b in zip(one, two, strict=True):
            self._parent[self.find(a)] = self.find(b)


class System:
    """A solver and the oracle that gets the same equations, between axes of groups with labels 0, 1, ..."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.solver = AxisSolver()
        self.oracle = Oracle()
        self.sizes = tuple(sizes)
        self._groups = [self.solver.fresh(size)[0].group for size in sizes]
        self._frozen: list[Channel] = []

    def axis(self, spec: Spec) -> Axis:
        return tuple(Segment(self._groups[label], repeat) for label, repeat in spec)

    def channels(self, spec: Spec) -> list[Channel]:
        """The channel of each index."""
        return [(label, member) for label, repeat in spec for member in range(self.sizes[label]) for _ in range(repeat)]

    def resolved(self, axis: Axis) -> list[Channel]:
        """The same in terms of the groups that the solver has found."""
        return [
            (group, member)
            for group, repeat in self.solver.resolve(axis)
            for member in range(self.solver.size(group))
            for _ in range(repeat)
        ]

    def equate(self, one: Spec, two: Spec) -> None:
        self.solver.equate(self.axis(one), self.axis(two), "cannot be paired")
        self.oracle.equate(self.channels(one), self.channels(two))

    def freeze(self, spec: Spec) -> None:
        self.solver.freeze(self.axis(spec), "frozen by the test")
        self._frozen += self.channels(spec)

    def places(self) -> dict[Channel, tuple[Channel, bool]]:
        """Where the solver puts each channel, and whether that is frozen."""
        found: dict[Channel, tuple[Channel, bool]] = {}
        for label in range(len(self.sizes)):
            spec = ((label, 1),)
            for channel, place in zip(self.channels(spec), self.resolved(self.axis(spec)), strict=True):
                found[channel] = (place, self.solver.is_static((Segment(place[0]),)))
        return found

    def partition(self) -> list[set[Channel]]:
        """Sets of channels that the solver puts in one place."""
        together: dict[tuple[Channel, bool], set[Channel]] = {}
        for channel, place in self.places().items():
            together.setdefault(place, set()).add(channel)
        return sorted(together.values(), key=min)

    def check(self) -> None:
        """Compares the solver's answer to the oracle's."""
        places = self.places()
        classes: dict[Channel, list[tuple[Channel, bool]]] = {}
        for channel, place in places.items():
            classes.setdefault(self.oracle.find(channel), []).append(place)
        for found in classes.values():  # what lives and dies together is in one place, unless all of it is kept
            assert len(set(found)) == 1 or all(frozen for _, frozen in found)
        elastic: dict[Channel, Channel] = {}
        for channel, (place, frozen) in places.items():  # nothing is coupled without need
            if not frozen:
                assert elastic.setdefault(place, self.oracle.find(channel)) == self.oracle.find(channel)
        for channel in self._frozen:
            assert all(frozen for _, frozen in classes[self.oracle.find(channel)])


ONCE = st.just(1)
SEVERAL = st.sampled_from([1, 1, 2, 3, 4])
FROZEN = "frozen"
Step = tuple[Spec, Spec | str]


@st.composite
def systems(draw: st.DrawFn, repeats: st.SearchStrategy[int], *, freezes: bool = False) -> tuple[list[int], list[Step]]:
    """Sizes of groups, and steps: two axes to equate, or one to freeze."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))

    def axis() -> Spec:
        segments = st.tuples(st.integers(0, len(sizes) - 1), repeats)
        return tuple(draw(st.lists(segments, min_size=1, max_size=3)))

    def length(spec: Spec) -> int:
        return sum(sizes[label] * repeat for label, repeat in spec)

    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 5))):
        one = axis()
        if freezes and draw(st.integers(0, 3)) == 0:
            steps.append((one, FROZEN))
            continue
        two = axis()
        missing = length(one) - length(two)
        if missing:  # the shorter one gets the rest as channels of its own
            sizes.append(abs(missing))
            rest = ((len(sizes) - 1, 1),)
            one, two = (one, two + rest) if missing > 0 else (one + rest, two)
        steps.append((one, two))
    return sizes, steps


def run(sizes: Sequence[int], steps: Iterable[Step]) -> System:
    system = System(sizes)
    for one, two in steps:
        if isinstance(two, str):
            system.freeze(one)
        else:
            system.equate(one, two)
    return system


@given(systems(ONCE))
def test_equations_without_repetition_are_solved_exactly(system: tuple[list[int], list[Step]]) -> None:
    solved = run(*system)
    solved.check()
    assert not any(frozen for _, frozen in solved.places().values())


@given(systems(SEVERAL, freezes=True))
def test_equations_are_never_violated(system: tuple[list[int], list[Step]]) -> None:
    run(*system).check()


@given(systems(SEVERAL))
def test_equations_are_symmetric(system: tuple[list[int], list[Step]]) -> None:
    sizes, steps = system
    assert run(sizes, steps).partition() == run(sizes, [(two, one) for one, two in steps]).partition()


@given(systems(SEVERAL, freezes=True))
def test_equations_are_idempotent(system: tuple[list[int], list[Step]]) -> None:
    sizes, steps = system
    once, twice = run(sizes, steps), run(sizes, [step for step in steps for _ in range(2)])
    assert once.partition() == twice.partition()
    for one, two in steps:
        if not isinstance(two, str):
            twice.equate(one, two)
    assert once.partition() == twice.partition()


@given(systems(SEVERAL, freezes=True), st.data())
def test_splits_preserve_lengths_and_join_up(system: tuple[list[int], list[Step]], data: st.DataObject) -> None:
    sizes, steps = system
    solved = run(sizes, steps)
    axis = solved.axis(steps[0][0])
    length = solved.solver.length(axis)
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=4)))
    lengths = [end - start for start, end in zip([0, *cuts], [*cuts, length], strict=True)]
    parts = solved.solver.split(axis, lengths, "cut")
    assert [solved.solver.length(part) for part in parts] == lengths
    assert [solved.solver.length(solved.axis(((label, 1),))) for label in range(len(sizes))] == sizes
    if not solved.solver.reason(axis):
        assert [channel for part in parts for channel in solved.resolved(part)] == solved.resolved(axis)
    solved.check()


@given(systems(SEVERAL), st.integers(1, 5))
def test_repeating_repeats_every_index_in_a_row(system: tuple[list[int], list[Step]], times: int) -> None:
    solved = run(*system)
    for spec, _ in system[1]:
        axis = solved.axis(spec)
        expected = [channel for channel in solved.resolved(axis) for _ in range(times)]
        assert solved.resolved(solved.solver.repeat(axis, times)) == expected


@given(systems(SEVERAL))
def test_what_is_frozen_stays_frozen_with_its_first_reason(system: tuple[list[int], list[Step]]) -> None:
    sizes, steps = system
    solved = System(sizes)
    axis = solved.axis(((0, 1),))
    solved.solver.freeze(axis, "first")
    for one, two in steps:
        assert not isinstance(two, str)
        solved.equate(one, two)
    solved.solver.freeze(axis, "second")
    assert solved.solver.is_static(axis)
    assert solved.solver.reason(axis) == "first"


def test_a_concat_equal_to_one_group_splits_it() -> None:
    solver = AxisSolver()
    a, b, whole = solver.fresh(16), solver.fresh(24), solver.fresh(40)
    solver.equate(whole, a + b, "")
    assert solver.resolve(whole) == a + b


def test_flattened_positions_are_repetitions() -> None:
    solver = AxisSolver()
    channels, features = solver.fresh(8), solver.fresh(8 * 49)
    solver.equate(features, solver.repeat(channels, 49), "")
    assert solver.resolve(features) == (Segment(channels[0].group, 49),)


@pytest.mark.parametrize(("one", "two", "common"), [(2, 3, 6), (4, 6, 12), (1, 5, 5)])
def test_different_repetitions_share_every_common_multiple(one: int, two: int, common: int) -> None:
    solver = AxisSolver()
    a, b = solver.fresh(2 * common // one), solver.fresh(2 * common // two)
    solver.equate(solver.repeat(a, one), solver.repeat(b, two), "")
    (first,), (second,) = solver.resolve(a), solver.resolve(b)
    assert first.group == second.group
    assert (first.repeat, second.repeat, solver.size(first.group)) == (common // one, common // two, 2)


def test_a_cut_inside_a_repetition_freezes_with_the_reason() -> None:
    solver = AxisSolver()
    channels = solver.fresh(4)
    first, second = solver.split(solver.repeat(channels, 3), [5, 7], "cut inside a channel")
    assert solver.reason(channels) == solver.reason(first) == solver.reason(second) == "cut inside a channel"
    assert (solver.length(first), solver.length(second)) == (5, 7)


def test_axes_of_different_lengths_cannot_be_equal() -> None:
    solver = AxisSolver()
    with pytest.raises(ValueError, match="Axes of lengths 3 and 4 cannot be equal"):
        solver.equate(solver.fresh(3), solver.fresh(4), "")
