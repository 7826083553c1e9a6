"""Operations that only arrange dimensions anew."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op
from bootstrapnas_ext.graph.propagate import AXIS_RULES, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, dim, spread, tensor


@AXIS_RULES.register("flatten", "squeeze", "unsqueeze", "ravel", "atleast_2d", "atleast_3d")
def _rearrange(p: Propagation, op: Op) -> Sequence[Layout]:
    """The sizes follow from the input."""
    if op.kind == "squeeze" and op.argument(1, "dim", op.kwargs.get("axis")) is None:
        p.freeze(data(op), f"{op.name} would leave a dimension out if a single channel were left")
    return [_match_runs(p, op, p.layout(data(op)), p.output_shape(op))]


@AXIS_RULES.register("reshape", "view", "unsafe_view")
def _reshape(p: Propagation, op: Op) -> Sequence[Layout]:
    """The sizes are arguments, one by one or as a tuple."""
    layout = _match_runs(p, op, p.layout(data(op)), p.output_shape(op))
    name = "size" if "size" in op.kwargs else "shape"
    sizes = spread(op, 1) or list(op.kwargs.get(name, ()))
    if all(isinstance(size, int) for size in sizes):  # and not a type, which `view` takes too
        follow_sizes(p, op, 1, name, sizes, layout)
    return [layout]


@AXIS_RULES.register("view_as", "reshape_as")
def _reshape_as(p: Propagation, op: Op) -> Sequence[Layout]:
    """The sizes are those of another tensor."""
    layout = _match_runs(p, op, p.layout(data(op)), p.output_shape(op))
    for one, two in zip(layout, p.layout(tensor(op, 1, "other")), strict=True):
        p.equate(op, one, two)
    return [layout]


@AXIS_RULES.register("unflatten")
def _unflatten(p: Propagation, op: Op) -> Sequence[Layout]:
    """One dimension becomes several."""
    layout = p.layout(data(op))
    at, sizes = dim(op, 1, len(layout)), op.argument(2, "sizes")
    end = at + len(sizes)
    parts = _match_runs(p, op, layout[at : at + 1], p.output_shape(op)[at:end])
    result = (*layout[:at], *parts, *layout[at + 1 :])
    follow_sizes(p, op, 2, "sizes", sizes, parts, first=at)
    return [result]


@AXIS_RULES.register("expand", "broadcast_to")
def _expand(p: Propagation, op: Op) -> Sequence[Layout]:
    """Dimensions of size 1 stretch, and new ones come in front; those that stay may be given as -1."""
    sizes = spread(op, 1) or list(op.kwargs.get("size", ()))
    layout = _stretched(p, op, p.layout(data(op)), p.output_shape(op))
    follow_sizes(p, op, 1, "size", sizes, layout)
    return [layout]


@AXIS_RULES.register("expand_as")
def _expand_as(p: Propagation, op: Op) -> Sequence[Layout]:
    """The sizes are those of another tensor."""
    other = p.layout(tensor(op, 1, "other"))
    own = p.layout(data(op))
    own = (*((),) * (len(other) - len(own)), *own)
    for one, two in zip(own, other, strict=True):
        if one and p.solver.length(one) > 1:
            p.equate(op, one, two)
    return [other]


def _stretched(p: Propagation, op: Op, layout: Layout, shape: Sequence[int]) -> Layout:
    new = len(shape) - len(layout)
    made = _made(p, op)
    own = (
        axis if p.solver.length(axis) == size else made[new + number]
        for number, (axis, size) in enumerate(zip(layout, shape[new:], strict=True))
    )
    return (*made[:new], *own)


def _made(p: Propagation, op: Op) -> Layout:
    """Returns axes that may follow whatever the result is combined with, as the operation's arguments do."""
    varying = p.graph.values[op.outputs[0]].varying
    return tuple(
        p.static_layout([size])[0] if size == 1 or number in varying else p.solver.fresh(size)
        for number, size in enumerate(p.output_shape(op))
    )


@AXIS_RULES.register("new_zeros", "new_ones", "new_empty", "new_full")
def _new(p: Propagation, op: Op) -> Sequence[Layout]:
    """A tensor of given sizes; of the first argument only the type matters."""
    return [_created(p, op, 1)]


@AXIS_RULES.register("zeros", "ones", "empty", "full")
def _create(p: Propagation, op: Op) -> Sequence[Layout]:
    """A tensor of given sizes."""
    return [_created(p, op, 0)]


def _created(p: Propagation, op: Op, position: int) -> Layout:
    first = op.argument(position, "size")
    sizes = [*first] if isinstance(first, (list, tuple)) else list(op.args[position:])
    if "full" in op.kind and not isinstance(first, (list, tuple)):
        msg = f"{op.name} does not take its sizes as a tuple"
        raise NoRuleError(msg)
    layout = _made(p, op)
    follow_sizes(p, op, position, "size", sizes, layout)
    return layout


