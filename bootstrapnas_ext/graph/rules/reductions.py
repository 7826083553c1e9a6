"""Pooling and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bootstrapnas_ext.graph.axes import Layout
from bootstrapnas_ext.graph.ir import Op
from bootstrapnas_ext.graph.propagate import AXIS_RULES, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, data_and_others, dims
from bootstrapnas_ext.graph.rules.elementwise import broadcast

_RANKED = [
    f"{name}{rank}d"
    for rank in (1, 2, 3)
    for name in ("max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool", "max_unpool")
]
_RANKED += [f"{name}_with_indices" for name in _RANKED if "max_pool" in name]
_RESIZING = ["interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "grid_sample"]
_REDUCTIONS = """
    mean sum nansum nanmean prod amax amin logsumexp var std all any var_mean std_mean argmax argmin median nanmedian
    aminmax count_nonzero
""".split()  # noqa: SIM905


@AXIS_RULES.register(*_RANKED, *_RESIZING)
def _pooling(p: Propagation, op: Op) -> Sequence[Layout]:
    """Batch and channels stay; positions are not channels. With indices, both outputs have that layout."""
    layout = p.layout(data(op))
    if op.kind in _RANKED and f"{len(layout) - 2}d" not in op.kind:
        msg = f"{op.name} has no batch dimension"
        raise NoRuleError(msg)
    for axis in layout[2:]:
        p.solver.freeze(axis, f"{op.name} mixes positions")
    for index in data_and_others(op)[1]:
        p.freeze(index, f"{op.name} mixes positions")
    return [(*layout[:2], *p.static_layout(p.shape(index)[2:])) for index in op.outputs]


@AXIS_RULES.register(*_REDUCTIONS)
def _reduce(p: Propagation, op: Op) -> Sequence[Layout]:
    """Reduced dimensions go, or stay as 1."""
    given = op.argument(1, "dim", op.kwargs.get("axis"))
    return _over(p, op, None if isinstance(given, bool) else given)  # `unbiased` of `var`


@AXIS_RULES.register("norm", "linalg_norm", "linalg_vector_norm", "linalg_matrix_norm")
def _norm(p: Propagation, op: Op) -> Sequence[Layout]:
    """The same, with the order of the norm before the dimensions."""
    default = (-2, -1) if op.kind == "linalg_matrix_norm" else None
    return _over(p, op, op.argument(2, "dim", default))


def _over(p: Propagation, op: Op, given: Any) -> Sequence[Layout]:
    layout = p.layout(data(op))
    reduced = dims(given or (0 if given == 0 else None), len(layout))
    read = {*p.graph.consumers, *p.graph.outputs}
    if any(op.outputs[number] in read or len(op.outputs) == 1 for number in _indices(op)):
        for number in reduced:
            p.solver.freeze(layout[number], f"{op.name} tells where along it items are")
    return [_reduced(p, layout, reduced, p.shape(output)) for output in op.outputs]


def _indices(op: Op) -> Sequence[int]:
    """Returns which outputs are indices along the reduced dimensions."""
    if op.kind in ("argmax", "argmin"):
        return [0]
    return [1] if op.kind in ("max", "min", "median", "nanmedian") and len(op.outputs) > 1 else []


@AXIS_RULES.register("max", "min")
def _extremum(p: Propagation, op: Op) -> Sequence[Layout]:
    """Of one tensor a reduction, of two tensors one for each item."""
    return broadcast(p, op) if len(op.tensors) == 2 else _reduce(p, op)


def _reduced(p: Propagation, layout: Layout, reduced: Sequence[int], shape: Sequence[int]) -> Layout:
    keep = len(shape) == len(layout)
    return tuple(
        p.static_layout([1])[0] if number in reduced else axis
        for number, axis in enumerate(layout)
        if keep or number not in reduced
    )
