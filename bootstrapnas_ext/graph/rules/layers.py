"""Layers with a weight, and norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op, Ref
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Layer, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, data_and_others, tensor


@AXIS_RULES.register("conv1d", "conv2d", "conv3d")
def _convolution(p: Propagation, op: Op) -> Sequence[Layout]:
    """Weight ``(out, in / groups, *kernel)``. A grouped convolution keeps or drops whole groups of channels."""
    weight = tensor(op, 1, "weight")
    channels, out = _channels(p, op, weight), p.layout(weight)[0]
    groups = op.argument(6, "groups", 1)
    if groups == 1:
        p.equate(op, channels, p.layout(weight)[1])
    elif 0 in p.graph.values[weight.value].varying:
        _same_in_groups(p, op, groups, channels, weight)
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


def _same_in_groups(p: Propagation, op: Op, groups: int, channels: Axis, weight: Ref) -> None:
    """
    Lets channels shrink inside the groups, alike in each.

    With a weight of its own for each input of a batch, the groups are the batch, as in Karras et al., "Analyzing and
    Improving the Image Quality of StyleGAN", 2020, https://arxiv.org/abs/1912.04958.
    """
    out, incoming, *_ = p.layout(weight)
    p.equate(op, channels, incoming * groups)
    p.equate(op, out, p.solver.fresh(p.solver.length(out) // groups) * groups)


def _convolved(p: Propagation, op: Op, weight: Ref, dim: int | None, out: Axis, dilation: Any) -> Sequence[Layout]:
    bias = op.argument(2, "bias")
    if isinstance(bias, Ref):
        p.equate(op, p.layout(bias)[0], out)
    for kernel in p.layout(weight)[2:]:
        p.solver.freeze(kernel, "kernel position")
    positions = _positions(p, op, weight)
    if dim is not None:
        p.layers.append(Layer(op, weight.value, dim, out, dilation))
    return [(p.layout(data(op))[0], out, *positions)]


def _positions(p: Propagation, op: Op, weight: Ref) -> Layout:
    """Positions stay themselves where each output is made of one, and where a kernel mixes them, they are fixed."""
    before, kernel, after = p.layout(data(op))[2:], p.shape(weight)[2:], p.output_shape(op)[2:]
    stride, padding = (_per_position(op, at, name, len(kernel)) for at, name in ((3, "stride"), (4, "padding")))
    found: list[Axis] = []
    for axis, width, step, added, size in zip(before, kernel, stride, padding, after, strict=True):
        if (width, step) != (1, 1) or added not in (0, "same", "valid"):
            p.solver.freeze(axis, f"{op.name} mixes positions")
            axis = p.static_layout([size])[0]
        found.append(axis)
    return tuple(found)


def _per_position(op: Op, position: int, name: str, rank: int) -> list[Any]:
    """Returns an argument of a convolution for each dimension of positions; one for all may stand for them."""
    given = op.argument(position, name, 1 if name == "stride" else 0)
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    return values * rank if len(values) == 1 else values


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


@AXIS_RULES.register("bilinear")
def _bilinear(p: Propagation, op: Op) -> Sequence[Layout]:
    """Weight ``(out, first, second)``, applied to the last dimensions of two tensors."""
    one, two = p.layout(tensor(op, 0, "input1")), p.layout(tensor(op, 1, "input2"))
    weight, bias = tensor(op, 2, "weight"), op.argument(3, "bias")
    out, first, second = p.layout(weight)
    p.equate(op, one[-1], first)
    p.equate(op, two[-1], second)
    for axis, same in zip(one[:-1], two[:-1], strict=True):
        p.equate(op, axis, same)
    if isinstance(bias, Ref):
        p.equate(op, p.layout(bias)[0], out)
    p.layers.append(Layer(op, weight.value, 0, out))
    return [(*one[:-1], out)]


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


@AXIS_RULES.register("embedding_bag")
def _embedding_bag(p: Propagation, op: Op) -> Sequence[Layout]:
    """Rows ``(in, out)`` of a table, picked by index and summed."""
    table = tensor(op, 1, "weight")
    for index in op.tensors:
        if index != table.value:
            p.freeze(index, f"{op.name} picks rows with it")
    p.solver.freeze(p.layout(table)[0], f"{op.name} picks any row")
    p.layers.append(Layer(op, table.value, 1, p.layout(table)[1]))
    return [(*p.static_layout(p.output_shape(op)[:1]), p.layout(table)[1])]


@AXIS_RULES.register("batch_norm", "instance_norm", "prelu")
def _per_channel(p: Propagation, op: Op) -> Sequence[Layout]:
    """Every further tensor has one item for each channel, which is dimension 1."""
    first, others = data_and_others(op)
    for index in others:
        if p.shape(index) != (1,):
            p.equate(op, p.layout(first)[1], p.layout(index)[0])
    if op.kind == "instance_norm":
        p.describe(op, "num_features", p.layout(first)[1])
    return [p.layout(first)]


@AXIS_RULES.register("layer_norm", "rms_norm")
def _layer_norm(p: Propagation, op: Op) -> Sequence[Layout]:
    """Every further tensor has the shape of the last dimensions, ``normalized_shape``."""
    first, others = data_and_others(op)
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
    first, others = data_and_others(op)
    channels, count = p.layout(first)[1], op.argument(1, "num_groups")
    if count > 1:
        group = p.solver.fresh(count)
        p.equate(op, channels, p.solver.repeat(group, p.shape(first)[1] // count))
        p.follow(op, 1, "num_groups", group)
    for index in others:
        p.equate(op, channels, p.layout(index)[0])
    return [p.layout(first)]
