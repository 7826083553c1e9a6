"""Channel algebra: which channels must shrink together, and which indices of a tensor's dimension are active.

A dimension of a tensor is an *axis*: a tuple of *segments*. A segment is a run of the channels of one *group*, each
repeated some number of times in a row. Channels of one group are kept or dropped together wherever they occur.

=========================================  ====================================
a convolution's 64 output channels         ``(Segment(g),)``, g of size 64
a concat of two such                       ``(Segment(g), Segment(h))``
that flattened over 7x7 positions          ``(Segment(g, 49), Segment(h, 49))``
a split of g into halves                   g is bound to ``(Segment(a), Segment(b))``, the parts are a and b
=========================================  ====================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Segment(NamedTuple):
    """
    A run of a group's channels.

    :param group: Number of the group.
    :param repeat: How often in a row each channel occurs, at least 1.
    """

    group: int
    repeat: int = 1


Axis = tuple[Segment, ...]
Layout = tuple[Axis, ...]
"""One axis for each dimension of a tensor."""


class AxisSolver:
    """
    Finds the coarsest groups that satisfy all equations between axes, by unification.

    Groups are created unknown, and are bound to other groups, split, or frozen as equations come in. A frozen group
    keeps all its channels; the first reason is remembered.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._bindings: dict[int, Axis] = {}
        self._reasons: dict[int, str] = {}

    def fresh(self, size: int) -> Axis:
        """
        Returns an axis of a new group.

        :param size: Number of channels, at least 0.
        """
        self._sizes.append(size)
        return (Segment(len(self._sizes) - 1),)

    def static(self, size: int, reason: str) -> Axis:
        """
        Returns an axis that can never shrink.

        :param size: Its length.
        :param reason: Why.
        """
        axis = self.fresh(size)
        self._reasons[axis[0].group] = reason
        return axis

    def size(self, group: int) -> int:
        """Number of channels of a group."""
        return self._sizes[group]

    def length(self, axis: Axis) -> int:
        """Number of indices of an axis."""
        return sum(self._sizes[group] * repeat for group, repeat in axis)

    def resolve(self, axis: Axis) -> Axis:
        """
        Returns the axis in terms of groups that are not bound to others.

        :param axis: Any axis of this solver.
        """
        if not any(segment.group in self._bindings for segment in axis):
            return axis
        resolved: list[Segment] = []
        for group, repeat in axis:
            if group in self._bindings:
                self._bindings[group] = self.resolve(self._bindings[group])
                resolved += [Segment(part.group, part.repeat * repeat) for part in self._bindings[group]]
            else:
                resolved.append(Segment(group, repeat))
        return tuple(resolved)

    def reason(self, axis: Axis) -> str | None:
        """
        Returns why some part of the axis is frozen, ``None`` if no part is.

        :param axis: Any axis of this solver.
        """
        return next((self._reasons[group] for group, _ in self.resolve(axis) if group in self._reasons), None)

    def is_static(self, axis: Axis) -> bool:
        """Whether every part of the axis is frozen."""
        return all(group in self._reasons for group, _ in self.resolve(axis))

    def freeze(self, axis: Axis, reason: str) -> None:
        """
        Forbids all channels of the axis to be dropped.

        :param axis: Any axis of this solver.
        :param reason: Why; kept for groups that have no reason yet.
        """
        for group, _ in self.resolve(axis):
            self._reasons.setdefault(group, reason)

    def equate(self, first: Axis, second: Axis, reason: str) -> None:
        """
        States that index i of one axis lives and dies with index i of the other.

        :param first: An axis.
        :param second: Another of the same length.
        :param reason: Why both are frozen if no grouping of channels can satisfy the equation.
        :raises ValueError: If the lengths differ.
        """
        if self.length(first) != self.length(second):
            msg = f"Axes of lengths {self.length(first)} and {self.length(second)} cannot be equal."
            raise ValueError(msg)
        one, two = self.resolve(first), self.resolve(second)
        while one and two:
            if one[0] == two[0]:
                one, two = one[1:], two[1:]
                continue
            if self.is_static(one) or self.is_static(two):
                why = self.reason(one if self.is_static(one) else two) or reason
                self.freeze(one + two, why)
                return
            if self._bind_whole(one, two) or self._bind_whole(two, one):
                return
            if not self._equate_heads(one[0], two[0]):
                self.freeze(first + second, reason)
                return
            one, two = self.resolve(one), self.resolve(two)

    def split(self, axis: Axis, lengths: Sequence[int], reason: str) -> list[Axis]:
        """
        Cuts an axis into consecutive parts.

        :param axis: An axis.
        :param lengths: Lengths of the parts, whose sum is the axis's.
        :param reason: Why the axis is frozen if a cut falls between repetitions of one channel.
        """
        parts: list[Axis] = []
        rest = self.resolve(axis)
        for length in lengths:
            part, rest = self._take(rest, length, reason)
            parts.append(part)
        return [self.resolve(part) for part in parts]

    @staticmethod
    def repeat(axis: Axis, times: int) -> Axis:
        """
        Repeats each index of the axis in a row, as flattening a channel over its positions does.

        :param axis: An axis.
        :param times: How often, at least 1.
        """
        return tuple(Segment(group, repeat * times) for group, repeat in axis)

    def _bind(self, group: int, axis: Axis) -> None:
        """Defines a group as an axis; what one side is frozen for freezes the other."""
        if group in self._reasons:
            self.freeze(axis, self._reasons[group])
        self._bindings[group] = axis

    def _bind_whole(self, one: Axis, two: Axis) -> bool:
        """Binds a single segment to a whole axis, if the repetitions allow it."""
        if len(one) != 1 or any(part.repeat % one[0].repeat or part.group == one[0].group for part in two):
            return False
        self._bind(one[0].group, tuple(Segment(part.group, part.repeat // one[0].repeat) for part in two))
        return True

    def _equate_heads(self, one: Segment, two: Segment) -> bool:
        """Makes the first segments equal, or equally long by splitting the longer; False if impossible."""
        length_one, length_two = self._sizes[one.group] * one.repeat, self._sizes[two.group] * two.repeat
        if length_one != length_two:
            longer, length = (one, length_two) if length_one > length_two else (two, length_one)
            return self._split_group(longer, length)
        if one.group == two.group:
            return False
        common = math.lcm(one.repeat, two.repeat)
        if length_one % common:
            return False
        shared = self.fresh(length_one // common)
        self._bind(one.group, self.repeat(shared, common // one.repeat))
        self._bind(two.group, self.repeat(shared, common // two.repeat))
        return True

    def _split_group(self, segment: Segment, length: int) -> bool:
        """Splits the segment's group so that its first part is that long; False if that cuts a repetition."""
        count, remainder = divmod(length, segment.repeat)
        if remainder:
            return False
        head, tail = self.fresh(count), self.fresh(self._sizes[segment.group] - count)
        self._bind(segment.group, head + tail)
        return True

    def _take(self, axis: Axis, length: int, reason: str) -> tuple[Axis, Axis]:
        """Cuts the first ``length`` indices off a resolved axis."""
        taken: list[Segment] = []
        while length:
            head = axis[0]
            head_length = self._sizes[head.group] * head.repeat
            if head_length > length:
                if not self._split_group(head, length):
                    self.freeze(axis, reason)
                    rest = head_length - length
                    return (
                        (*taken, *self.static(length, reason)),
                        (*self.static(rest, reason), *axis[1:]),
                    )
                axis = self.resolve(axis)
                continue
            taken.append(head)
            axis = axis[1:]
            length -= head_length
        return tuple(taken), axis
