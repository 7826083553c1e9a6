"""Multiply-accumulate operations and parameters of any subnet, without running it."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bootstrapnas_ext.graph import ModelGraph, Op, Ref
from bootstrapnas_ext.graph.rules.arguments import data, letters, tensor
from bootstrapnas_ext.registry import Registry

Shape = tuple[int, ...]
ShapeOf = Callable[[Ref | int], Shape]
MacsRule = Callable[[Op, ShapeOf], int]
MACS_RULES: Registry[MacsRule] = Registry("rule for multiply-accumulates")
"""Kind of operation to a function of the operation and of what gives the shape of a tensor or its index. Other kinds
count nothing, as in ``torch.utils.flop_counter``, whose number of operations is twice that of
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


class _OpCost(NamedTuple):
    """
    What one operation costs.

    :param macs: Multiply-accumulates.
    :param items: Parameter to its number of items.
    :param weights: Parameters that are multiplied with channels.
    """

    macs: int
    items: dict[int, int]
    weights: tuple[int, ...]


class CostModel:
    """
    Counts what subnets cost; each operation once for all subnets in which its tensors have the same shapes.

    :param graph: The trace.
    :param shape: Returns the shape of a tensor, by its index, in a subnet; it asks every subnet for the same choices.
    """

    def __init__(self, graph: ModelGraph, shape: Callable[[int, Mapping[str, int]], Shape]) -> None:
        self._graph = graph
        self._shape = shape
        self._choices: dict[int, tuple[str, ...]] = {}
        self._known: dict[tuple[int, tuple[int, ...]], _OpCost] = {}
        self._counted = [
            index
            for index, op in enumerate(graph.ops)
            if op.kind in MACS_RULES or any(graph.values[value].source == "parameter" for value in op.tensors)
        ]

    def cost(self, subnet: Mapping[str, int], skipped: Container[int]) -> Cost:
        """
        Returns what a subnet costs.

        :param subnet: The subnet.
        :param skipped: Indices of operations that do not run.
        """
        macs = 0
        items: dict[int, int] = {}
        weights: set[int] = set()
        for index in self._counted:
            if index not in skipped:
                found = self._cost_of(index, subnet)
                macs += found.macs
                items.update(found.items)
                weights.update(found.weights)
        return Cost(macs, sum(items.values()), sum(items[value] for value in weights))

    def _cost_of(self, index: int, subnet: Mapping[str, int]) -> _OpCost:
        if index not in self._choices:
            asked = _Asked(subnet)
            self._count(index, asked)
            self._choices[index] = tuple(asked.names)
        key = index, tuple(map(subnet.__getitem__, self._choices[index]))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._count(index, subnet)
        return found

    def _count(self, index: int, subnet: Mapping[str, int]) -> _OpCost:
        op = self._graph.ops[index]

        def shape(value: Ref | int) -> Shape:
            return self._shape(value.value if isinstance(value, Ref) else value, subnet)

        shapes = {value: shape(value) for value in op.tensors if self._graph.values[value].source == "parameter"}
        items = {value: math.prod(sizes) for value, sizes in shapes.items()}
        if op.kind not in MACS_RULES:
            return _OpCost(0, items, ())
        weights = tuple(value for value, sizes in shapes.items() if len(sizes) > 1)
        return _OpCost(MACS_RULES.get(op.kind)(op, shape), items, weights)


class _Asked(Mapping[str, int]):
    """A subnet that remembers which choices it was asked for."""

    def __init__(self, subnet: Mapping[str, int]) -> None:
        self._subnet = subnet
        self.names: dict[str, None] = {}

    def __getitem__(self, name: str) -> int:
        self.names[name] = None
        return self._subnet[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._subnet)

    def __len__(self) -> int:
        return len(self._subnet)


@MACS_RULES.register("conv1d", "conv2d", "conv3d")
def _convolution(op: Op, shape: ShapeOf) -> int:
    """Every item of the output is a sum over one row of the weight ``(out, in / groups, *kernel)``."""
    return math.prod(shape(op.outputs[0])) * math.prod(shape(tensor(op, 1, "weight"))[1:])


