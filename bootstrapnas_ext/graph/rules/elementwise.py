"""Operations on each item, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op
from bootstrapnas_ext.graph.propagate import AXIS_RULES, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, dim

_UNARY = """
    relu relu6 leaky_relu elu celu selu gelu silu mish sigmoid logsigmoid log_sigmoid hardsigmoid hardswish hardtanh
    hardshrink softplus softshrink softsign softmin tanh tanhshrink threshold rrelu erf erfc exp exp2 expm1 log log1p
    log2 log10 sqrt rsqrt square abs absolute neg negative positive sign round floor ceil trunc frac reciprocal sin cos
    tan asin acos atan sinh cosh asinh acosh atanh logit log_softmax softmax dropout dropout1d dropout2d dropout3d
    alpha_dropout feature_dropout feature_alpha_dropout contiguous clone detach float half double bfloat16 long int
    bool byte type identity requires_grad cpu cuda data normalize zero fill nan_to_num isnan isinf isfinite logical_not
    bitwise_not invert zeros_like ones_like full_like empty_like rand_like randn_like bernoulli
    real imag conj conj_physical resolve_conj angle sgn
""".split()  # noqa: SIM905 - a list of strings is hard to read
_CASTS = ("to", "type_as")
_ELEMENTWISE = """
    add iadd radd sub isub rsub mul imul rmul multiply div idiv rdiv truediv itruediv rtruediv true_divide divide
    floor_divide floordiv rfloordiv remainder mod rmod fmod subtract pow ipow rpow maximum minimum fmax fmin clamp
    clamp_min clamp_max clip where lerp addcmul addcdiv masked_fill eq ne lt le gt ge logical_and logical_or logical_xor
    bitwise_and bitwise_or bitwise_xor and iand rand or ior ror xor ixor rxor atan2 hypot heaviside copysign copy
    less less_equal greater greater_equal not_equal polar complex symmetric_quantize asymmetric_quantize
""".split()  # noqa: SIM905


@AXIS_RULES.register(*_UNARY)
def _same(p: Propagation, op: Op) -> Sequence[Layout]:
    """The output has the layout of the only input."""
    if len(op.tensors) > 1 and any(p.shape(index) != () for index in op.tensors[1:]):
        msg = f"{op.name} takes more than one tensor"
        raise NoRuleError(msg)
    return [p.layout(op.tensors[0])]


@AXIS_RULES.register(*_CASTS)
def _cast(p: Propagation, op: Op) -> Sequence[Layout]:
    """Of another tensor, only the type and the device matter."""
    return [p.layout(data(op))]


@AXIS_RULES.register(*_ELEMENTWISE)
def broadcast(p: Propagation, op: Op) -> Sequence[Layout]:
    """
    Inputs are aligned at their last dimension; dimensions of size 1 stretch.

    :param p: Layouts so far.
    :param op: The operation.
    """
    return [aligned(p, op, [p.layout(index) for index in op.tensors], p.output_shape(op))]


def aligned(p: Propagation, op: Op, layouts: Sequence[Layout], shape: Sequence[int]) -> Layout:
    """
    Returns the layout that several layouts make by broadcasting.

    :param p: Layouts so far.
    :param op: The operation that broadcasts.
    :param layouts: Of the inputs.
    :param shape: Of the result.
    """
    result: list[Axis] = []
    for number, size in zip(range(-len(shape), 0), shape, strict=True):
        axes = [layout[number] for layout in layouts if len(layout) >= -number]
        stretched = [axis for axis in axes if p.solver.length(axis) == size]
        for axis in stretched[1:]:
            if size > 1:
                p.equate(op, stretched[0], axis)
        result.append(stretched[0])
    return tuple(result)


@AXIS_RULES.register("glu")
def _gated(p: Propagation, op: Op) -> Sequence[Layout]:
    """One half gates the other, so both keep the same channels."""
    layout = p.layout(data(op))
    at = dim(op, 1, len(layout), -1)
    half = p.solver.length(layout[at]) // 2
    one, two = p.solver.split(layout[at], [half, half], f"{op.name} cuts inside a channel")
    p.equate(op, one, two)
    return [(*layout[:at], one, *layout[at + 1 :])]
