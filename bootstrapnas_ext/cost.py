"""Multiply-accumulate operations and parameters of any subnet, without running it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootstrapnas_ext.graph import Op
from bootstrapnas_ext.graph.rules.arguments import letters
from bootstrapnas_ext.registry import Registry

Shape = tuple[int, ...]
MacsRule = Callable[[Op, Sequence[Shape], Shape], int]
MACS_RULES: Registry[MacsRule] = Registry("rule for multiply-accumulates")
"""Kind of operation to a function of the operation, the shapes of its tensor arguments, and that of its output. Other
kinds count nothing, as in ``torch.utils.flop_counter``, whose number of operations is twice that of
multiply-accumulates."""


@dataclass(frozen=True)
class Cost:
    """
    What a subnet costs.

    :param macs: Multiply-accumulates of one forward with the example input.
    :param parameters: Items of all parameters that its operations use.
    :param weights: Those of them that are multiplied with channels: without norms and biases.
    """

    macs: int
    parameters: int
    weights: int


@MACS_RULES.register("conv1d", "conv2d", "conv3d")
def _convolution(_: Op, inputs: Sequence[Shape], output: Shape) -> int:
    """Every item of the output is a sum over one row of the weight ``(out, in / groups, *kernel)``."""
    return math.prod(output) * math.prod(inputs[1][1:])


@MACS_RULES.register("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(_: Op, inputs: Sequence[Shape], __: Shape) -> int:
    """Every item of the input meets one row of the weight ``(in, out / groups, *kernel)``."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


@MACS_RULES.register("linear")
def _linear(_: Op, inputs: Sequence[Shape], output: Shape) -> int:
    """Every item of the weight ``(out, in)`` meets every row of the output."""
    return math.prod(output[:-1]) * math.prod(inputs[1])


@MACS_RULES.register("matmul", "rmatmul", "bmm", "mm", "addmm", "baddbmm")
def _matmul(op: Op, inputs: Sequence[Shape], output: Shape) -> int:
    """Each item of the output is a sum over the last dimension of the first factor."""
    factors = inputs[-2:]  # before them may stand what is added
    first = factors[1] if op.kind == "rmatmul" else factors[0]
    return math.prod(output) * first[-1]


@MACS_RULES.register("scaled_dot_product_attention")
def _attention(_: Op, inputs: Sequence[Shape], output: Shape) -> int:
    """Each row of the output is a mix of all values, by the products of one query with all keys."""
    query, key, value = inputs[:3]
    return math.prod(output[:-1]) * key[-2] * (query[-1] + value[-1])


@MACS_RULES.register("einsum")
def _einsum(op: Op, inputs: Sequence[Shape], output: Shape) -> int:
    """Each item of the output is a sum over the letters that it does not have."""
    left, right = letters(op.args[0])
    sizes: dict[str, int] = {}
    for own, shape in zip(left, inputs, strict=True):
        before, _, after = own.partition("...")
        sizes.update(zip(before, shape, strict=False))
        sizes.update(zip(after, shape[len(shape) - len(after) :], strict=True))
    if len(inputs) < 2:
        return 0
    return math.prod(output) * math.prod(size for letter, size in sizes.items() if letter not in right)
