"""Layers with a weight, and norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op, Ref
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Layer, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, tensor


@AXIS_RULES.register("conv1d", "conv2d", "conv3d")
def _convolution(p: Propagation, op: Op) -> Sequence[Layout]:
    """Weight ``(out, in / groups, *kernel)``. A grouped convolution keeps or drops whole groups of channels."""
    weight = tensor(op, 1, "weight")
    channels, out = _channels(p, op, weight), p.layout(weight)[0]
    groups = op.argument(6, "groups", 1)
    if groups == 1:
        p.equate(op, channels, p.layout(weight)[1])
    else:
        _keep_groups(p, op, groups, channels, out)
        p.solver.freeze(p.layout(weight)[1], f"{op.name} keeps the channels inside its groups")
    return _convolved(p, op, weight, 0, out, op.argument(5, "dilation", 1))


@AXIS_RULES.register("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(p: Propagation, op: Op) -> Sequence[Layout]:
    """Weight ``(in, out / groups, *kernel)``; inside a group the outputs stay."""
    weight = tensor(op, 1, "weight")
    channels, dilation = _channels(p, op, weight), op.argument(7, "dilation", 1)
    p.equate(op, channels, p.layout(weight)[0])
    groups = op.argument(6, "groups", 1)
    if groups == 1:
        return _convolved(p, op, weight, 1, p.layout(weight)[1], dilation)
    out = p.solver.fresh(p.shape(weight)[1] * groups)
    _keep_groups(p, op, groups, channels, out)
    p.solver.freeze(p.layout(weight)[1], f"{op.name} keeps the channels inside its groups")
    return _convolved(p, op, weight, None, out, dilation)


def _channels(p: Propagation, op: Op, weight: Ref) -> Axis:
    layout = p.layout(data(op))
    if len(layout) != len(p.shape(weight)):
        msg = f"{op.name} has no batch dimension"
        raise NoRuleError(msg)
    return layout[1]


def _keep_groups(p: Propagation, op: Op, groups: int, channels: Axis, out: Axis) -> None:
    group = p.solver.fresh(groups)
    for axis in (channels, out):
        p.equate(op, axis, p.solver.repeat(group, p.solver.length(axis) // groups))
    p.follow(op, 6, "groups", group)


def _convolved(p: Propagation, op: Op, weight: Ref, dim: int | None, out: Axis, dilation: Any) -> Sequence[Layout]:
    bias = op.argument(2, "bias")
    if isinstance(bias, Ref):
        p.equate(op, p.layout(bias)[0], out)
    for kernel in p.layout(weight)[2:]:
        p.solver.freeze(kernel, "kernel position")
    for position in p.layout(data(op))[2:]:
        p.solver.freeze(position, f"{op.name} mixes positions")
    if dim is not None:
        p.layers.append(Layer(op, weight.value, dim, out, dilation))
    return [(p.layout(data(op))[0], out, *p.static_layout(p.output_shape(op)[2:]))]


@AXIS_RULES.register("linear")
def _linear(p: Propagation, op: Op) -> Sequence[Layout]:
    """Weight ``(out, in)`` or ``(in,)``, applied to the last dimension."""
    layout, weight, bias = p.layout(data(op)), tensor(op, 1, "weight"), op.argument(2, "bias")
    *out, incoming = p.layout(weight)
    p.equate(op, layout[-1], incoming)
    if isinstance(bias, Ref) and p.layout(bias):
        p.equate(op, p.layout(bias)[0], out[0])
    if out:
        p.layers.append(Layer(op, weight.value, 0, out[0]))
    return [(*layout[:-1], *out)]


@AXIS_RULES.register("weight_norm")
def _weight_norm(p: Propagation, op: Op) -> Sequence[Layout]:
    """
    A weight as its direction and its norms, one norm for each channel of one dimension or one for all.

    Salimans and Kingma, "Weight Normalization", 2016, https://arxiv.org/abs/1602.07868.
    """
    direction, norms = op.tensors
    for axis, norm, size in zip(p.layout(direction), p.layout(norms), p.shape(norms), strict=False):
        if size > 1:
            p.equate(op, axis, norm)
    return [p.layout(direction)]


@AXIS_RULES.register("embedding")
def _embedding(p: Propagation, op: Op) -> Sequence[Layout]:
    """Rows ``(in, out)`` of a table are picked by index."""
    index, table = tensor(op, 0, "input"), tensor(op, 1, "weight")
    p.solver.freeze(p.layout(table)[0], f"{op.name} picks any row")
    p.layers.append(Layer(op, table.value, 1, p.layout(table)[1]))
    return [(*p.layout(index), p.layout(table)[1])]


@AXIS_RULES.register("batch_norm", "instance_norm", "prelu")
def _per_channel(p: Propagation, op: Op) -> Sequence[Layout]:
    """Every further tensor has one item for each channel, which is dimension 1."""
    first, *others = op.tensors
    for index in others:
        if p.shape(index) != (1,):
            p.equate(op, p.layout(first)[1], p.layout(index)[0])
    if op.kind == "instance_norm":
        p.describe(op, "num_features", p.layout(first)[1])
    return [p.layout(first)]


@AXIS_RULES.register("layer_norm", "rms_norm")
def _layer_norm(p: Propagation, op: Op) -> Sequence[Layout]:
    """Every further tensor has the shape of the last dimensions, ``normalized_shape``."""
    first, *others = op.tensors
    layout, sizes = p.layout(first), op.argument(1, "normalized_shape")
    for index in others:
        for one, two in zip(layout[-len(sizes) :], p.layout(index), strict=True):
            p.equate(op, one, two)
    for index, axis in enumerate(layout[-len(sizes) :]):
        p.follow(op, 1, "normalized_shape", axis, (index,))
    return [layout]


@AXIS_RULES.register("group_norm")
def _group_norm(p: Propagation, op: Op) -> Sequence[Layout]:
    """Keeps or drops whole groups of channels."""
    first, *others = op.tensors
    channels, count = p.layout(first)[1], op.argument(1, "num_groups")
    if count > 1:
        group = p.solver.fresh(count)
        p.equate(op, channels, p.solver.repeat(group, p.shape(first)[1] // count))
        p.follow(op, 1, "num_groups", group)
    for index in others:
        p.equate(op, channels, p.layout(index)[0])
    return [p.layout(first)]
