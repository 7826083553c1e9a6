"""Joining tensors and taking parts of them."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op
from bootstrapnas_ext.graph.propagate import AXIS_RULES, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, data_and_others, dim


@AXIS_RULES.register("cat", "concat", "concatenate", "hstack", "vstack")
def _concat(p: Propagation, op: Op) -> Sequence[Layout]:
    """Axes of the joined dimension in a row; the others are the same."""
    layouts = [p.layout(index) for index in op.tensors if p.shape(index) != (0,)]
    if op.kind in ("hstack", "vstack"):
        at = 1 if op.kind == "hstack" and len(layouts[0]) > 1 else 0
    else:
        at = dim(op, 1, len(layouts[0]), 0)
    _same_but(p, op, layouts, at)
    joined = tuple(segment for layout in layouts for segment in layout[at])
    return [(*layouts[0][:at], joined, *layouts[0][at + 1 :])]


@AXIS_RULES.register("stack")
def _stack(p: Propagation, op: Op) -> Sequence[Layout]:
    """A new dimension; the others are the same."""
    layouts = [p.layout(index) for index in op.tensors]
    at = dim(op, 1, len(layouts[0]) + 1, 0)
    _same_but(p, op, layouts, None)
    return [(*layouts[0][:at], *p.static_layout([len(layouts)]), *layouts[0][at:])]


def _same_but(p: Propagation, op: Op, layouts: Sequence[Layout], at: int | None) -> None:
    for layout in layouts[1:]:
        for number, (one, two) in enumerate(zip(layouts[0], layout, strict=True)):
            if number != at:
                p.equate(op, one, two)


@AXIS_RULES.register("chunk")
def _chunk(p: Propagation, op: Op) -> Sequence[Layout]:
    """Equal parts stay equal, so that the same call cuts between them."""
    return _equal_parts(p, op, dim(op, 2, len(p.layout(data(op))), 0))


@AXIS_RULES.register("split", "split_with_sizes", "tensor_split")
def _split(p: Propagation, op: Op) -> Sequence[Layout]:
    """Parts of one size stay equal, and the size follows; of a list of sizes, each follows its part."""
    name = "split_sizes" if op.kind == "split_with_sizes" else "split_size"
    name = "split_size_or_sections" if "split_size_or_sections" in op.kwargs else name
    layout, sizes = p.layout(data(op)), op.argument(1, name)
    at = dim(op, 2, len(layout), 0)
    if isinstance(sizes, int):
        parts = _equal_parts(p, op, at)
        if op.kind != "tensor_split":  # there the number is how many parts
            p.follow(op, 1, name, parts[0][at])
        return parts
    if op.kind == "tensor_split":
        msg = f"{op.name} cuts at indices"
        raise NoRuleError(msg)
    axes = p.solver.split(layout[at], sizes, f"{op.name} cuts inside a channel")
    for index, axis in enumerate(axes):
        p.follow(op, 1, name, axis, (index,))
    return [(*layout[:at], axis, *layout[at + 1 :]) for axis in axes]


def _equal_parts(p: Propagation, op: Op, at: int) -> list[Layout]:
    sizes = [p.shape(index)[at] for index in op.outputs]
    if len(set(sizes)) > 1:
        msg = f"{op.name} cuts into parts of different sizes"
        raise NoRuleError(msg)
    layout = p.layout(data(op))
    parts = p.solver.split(layout[at], sizes, f"{op.name} cuts inside a channel")
    for part in parts[1:]:
        p.equate(op, parts[0], part)
    return [(*layout[:at], part, *layout[at + 1 :]) for part in parts]


@AXIS_RULES.register("unbind", "iter", "select")
def _unbind(p: Propagation, op: Op) -> Sequence[Layout]:
    """A dimension is taken apart, or one index of it taken."""
    layout = p.layout(data(op))
    at = dim(op, 1, len(layout), 0)
    p.solver.freeze(layout[at], f"{op.name} takes single channels")
    return [(*layout[:at], *layout[at + 1 :]) for _ in op.outputs]


@AXIS_RULES.register("narrow")
def _narrow(p: Propagation, op: Op) -> Sequence[Layout]:
    """Some indices in a row; where they begin and how many they are follows."""
    layout = p.layout(data(op))
    at = dim(op, 1, len(layout))
    start, length = op.argument(2, "start") % p.solver.length(layout[at]), op.argument(3, "length")
    before, part = span(p, op, layout[at], start, start + length)
    p.follow(op, 2, "start", before)
    p.follow(op, 3, "length", part)
    return [(*layout[:at], part, *layout[at + 1 :])]


def span(p: Propagation, op: Op, axis: Axis, start: int, stop: int) -> tuple[Axis, Axis]:
    """
    Returns the axis before some indices in a row, and that of the indices.

    :param p: Layouts so far.
    :param op: The operation that takes them.
    :param axis: What they are taken from.
    :param start: The first index.
    :param stop: The index after the last.
    """
    size = p.solver.length(axis)
    before, part, _ = p.solver.split(axis, [start, stop - start, size - stop], f"{op.name} cuts inside a channel")
    return before, part


@AXIS_RULES.register("index_select", "gather", "take_along_dim", "topk", "scatter", "index_add")
def _pick(p: Propagation, op: Op) -> Sequence[Layout]:
    """Items along one dimension are picked, so this one cannot be channels; nor others, where each has its own pick."""
    layout = p.layout(data(op))
    first = op.argument(2, "dim", -1) if op.kind in ("topk", "take_along_dim") else op.argument(1, "dim")
    if not isinstance(first, int):
        msg = f"{op.name} is not about one dimension"
        raise NoRuleError(msg)
    at = first % len(layout)
    free = op.kind in ("index_select", "topk")
    for index in data_and_others(op)[1]:
        p.freeze(index, f"{op.name} picks items")
    for number, axis in enumerate(layout):
        if number == at or not free:
            p.solver.freeze(axis, f"{op.name} picks items")
    return [
        tuple(
            p.static_layout([size], f"{op.name} picks items")[0] if number == at or not free else axis
            for number, (axis, size) in enumerate(zip(layout, p.shape(output), strict=True))
        )
        for output in op.outputs
    ]


@AXIS_RULES.register("pad", "constant_pad_nd")
def _pad(p: Propagation, op: Op) -> Sequence[Layout]:
    """Channels added as zeros form groups of their own; the amounts of padding follow them."""
    amounts = list(op.argument(1, "pad"))
    constant = op.argument(2, "mode", "constant") == "constant" or op.kind != "pad"
    layout = list(p.layout(data(op)))
    shape = p.output_shape(op)
    for number in range(len(amounts) // 2):
        at = len(layout) - 1 - number
        before, after = amounts[2 * number : 2 * number + 2]
        if before == after == 0:
            continue
        if p.solver.is_static(layout[at]):
            layout[at] = p.solver.static(shape[at], p.solver.reason(layout[at]) or "")
            continue
        if not constant or before < 0 or after < 0:
            msg = f"{op.name} pads channels other than with a constant"
            raise NoRuleError(msg)
        head = p.solver.fresh(before) if before else ()
        tail = p.solver.fresh(after) if after else ()
        layout[at] = head + layout[at] + tail
        p.follow(op, 1, "pad", head, (2 * number,))
        p.follow(op, 1, "pad", tail, (2 * number + 1,))
    return [tuple(layout)]