@MACS_RULES.register("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(op: Op, shape: ShapeOf) -> int:
    """Every item of the input meets one row of the weight ``(in, out / groups, *kernel)``."""
    return math.prod(shape(data(op))) * math.prod(shape(tensor(op, 1, "weight"))[1:])


@MACS_RULES.register("linear")
def _linear(op: Op, shape: ShapeOf) -> int:
    """Every item of the weight ``(out, in)`` meets every row of the output."""
    return math.prod(shape(data(op))[:-1]) * math.prod(shape(tensor(op, 1, "weight")))


@MACS_RULES.register("matmul", "bmm", "mm", "inner")
def _product(op: Op, shape: ShapeOf) -> int:
    """Each item of the output is a sum over the last dimension of the first factor."""
    return math.prod(shape(op.outputs[0])) * shape(data(op))[-1]


@MACS_RULES.register("rmatmul")
def _reflected_product(op: Op, shape: ShapeOf) -> int:
    """As the product, with the factors in the other order."""
    return math.prod(shape(op.outputs[0])) * shape(tensor(op, 1, "other"))[-1]


@MACS_RULES.register("addmm", "baddbmm")
def _added_product(op: Op, shape: ShapeOf) -> int:
    """As the product; before the factors stands what is added to it."""
    return math.prod(shape(op.outputs[0])) * shape(tensor(op, 1, "mat1", "batch1"))[-1]


@MACS_RULES.register("tensordot")
def _tensor_product(op: Op, shape: ShapeOf) -> int:
    """Each item of both factors meets each of the other's that has the same place in what is summed over."""
    factors = math.prod(shape(tensor(op, 0, "a"))) * math.prod(shape(tensor(op, 1, "b")))
    return math.isqrt(factors * math.prod(shape(op.outputs[0])))


@MACS_RULES.register("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(op: Op, shape: ShapeOf) -> int:
    """In every step, every item of the input meets all weights, also where a kernel hides that from PyTorch's count."""
    return math.prod(shape(op.args[0])[:-1]) * _items(op, shape)


@MACS_RULES.register("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def _cell(op: Op, shape: ShapeOf) -> int:
    """Every item of the batch meets all weights."""
    return math.prod(shape(op.outputs[0])[:-1]) * _items(op, shape)


def _items(op: Op, shape: ShapeOf) -> int:
    """Number of items of all weights, which follow the input and the states."""
    start = 2 if isinstance(op.args[1], Ref) else 1 + len(op.args[1])
    return sum(math.prod(shape(value)) for value in op.tensors[start:] if len(shape(value)) == 2)


@MACS_RULES.register("scaled_dot_product_attention")
def _attention(op: Op, shape: ShapeOf) -> int:
    """Each row of the output is a mix of all values, by the products of one query with all keys."""
    query, key, value = (shape(tensor(op, number, name)) for number, name in enumerate(("query", "key", "value")))
    return math.prod(shape(op.outputs[0])[:-1]) * key[-2] * (query[-1] + value[-1])


@MACS_RULES.register("einsum")
def _einsum(op: Op, shape: ShapeOf) -> int:
    """
    Each item of the output is a sum over the letters that it does not have.

    More than two tensors are multiplied one after the other, and letters that are not needed any more are summed over.
    """
    left, right = letters(op.args[0])
    sizes: dict[str, int] = {}
    terms: list[set[str]] = []
    for own, value in zip(left, op.tensors, strict=True):
        dims = _letters_of(own, len(shape(value)))
        for letter, size in zip(dims, shape(value), strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
        terms.append(set(dims))
    needed = set(_letters_of(right, len(shape(op.outputs[0]))))
    macs, product = 0, terms[0]
    for number, term in enumerate(terms[1:], start=2):
        product = product | term
        macs += math.prod(sizes[letter] for letter in product)
        product = product & needed.union(*terms[number:])
    return macs


def _letters_of(term: str, rank: int) -> list[str]:
    """Returns a letter for each dimension; those of dots, which are counted from the last, are numbers."""
    before, dots, after = term.partition("...")
    middle = range(rank - len(before) - len(after)) if dots else ()
    return [*before, *(str(number) for number in reversed(middle)), *after]
