"""What two traces of one model with different inputs tell: which sizes follow the batch, and whether the path does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.graph.ir import ModelGraph, Value


def with_varying_sizes(graph: ModelGraph, other: ModelGraph) -> ModelGraph:
    """
    Returns the first trace with the dimensions marked whose size depends on the input.

    :param graph: The trace.
    :param other: A trace of the same model with another input.
    :raises ModelError: If the model runs other operations for the other input: a super-network of the one path would
        be wrong on the other.
    """
    for one, two in itertools.zip_longest(graph.ops, other.ops):
        if one is None or two is None or (one.name, one.kind) != (two.name, two.kind):
            names = " and ".join("the end" if op is None else repr(op.name) for op in (one, two))
            raise _other_path(f"the operations {names} stand at the same place of two traces")
        if len(one.outputs) != len(two.outputs):
            numbers = f"{len(one.outputs)} tensors in one trace and {len(two.outputs)} in another"
            raise _other_path(f"the operation {one.name!r} returns {numbers}")
        if one.tensors != two.tensors:
            names = " and ".join(_names(op.tensors, trace) for op, trace in ((one, graph), (two, other)))
            raise _other_path(f"the operation {one.name!r} reads {names} in two traces")
    if len(graph.values) != len(other.values):
        raise _other_path(f"it uses {len(graph.values)} tensors in one trace and {len(other.values)} in another")
    if graph.outputs != other.outputs:
        names = " and ".join(_names(trace.outputs, trace) for trace in (graph, other))
        raise _other_path(f"it returns the results of {names} in two traces")
    values = tuple(_compared(one, two) for one, two in zip(graph.values, other.values, strict=True))
    return replace(graph, values=values)


def _other_path(difference: str) -> ModelError:
    return ModelError(
        f"The model takes another path for another input (other values, or another batch size): {difference}. Make the "
        "part that does not branch a module of its own, for example the backbone, and build the super-network from it."
    )


def _names(tensors: Sequence[int], graph: ModelGraph) -> str:
    return "[" + ", ".join(repr(graph.values[index].name or "a tensor without a name") for index in tensors) + "]"


def _compared(one: Value, two: Value) -> Value:
    pairs = itertools.zip_longest(one.shape, two.shape)
    return replace(one, varying=tuple(dim for dim, (a, b) in enumerate(pairs) if a != b and dim < len(one.shape)))
