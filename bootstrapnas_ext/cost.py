"""Multiply-accumulate operations and parameters of any subnet, without running it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootstrapnas_ext.registry import Registry

Shape = tuple[int, ...]
MacsRule = Callable[[Sequence[Shape], Shape], int]
MACS_RULES: Registry[MacsRule] = Registry("rule for multiply-accumulates")
"""Kind of operation to a function of the shapes of its tensor arguments and of its output. Other kinds count nothing,
as in ``torch.utils.flop_counter``, whose number of operations is twice that of multiply-accumulates."""


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
def _convolution(inputs: Sequence[Shape], output: Shape) -> int:
    """Every item of the output is a sum over one row of the weight ``(out, in / groups, *kernel)``."""
    return math.prod(output) * math.prod(inputs[1][1:])


@MACS_RULES.register("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(inputs: Sequence[Shape], _: Shape) -> int:
    """Every item of the input meets one row of the weight ``(in, out / groups, *kernel)``."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


@MACS_RULES.register("linear")
def _linear(inputs: Sequence[Shape], output: Shape) -> int:
    """Every item of the weight ``(out, in)`` meets every row of the output."""
    return math.prod(output[:-1]) * math.prod(inputs[1])


@MACS_RULES.register("matmul", "bmm", "mm")
def _matmul(inputs: Sequence[Shape], output: Shape) -> int:
    """Each item of the output is a sum over the last dimension of the first factor."""
    return math.prod(output) * inputs[0][-1]
