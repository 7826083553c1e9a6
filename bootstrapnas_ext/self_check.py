"""Checks that a super-network makes on itself when it is built: nothing is trusted that can be looked at."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bootstrapnas_ext.errors import ModelError, first_line
from bootstrapnas_ext.execution import Executor
from bootstrapnas_ext.graph import ModelGraph
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet

ShapeOf = Callable[[int, Subnet], tuple[int, ...]]


def check_maximum(executor: Executor, forward: Callable[..., Any], example: ExampleInput, maximum: Subnet) -> None:
    """
    Compares the maximum subnet, with all hooks at work, to the given model: every output must be exactly equal.

    :param executor: Runs the active subnet, which must be the maximum.
    :param forward: The model's own forward.
    :param example: What to call it with.
    :param maximum: The maximum subnet.
    :raises ModelError: If an output differs; the message names the first operation whose result does.
    """
    plain = executor.without_hooks()
    reference = plain.run(forward, maximum, example)
    if not equal(reference, plain.run(forward, maximum, example)):
        msg = (
            "The model gives other outputs for the same input in eval mode, so no subnet of it can be checked; "
            "remove what is random, for example dropout that ignores the mode."
        )
        raise ModelError(msg)
    if equal(reference, executor.run(forward, maximum, example)):
        return
    first = _first_difference(executor, forward, example, maximum)
    msg = (
        f"The maximum subnet must equal the given model exactly, but the results of {first} differ: a hook changes "
        "what it must leave alone. Leave its dimension out of `available_elasticity_dims`, and report the model."
    )
    raise ModelError(msg)


def check_shapes(
    executor: Executor, forward: Callable[..., Any], example: ExampleInput, subnet: Subnet, shape_of: ShapeOf
) -> None:
    """
    Runs the active subnet and compares the shape of every result to the one that the axes predict.

    :param executor: Runs the active subnet.
    :param forward: The model's own forward.
    :param example: Input of the trace.
    :param subnet: The active subnet.
    :param shape_of: Predicts the shape of a tensor of the graph.
    :raises ModelError: If a shape is another.
    :raises Exception: What the model raises if it does not run.
    """
    skipped = {index for block in executor.skipped(subnet) for index in block.ops}
    executor.run(forward, subnet, example, shape_check(executor.graph, subnet, shape_of, skipped))


def shape_check(
    graph: ModelGraph, subnet: Subnet, shape_of: ShapeOf, skipped: Container[int] = ()
) -> Callable[[str, Any], None]:
    """
    Returns a function of an operation's site and result that fails if the result has another shape than predicted.

    :param graph: The trace.
    :param subnet: The active subnet.
    :param shape_of: Predicts the shape of a tensor of the graph.
    :param skipped: Indices of operations that are left out.
    """

    def check(site: str, result: Any) -> None:
        index = graph.site_index.get(site)
        if index is None or index in skipped:
            return
        got = [tuple(leaf.shape) for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        wanted = [shape_of(output, subnet) for output in graph.ops[index].outputs]
        if got != wanted:
            msg = f"{graph.ops[index].name} returns the shapes {got}, but its axis rule predicts {wanted}"
            raise ModelError(msg)

    return check


@contextmanager
def subnet_must_run() -> Iterator[None]:
    """
    Tells what a failure in the ``with`` block, which runs a subnet, means.

    :raises ModelError: If anything fails.
    """
    try:
        yield
    except Exception as error:
        msg = (
            f"A subnet of the model does not run as predicted: {first_line(error)}. The axis rule of an operation does "
            "not fit this use; register one in `AXIS_RULES`, or leave a dimension out of `available_elasticity_dims`."
        )
        raise ModelError(msg) from error


def equal(one: Any, two: Any) -> bool:
    """
    Returns whether all tensors of two results are equal, NaN included.

    :param one: A result.
    :param two: Another of the same structure.
    """
    leaves = zip(pytree.tree_leaves(one), pytree.tree_leaves(two), strict=True)
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in leaves
        if isinstance(a, Tensor)
    )


def _first_difference(executor: Executor, forward: Callable[..., Any], example: ExampleInput, maximum: Subnet) -> str:
    """Returns the first operation whose result differs between the hooked and the plain model."""
    results: list[dict[str, Any]] = []
    for hooked in (executor, executor.without_hooks()):
        found: dict[str, Any] = {}

        def observe(site: str, result: Any, found: dict[str, Any] = found) -> None:
            found[site] = pytree.tree_map_only(Tensor, torch.clone, result)

        hooked.run(forward, maximum, example, observe)
        results.append(found)
    hooked_results, plain = results
    for site, result in plain.items():
        if site not in hooked_results or not equal(result, hooked_results[site]):
            index = executor.graph.site_index.get(site)
            return f"the operation {site if index is None else executor.graph.ops[index].name!r}"
    return "the model's outputs"
