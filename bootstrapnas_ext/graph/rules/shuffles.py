"""Positions that become channels and the reverse, and channels in another order."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrapnas_ext.graph.axes import Layout
from bootstrapnas_ext.graph.ir import Op
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, dim


@AXIS_RULES.register("pixel_shuffle")
def _pixel_shuffle(p: Propagation, op: Op) -> Sequence[Layout]:
    """Channels ``(C, r, r)`` become positions: whole parts of ``r * r`` channels stay together."""
    *batch, channels, rows, columns = p.layout(data(op))
    for position in (rows, columns):
        p.solver.freeze(position, f"{op.name} mixes positions")
    *_, out, height, width = p.output_shape(op)
    kept = p.solver.fresh(out)
    p.equate(op, channels, p.solver.repeat(kept, p.solver.length(channels) // out))
    return [(*batch, kept, *p.static_layout([height, width]))]


@AXIS_RULES.register("pixel_unshuffle")
def _pixel_unshuffle(p: Propagation, op: Op) -> Sequence[Layout]:
    """Positions become channels ``(C, r, r)``."""
    *batch, channels, rows, columns = p.layout(data(op))
    for position in (rows, columns):
        p.solver.freeze(position, f"{op.name} mixes positions")
    *_, out, height, width = p.output_shape(op)
    axis = p.solver.repeat(channels, out // p.solver.length(channels))
    return [(*batch, axis, *p.static_layout([height, width]))]


@AXIS_RULES.register("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(p: Propagation, op: Op) -> Sequence[Layout]:
    """Channels ``(groups, n)`` become ``(n, groups)``; each of the n lives or dies in all groups."""
    layout, groups = p.layout(data(op)), op.argument(1, "groups")
    kept = p.solver.fresh(p.solver.length(layout[1]) // groups)
    p.equate(op, layout[1], kept * groups)
    return [(layout[0], p.solver.repeat(kept, groups), *layout[2:])]


@AXIS_RULES.register("unfold")
def _unfold(p: Propagation, op: Op) -> Sequence[Layout]:
    """
    Windows of positions.

    The function of ``torch.nn`` makes of them channels ``(C, *kernel)``, the method of tensors a last dimension.
    """
    layout = p.layout(data(op))
    if len(p.output_shape(op)) > len(layout):
        return [_windows(p, op, layout)]
    batch, channels, *positions = layout
    for position in positions:
        p.solver.freeze(position, f"{op.name} mixes positions")
    _, out, count = p.output_shape(op)
    return [(batch, p.solver.repeat(channels, out // p.solver.length(channels)), *p.static_layout([count]))]


def _windows(p: Propagation, op: Op, layout: Layout) -> Layout:
    at = dim(op, 1, len(layout))
    p.solver.freeze(layout[at], f"{op.name} mixes positions")
    shape = p.output_shape(op)
    return (*layout[:at], *p.static_layout(shape[at : at + 1]), *layout[at + 1 :], *p.static_layout(shape[-1:]))


@AXIS_RULES.register("fold")
def _fold(p: Propagation, op: Op) -> Sequence[Layout]:
    """Channels ``(C, *kernel)`` of windows become positions."""
    batch, channels, count = p.layout(data(op))
    p.solver.freeze(count, f"{op.name} mixes positions")
    _, out, *positions = p.output_shape(op)
    kept = p.solver.fresh(out)
    p.equate(op, channels, p.solver.repeat(kept, p.solver.length(channels) // out))
    return [(batch, kept, *p.static_layout(positions))]
