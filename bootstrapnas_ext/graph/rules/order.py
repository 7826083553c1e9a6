"""Dimensions that change places, and items that move inside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bootstrapnas_ext.graph.axes import Layout
from bootstrapnas_ext.graph.ir import Op
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, dim, dims, spread


@AXIS_RULES.register("permute")
def _permute(p: Propagation, op: Op) -> Sequence[Layout]:
    """Dimensions in a given order."""
    layout = p.layout(data(op))
    order = dims(spread(op, 1) or op.kwargs.get("dims"), len(layout))
    return [tuple(layout[number] for number in order)]


@AXIS_RULES.register("movedim", "moveaxis")
def _move(p: Propagation, op: Op) -> Sequence[Layout]:
    """Some dimensions get new places; the others fill up what is left, in their order."""
    layout = p.layout(data(op))
    source, target = (dims(op.argument(*at), len(layout)) for at in ((1, "source"), (2, "destination")))
    order = [number for number in range(len(layout)) if number not in source]
    for to, number in sorted(zip(target, source, strict=True)):
        order.insert(to, number)
    return [tuple(layout[number] for number in order)]


@AXIS_RULES.register("transpose", "swapaxes", "swapdims")
def _transpose(p: Propagation, op: Op) -> Sequence[Layout]:
    """Two dimensions change places."""
    first, second = ("axis0", "axis1") if "axis0" in op.kwargs else ("dim0", "dim1")
    return [_swapped(p.layout(data(op)), op.argument(1, first), op.argument(2, second))]


@AXIS_RULES.register("mT", "mH", "adjoint")
def _transpose_last(p: Propagation, op: Op) -> Sequence[Layout]:
    """The last two dimensions change places."""
    return [_swapped(p.layout(data(op)), -2, -1)]


@AXIS_RULES.register("T", "H", "t")
def _reverse(p: Propagation, op: Op) -> Sequence[Layout]:
    """All dimensions in reverse; a vector stays as it is."""
    return [p.layout(data(op))[::-1]]


def _swapped(layout: Layout, one: int, two: int) -> Layout:
    axes = list(layout)
    axes[one], axes[two] = axes[two], axes[one]
    return tuple(axes)


@AXIS_RULES.register("roll")
def _roll(p: Propagation, op: Op) -> Sequence[Layout]:
    """Items move around along some dimensions, or all."""
    return _among(p, op, op.argument(2, "dims") or None)


@AXIS_RULES.register("flip")
def _flip(p: Propagation, op: Op) -> Sequence[Layout]:
    """Items of some dimensions in reverse."""
    return _among(p, op, spread(op, 1) or op.kwargs.get("dims"))


@AXIS_RULES.register("tril", "triu")
def _triangle(p: Propagation, op: Op) -> Sequence[Layout]:
    """Of each matrix, what lies on one side of its diagonal stays."""
    return _among(p, op, (-2, -1))


@AXIS_RULES.register("sort", "cumsum", "cumprod", "cummax", "cummin")
def _in_order(p: Propagation, op: Op) -> Sequence[Layout]:
    """Items depend on those before them."""
    return _among(p, op, dim(op, 1, len(p.layout(data(op))), -1))


def _among(p: Propagation, op: Op, given: Any) -> Sequence[Layout]:
    """Freezes the dimensions inside which items move, so that these cannot be channels; ``None`` for all."""
    layout = p.layout(data(op))
    for number in dims(given, len(layout)):
        p.solver.freeze(layout[number], f"{op.name} moves items along it, or depends on their order")
    return [layout for _ in op.outputs]


_FOURIER = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


@AXIS_RULES.register(*(f"fft_{name}" for name in _FOURIER))
def _fourier(p: Propagation, op: Op) -> Sequence[Layout]:
    """Every item of the result is a sum along one dimension, of which the length may change."""
    return [_transformed(p, op, op.argument(2, "dim", -1))]


@AXIS_RULES.register(*(f"fft_{name}2" for name in _FOURIER))
def _fourier_of_planes(p: Propagation, op: Op) -> Sequence[Layout]:
    """The same along two dimensions."""
    return [_transformed(p, op, op.argument(2, "dim", (-2, -1)))]


def _transformed(p: Propagation, op: Op, given: Any) -> Layout:
    layout, reason = list(p.layout(data(op))), f"{op.name} mixes all items along it"
    for number in dims(given, len(layout)):
        p.solver.freeze(layout[number], reason)
        layout[number] = p.solver.static(p.output_shape(op)[number], reason)
    return tuple(layout)


@AXIS_RULES.register("view_as_complex")
def _complex(p: Propagation, op: Op) -> Sequence[Layout]:
    """The last dimension, of real and imaginary part, goes."""
    *rest, parts = p.layout(data(op))
    p.solver.freeze(parts, f"{op.name} takes it for real and imaginary parts")
    return [tuple(rest)]


@AXIS_RULES.register("view_as_real")
def _parts_of_complex(p: Propagation, op: Op) -> Sequence[Layout]:
    """A last dimension, of real and imaginary part, comes."""
    return [(*p.layout(data(op)), *p.static_layout([2]))]
