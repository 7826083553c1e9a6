"""Axis rules: for each kind of operation, how the axes of its outputs follow from those of its inputs.

A rule serves every function of that name, whether a module or the model's own code calls it. Names are those of the
functions without underscores at their ends, so ``add_`` and ``__add__`` are ``add``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op, Ref
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Layer, NoRuleError, Propagation

_UNARY = """
    relu relu6 leaky_relu elu celu selu gelu silu mish sigmoid logsigmoid hardsigmoid hardswish hardtanh
    hardshrink softplus softshrink softsign tanh tanhshrink threshold rrelu erf exp log log1p sqrt rsqrt square
    abs neg sign round floor ceil reciprocal sin cos log_softmax softmax dropout dropout1d dropout2d
    dropout3d alpha_dropout feature_dropout feature_alpha_dropout contiguous clone detach to float half double
    bfloat16 type_as identity requires_grad cpu cuda data normalize
""".split()  # noqa: SIM905 - a list of strings is hard to read
_ELEMENTWISE = """
    add iadd radd sub isub rsub mul imul rmul multiply div idiv rdiv truediv itruediv rtruediv true_divide
    subtract pow ipow rpow maximum minimum clamp clip where lerp addcmul addcdiv masked_fill eq ne lt le gt ge
""".split()  # noqa: SIM905
_POOLING = [
    f"{name}{rank}d"
    for rank in (1, 2, 3)
    for name in ("max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool")
] + ["interpolate", "upsample"]


def _tensor(op: Op, position: int, name: str) -> Ref:
    argument = op.argument(position, name)
    if not isinstance(argument, Ref):
        msg = f"{op.name} does not take a tensor as its {name!r}"
        raise NoRuleError(msg)
    return argument


def _dims(dims: Any, rank: int) -> list[int]:
    """Returns dimension numbers as a list from 0; ``None`` means all."""
    if dims is None:
        return list(range(rank))
    numbers = dims if isinstance(dims, (list, tuple)) else [dims]
    return [number % rank for number in numbers]


def _spread(op: Op, position: int) -> list[Any]:
    """Returns integers that may be passed one by one or as one tuple from that position on."""
    rest = op.args[position:]
    if len(rest) == 1 and isinstance(rest[0], (list, tuple)):
        return list(rest[0])
    return list(rest)


@AXIS_RULES.register(*_UNARY)
def _same(p: Propagation, op: Op) -> Sequence[Layout]:
    """The output has the layout of the first input."""
    return [p.layout(op.tensors[0])]


@AXIS_RULES.register(*_ELEMENTWISE)
def _broadcast(p: Propagation, op: Op) -> Sequence[Layout]:
    """Inputs are aligned at their last dimension; dimensions of size 1 stretch."""
    shape = p.output_shape(op)
    layout: list[Axis] = []
    for dim, size in zip(range(-len(shape), 0), shape, strict=True):
        axes = [p.layout(index)[dim] for index in op.tensors if len(p.shape(index)) >= -dim]
        stretched = [axis for axis in axes if p.solver.length(axis) == size]
        for axis in stretched[1:]:
            if size > 1:
                p.equate(op, stretched[0], axis)
        layout.append(stretched[0])
    return [tuple(layout)]


@AXIS_RULES.register("conv1d", "conv2d", "conv3d")
def _convolution(p: Propagation, op: Op) -> Sequence[Layout]:
    """Weight ``(out, in / groups, *kernel)``. A grouped convolution keeps or drops whole groups of channels."""
    data, weight, bias = _tensor(op, 0, "input"), _tensor(op, 1, "weight"), op.argument(2, "bias")
    groups = op.argument(6, "groups", 1)
    if len(p.shape(data)) != len(p.shape(weight)):
        msg = f"{op.name} has no batch dimension"
        raise NoRuleError(msg)
    channels, out = p.layout(data)[1], p.layout(weight)[0]
    if groups == 1:
        p.equate(op, channels, p.layout(weight)[1])
    else:
        group = p.solver.fresh(groups)
        p.equate(op, channels, p.solver.repeat(group, p.shape(data)[1] // groups))
        p.equate(op, out, p.solver.repeat(group, p.shape(weight)[0] // groups))
        p.solver.freeze(p.layout(weight)[1], f"{op.name} keeps the channels inside its groups")
        p.follow(op, 6, "groups", group)
    if isinstance(bias, Ref):
        p.equate(op, p.layout(bias)[0], out)
    for kernel in p.layout(weight)[2:]:
        p.solver.freeze(kernel, "kernel position")
    p.layers.append(Layer(op, weight.value, 0, out))
    return [(p.layout(data)[0], out, *p.static_layout(p.output_shape(op)[2:]))]


@AXIS_RULES.register("linear")
def _linear(p: Propagation, op: Op) -> Sequence[Layout]:
    """Weight ``(out, in)``, applied to the last dimension."""
    data, weight, bias = _tensor(op, 0, "input"), _tensor(op, 1, "weight"), op.argument(2, "bias")
    out, incoming = p.layout(weight)
    p.equate(op, p.layout(data)[-1], incoming)
    if isinstance(bias, Ref):
        p.equate(op, p.layout(bias)[0], out)
    p.layers.append(Layer(op, weight.value, 0, out))
    return [(*p.layout(data)[:-1], out)]


@AXIS_RULES.register("batch_norm", "prelu")
def _per_channel(p: Propagation, op: Op) -> Sequence[Layout]:
    """Every further tensor has one item for each channel, which is dimension 1."""
    data, *others = op.tensors
    for index in others:
        if p.shape(index) != (1,):
            p.equate(op, p.layout(data)[1], p.layout(index)[0])
    return [p.layout(data)]


@AXIS_RULES.register("layer_norm", "rms_norm")
def _layer_norm(p: Propagation, op: Op) -> Sequence[Layout]:
    """Every further tensor has the shape of the last dimensions, ``normalized_shape``."""
    data, *others = op.tensors
    layout, sizes = p.layout(data), op.argument(1, "normalized_shape")
    for index in others:
        for one, two in zip(layout[-len(sizes) :], p.layout(index), strict=True):
            p.equate(op, one, two)
    for index, axis in enumerate(layout[-len(sizes) :]):
        p.follow(op, 1, "normalized_shape", axis, index)
    return [layout]


@AXIS_RULES.register("group_norm")
def _group_norm(p: Propagation, op: Op) -> Sequence[Layout]:
    """Keeps or drops whole groups of channels."""
    data, *others = op.tensors
    channels, count = p.layout(data)[1], op.argument(1, "num_groups")
    group = p.solver.fresh(count)
    p.equate(op, channels, p.solver.repeat(group, p.shape(data)[1] // count))
    p.follow(op, 1, "num_groups", group)
    for index in others:
        p.equate(op, channels, p.layout(index)[0])
    return [p.layout(data)]


@AXIS_RULES.register(*_POOLING)
def _pooling(p: Propagation, op: Op) -> Sequence[Layout]:
    """Batch and channels stay; positions are not channels. With indices, both outputs have that layout."""
    data = _tensor(op, 0, "input")
    if f"{len(p.shape(data)) - 2}d" not in op.kind and op.kind not in ("interpolate", "upsample"):
        msg = f"{op.name} has no batch dimension"
        raise NoRuleError(msg)
    return [(*p.layout(data)[:2], *p.static_layout(p.shape(index)[2:])) for index in op.outputs]


@AXIS_RULES.register("cat", "concat", "concatenate")
def _concat(p: Propagation, op: Op) -> Sequence[Layout]:
    """Axes of the joined dimension in a row; the others are the same."""
    layouts = [p.layout(index) for index in op.tensors if p.shape(index) != (0,)]
    (dim,) = _dims(op.argument(1, "dim", op.kwargs.get("axis", 0)), len(layouts[0]))
    for layout in layouts[1:]:
        for number, (one, two) in enumerate(zip(layouts[0], layout, strict=True)):
            if number != dim:
                p.equate(op, one, two)
    joined = tuple(segment for layout in layouts for segment in layout[dim])
    return [(*layouts[0][:dim], joined, *layouts[0][dim + 1 :])]


@AXIS_RULES.register("chunk")
def _chunk(p: Propagation, op: Op) -> Sequence[Layout]:
    """Equal parts stay equal, so that the same call cuts between them."""
    data, dim = _tensor(op, 0, "input"), op.argument(2, "dim", 0)
    return _equal_parts(p, op, data, dim)


@AXIS_RULES.register("split")
def _split(p: Propagation, op: Op) -> Sequence[Layout]:
    """Parts of one size stay equal, and the size follows; of a list of sizes, each follows its part."""
    data, sizes, dim = _tensor(op, 0, "input"), op.argument(1, "split_size"), op.argument(2, "dim", 0)
    if isinstance(sizes, int):
        layouts = _equal_parts(p, op, data, dim)
        p.follow(op, 1, "split_size", layouts[0][_dims(dim, len(layouts[0]))[0]])
        return layouts
    (dim,) = _dims(dim, len(p.shape(data)))
    layout = p.layout(data)
    parts = p.solver.split(layout[dim], sizes, f"{op.name} cuts inside a channel")
    for index, part in enumerate(parts):
        p.follow(op, 1, "split_size", part, index)
    return [(*layout[:dim], part, *layout[dim + 1 :]) for part in parts]


def _equal_parts(p: Propagation, op: Op, data: Ref, dim: int) -> list[Layout]:
    (dim,) = _dims(dim, len(p.shape(data)))
    sizes = [p.shape(index)[dim] for index in op.outputs]
    if len(set(sizes)) > 1:
        msg = f"{op.name} cuts into parts of different sizes"
        raise NoRuleError(msg)
    layout = p.layout(data)
    parts = p.solver.split(layout[dim], sizes, f"{op.name} cuts inside a channel")
    for part in parts[1:]:
        p.equate(op, parts[0], part)
    return [(*layout[:dim], part, *layout[dim + 1 :]) for part in parts]


@AXIS_RULES.register("flatten", "reshape", "view", "unsqueeze", "squeeze")
def _reshape(p: Propagation, op: Op) -> Sequence[Layout]:
    """Dimensions are matched in runs of equal product; see :func:`_regroup`."""
    data = _tensor(op, 0, "input")
    shape = p.output_shape(op)
    if 0 in shape:
        msg = f"{op.name} has an empty tensor"
        raise NoRuleError(msg)
    layout = _match_runs(p, op, p.layout(data), shape)
    if op.kind in ("reshape", "view"):
        name = "size" if "size" in op.kwargs else "shape"
        sizes = _spread(op, 1) or list(op.kwargs.get(name, ()))
        spread = len(op.args) > 2 or (len(op.args) == 2 and isinstance(op.args[1], int))
        for number, (size, axis) in enumerate(zip(sizes, layout, strict=True)):
            if size == -1:
                continue
            if spread:
                p.follow(op, 1 + number, name, axis)
            else:
                p.follow(op, 1, name, axis, number)
    return [layout]


def _match_runs(p: Propagation, op: Op, layout: Layout, shape: Sequence[int]) -> Layout:
    """Pairs runs of input dimensions with runs of output dimensions of the same product."""
    sizes = [p.solver.length(axis) for axis in layout]
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
    """Flattens the axes into one, and cuts that into dimensions of which the outermost may shrink."""
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
    outer = p.solver.fresh(sizes[0])
    p.equate(op, flat, p.solver.repeat(outer, math.prod(sizes[1:])))
    return [outer, *p.static_layout(sizes[1:], f"{op.name} cuts channels into whole parts of {math.prod(sizes[1:])}")]


@AXIS_RULES.register("permute", "transpose", "swapaxes", "t", "T", "mT")
def _permute(p: Propagation, op: Op) -> Sequence[Layout]:
    """Dimensions change places."""
    layout = p.layout(_tensor(op, 0, "input"))
    order = list(range(len(layout)))
    if op.kind == "permute":
        order = _dims(_spread(op, 1) or op.kwargs.get("dims"), len(layout))
    elif op.kind == "mT":
        order[-2:] = order[:-3:-1]
    elif op.kind == "T":
        order.reverse()
    elif len(layout) > 1:
        names = ("axis0", "axis1") if "axis0" in op.kwargs else ("dim0", "dim1")
        one, two = _dims([op.argument(1, names[0], 0), op.argument(2, names[1], 1)], len(layout))
        order[one], order[two] = order[two], order[one]
    return [tuple(layout[number] for number in order)]


@AXIS_RULES.register("mean", "sum", "amax", "amin", "logsumexp", "var", "std")
def _reduce(p: Propagation, op: Op) -> Sequence[Layout]:
    """Reduced dimensions go, or stay as 1."""
    layout = p.layout(_tensor(op, 0, "input"))
    reduced = _dims(op.argument(1, "dim", op.kwargs.get("axis")), len(layout))
    keep = len(p.output_shape(op)) == len(layout)
    kept = [
        p.static_layout([1])[0] if number in reduced else axis
        for number, axis in enumerate(layout)
        if keep or number not in reduced
    ]
    return [tuple(kept)]


@AXIS_RULES.register("pad")
def _pad(p: Propagation, op: Op) -> Sequence[Layout]:
    """Channels added as zeros form groups of their own; the amounts of padding follow them."""
    data, amounts = _tensor(op, 0, "input"), list(op.argument(1, "pad"))
    constant = op.argument(2, "mode", "constant") == "constant"
    layout = list(p.layout(data))
    shape = p.output_shape(op)
    for number in range(len(amounts) // 2):
        dim = len(layout) - 1 - number
        before, after = amounts[2 * number : 2 * number + 2]
        if before == after == 0:
            continue
        if p.solver.is_static(layout[dim]):
            layout[dim] = p.solver.static(shape[dim], p.solver.reason(layout[dim]) or "")
            continue
        if not constant or before < 0 or after < 0:
            msg = f"{op.name} pads channels other than with a constant"
            raise NoRuleError(msg)
        head = p.solver.fresh(before) if before else ()
        tail = p.solver.fresh(after) if after else ()
        layout[dim] = head + layout[dim] + tail
        p.follow(op, 1, "pad", head, 2 * number)
        p.follow(op, 1, "pad", tail, 2 * number + 1)
    return [tuple(layout)]


@AXIS_RULES.register("getitem")
def _index(p: Propagation, op: Op) -> Sequence[Layout]:
    """Slices of dimensions that are not channels, whole dimensions, single indices, and new dimensions."""
    data = _tensor(op, 0, "input")
    items = op.args[1] if isinstance(op.args[1], tuple) else (op.args[1],)
    layout, shape = p.layout(data), p.output_shape(op)
    if any(not (item is None or item is Ellipsis or isinstance(item, (int, slice))) for item in items):
        msg = f"{op.name} picks items by a tensor or list"
        raise NoRuleError(msg)
    taken = sum(item is not None and item is not Ellipsis for item in items)
    if Ellipsis not in items:
        items = (*items, Ellipsis)
    at = items.index(Ellipsis)
    items = (*items[:at], *[slice(None)] * (len(layout) - taken), *items[at + 1 :])
    result: list[Axis] = []
    dim = 0
    for item in items:
        if item is None:
            result += p.static_layout([1])
            continue
        if isinstance(item, slice):
            size = shape[len(result)]
            whole = size == p.solver.length(layout[dim]) and item.step in (None, 1)
            if not whole:
                p.solver.freeze(layout[dim], f"{op.name} takes a part of the channels")
            result.append(layout[dim] if whole else p.solver.static(size, p.solver.reason(layout[dim]) or ""))
        else:
            p.solver.freeze(layout[dim], f"{op.name} takes one of the channels")
        dim += 1
    return [tuple(result)]