@AXIS_RULES.register("repeat", "tile")
def _repeat(p: Propagation, op: Op) -> Sequence[Layout]:
    """The whole dimension again and again."""
    times = spread(op, 1) or list(op.kwargs.get("repeats", op.kwargs.get("dims", ())))
    layout = p.layout(data(op))
    times = [1] * (len(layout) - len(times)) + times
    layout = (*p.static_layout([1] * (len(times) - len(layout))), *layout)
    return [
        tuple(
            p.static_layout([p.solver.length(axis) * count])[0] if p.solver.is_static(axis) else axis * count
            for axis, count in zip(layout, times, strict=True)
        )
    ]


@AXIS_RULES.register("repeat_interleave")
def _repeat_interleave(p: Propagation, op: Op) -> Sequence[Layout]:
    """Each index again and again in a row."""
    times, layout = op.argument(1, "repeats"), p.layout(data(op))
    if not isinstance(times, int):
        msg = f"{op.name} repeats each index a number of times of its own"
        raise NoRuleError(msg)
    at = dim(op, 2, len(layout))
    return [(*layout[:at], p.solver.repeat(layout[at], times), *layout[at + 1 :])]


def follow_sizes(
    p: Propagation, op: Op, position: int, name: str, sizes: Sequence[int], layout: Layout, first: int = 0
) -> None:
    """
    Lets sizes among the arguments follow the axes of the result.

    :param p: Layouts so far.
    :param op: The operation.
    :param position: Position of the sizes in the function's signature.
    :param name: Their name there.
    :param sizes: The sizes; -1 follows by itself.
    :param layout: Their axes.
    :param first: Dimension of the result that the first size is about.
    """
    varying = p.graph.values[op.outputs[0]].varying
    one_by_one = position < len(op.args) and isinstance(op.args[position], int)
    for number, (size, axis) in enumerate(zip(sizes, layout, strict=True)):
        if size == -1 or (first + number in varying and p.solver.is_static(axis)):
            continue
        at, path = (position + number, ()) if one_by_one else (position, (number,))
        p.follow(op, at, name, axis, path, varying=first + number in varying)


def _match_runs(p: Propagation, op: Op, layout: Layout, shape: Sequence[int]) -> Layout:
    """Pairs runs of input dimensions with runs of output dimensions of the same product."""
    sizes = [p.solver.length(axis) for axis in layout]
    if 0 in sizes or math.prod(sizes) != math.prod(shape):
        msg = f"{op.name} has an empty tensor, or another number of items than its input"
        raise NoRuleError(msg)
    result: list[Axis] = []
    read = 0
    while len(result) < len(shape):
        if shape[len(result)] == 1:
            result += p.static_layout([1])
            continue
        while sizes[read] == 1:
            read += 1
        stop, end = read + 1, len(result) + 1
        while math.prod(sizes[read:stop]) != math.prod(shape[len(result) : end]):
            if math.prod(sizes[read:stop]) < math.prod(shape[len(result) : end]):
                stop += 1
            else:
                end += 1
        result += _regroup(p, op, layout[read:stop], shape[len(result) : end])
        read = stop
    return tuple(result)


def _regroup(p: Propagation, op: Op, axes: Sequence[Axis], sizes: Sequence[int]) -> list[Axis]:
    """Flattens the axes into one, and cuts that into dimensions of which one may shrink."""
    flat = axes[-1]
    for axis in reversed(axes[:-1]):
        flat_length, length = p.solver.length(flat), p.solver.length(axis)
        if length == 1:
            continue
        if p.solver.is_static(axis) and not p.solver.is_static(flat):
            flat = flat * length
        else:
            p.solver.freeze(flat, f"{op.name} mixes two dimensions of channels")
            flat = p.solver.repeat(axis, flat_length)
    if len(sizes) == 1:
        return [flat]
    if p.solver.is_static(flat):
        return list(p.static_layout(sizes, p.solver.reason(flat) or ""))
    chosen, axis = p.cut(sizes, [number for number, size in enumerate(sizes) if size > 1])
    inner = p.solver.repeat(axis, math.prod(sizes[chosen + 1 :]))
    p.equate(op, flat, inner * math.prod(sizes[:chosen]))
    reason = f"{op.name} cuts channels into whole parts of {math.prod(sizes[chosen + 1 :])}"
    return [
        *p.static_layout(sizes[:chosen], reason),
        axis,
        *p.static_layout(sizes[chosen + 1 :], reason),
    ]
