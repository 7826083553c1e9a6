"""Indexing with brackets, and assigning to what it picks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op, Path, Ref
from bootstrapnas_ext.graph.propagate import AXIS_RULES, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import data
from bootstrapnas_ext.graph.rules.elementwise import aligned
from bootstrapnas_ext.graph.rules.parts import span


@AXIS_RULES.register("getitem")
def _index(p: Propagation, op: Op) -> Sequence[Layout]:
    """Slices, single indices, new dimensions, and picks by tensors or lists."""
    result, picks = _walk(p, op)
    for index in op.tensors[1:]:
        p.freeze(index, f"{op.name} picks items with it")
    if not picks:
        return [tuple(result)]
    shape = p.output_shape(op)
    # All tensors and lists together pick dimensions at the place of the first; in front if others stand between them.
    at = picks[0] if len(set(picks)) == 1 else 0
    picked = p.static_layout(shape[at : at + len(shape) - len(result)], f"{op.name} picks items")
    return [(*result[:at], *picked, *result[at:])]


@AXIS_RULES.register("setitem")
def _assign(p: Propagation, op: Op) -> Sequence[Layout]:
    """What is assigned broadcasts to what the index picks."""
    part, picks = _walk(p, op)
    value = op.args[2]
    if isinstance(value, Ref):
        if picks:
            msg = f"{op.name} assigns channels to picked items"
            raise NoRuleError(msg)
        aligned(p, op, [tuple(part), p.layout(value)], [p.solver.length(axis) for axis in part])
    return []


def _walk(p: Propagation, op: Op) -> tuple[list[Axis], list[int]]:
    """Returns the axes that slices leave, and before which of them tensors or lists pick items."""
    layout, items = p.layout(data(op)), op.args[1]
    single = not isinstance(items, tuple)
    given: tuple[Any, ...] = (items,) if single else items
    paths: list[Path] = [() if single else (number,) for number in range(len(given))]
    result: list[Axis] = []
    picks: list[int] = []
    read = 0
    for item, path in zip(*_without_ellipsis(p, given, paths, len(layout)), strict=True):
        if item is None:
            result += p.static_layout([1])
        elif isinstance(item, slice):
            result.append(_sliced(p, op, layout[read], item, path))
            read += 1
        else:
            taken = _dims_taken(p, item)
            for axis in layout[read : read + taken]:
                p.solver.freeze(axis, f"{op.name} takes single channels")
            read += taken
            if not _is_number(p, item):
                picks.append(len(result))
    return result, picks


def _is_number(p: Propagation, item: Any) -> bool:
    """Whether an index leaves its dimension out; truth values, other than numbers, add one."""
    if isinstance(item, Ref):
        return p.shape(item) == () and not p.graph.values[item.value].is_mask
    return isinstance(item, int) and not isinstance(item, bool)


def _dims_taken(p: Propagation, item: Any) -> int:
    """Returns how many dimensions an index goes through: a mask has several."""
    is_mask = isinstance(item, Ref) and p.graph.values[item.value].is_mask
    return len(p.shape(item)) if is_mask else int(not isinstance(item, bool))


def _without_ellipsis(
    p: Propagation, items: Sequence[Any], paths: Sequence[Path], rank: int
) -> tuple[list[Any], list[Path]]:
    """Writes out whole dimensions that were left out."""
    taken = sum(_dims_taken(p, item) for item in items if item is not None and item is not Ellipsis)
    at = next((number for number, item in enumerate(items) if item is Ellipsis), len(items))
    whole = [slice(None)] * (rank - taken)
    return (
        [*items[:at], *whole, *items[at + 1 :]],
        [*paths[:at], *itertools.repeat((), len(whole)), *paths[at + 1 :]],
    )


def _sliced(p: Propagation, op: Op, axis: Axis, item: slice, path: Path) -> Axis:
    size = p.solver.length(axis)
    if any(bound is not None and not isinstance(bound, int) for bound in (item.start, item.stop, item.step)):
        msg = f"{op.name} is a slice with a tensor for a bound"
        raise NoRuleError(msg)
    start, stop, step = item.indices(size)
    if (start, stop, step) == (0, size, 1):
        return axis
    if p.solver.is_static(axis) or step != 1:
        p.solver.freeze(axis, f"{op.name} takes a part of the channels")
        length = len(range(start, stop, step))
        return p.static_layout([length], p.solver.reason(axis) or "")[0]
    before, part = span(p, op, axis, start, max(start, stop))
    if item.start is not None:
        p.follow(op, 1, "idx", before, (*path, "start"))
    if item.stop is not None:
        p.follow(op, 1, "idx", before + part, (*path, "stop"))
    return part
