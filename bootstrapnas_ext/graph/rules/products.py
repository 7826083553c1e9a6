"""Products of tensors, and attention."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op, Ref
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Layer, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import letters, tensor
from bootstrapnas_ext.graph.rules.elementwise import aligned


@AXIS_RULES.register("matmul", "rmatmul", "imatmul", "bmm", "mm")
def _matmul(p: Propagation, op: Op) -> Sequence[Layout]:
    """``(..., n, m) @ (..., m, k)``; a vector counts as a matrix with one row or column, which goes again."""
    first, second = op.tensors
    if op.kind == "rmatmul":
        first, second = second, first
    return [_product(p, op, first, second)]


@AXIS_RULES.register("addmm", "baddbmm")
def _added_product(p: Propagation, op: Op) -> Sequence[Layout]:
    """The first tensor is added to the product of the others."""
    added, first, second = op.tensors
    product = _product(p, op, first, second)
    return [aligned(p, op, [product, p.layout(added)], p.output_shape(op))]


def _product(p: Propagation, op: Op, first: int, second: int) -> Layout:
    one, two = p.layout(first), p.layout(second)
    contracted = two[-2] if len(two) > 1 else two[-1]
    p.equate(op, one[-1], contracted)
    rows, columns = one[-2:-1], (two[-1:] if len(two) > 1 else ())
    if columns and p.graph.values[second].is_constant:
        p.layers.append(Layer(op, second, len(two) - 1, columns[0]))
    rank = len(p.output_shape(op)) - len(rows) - len(columns)
    batch = aligned(p, op, [one[:-2], two[:-2]], p.output_shape(op)[:rank])
    return (*batch, *rows, *columns)


@AXIS_RULES.register("einsum")
def _einsum(p: Propagation, op: Op) -> Sequence[Layout]:
    """Dimensions of one letter are the same."""
    equation = op.args[0]
    if not isinstance(equation, str):
        msg = f"{op.name} has no equation of letters"
        raise NoRuleError(msg)
    left, right = letters(equation)
    axes: dict[str, Axis] = {}
    spread: list[Layout] = []
    for own, index in zip(left, op.tensors, strict=True):
        layout = p.layout(index)
        before, dots, after = own.partition("...")
        end = len(layout) - len(after)
        if dots:
            spread.append(layout[len(before) : end])
        for letter, axis in (*zip(before, layout, strict=False), *zip(after, layout[end:], strict=True)):
            known = axes.setdefault(letter, axis)
            if p.solver.length(known) == 1:
                axes[letter] = axis
            elif p.solver.length(axis) > 1:
                p.equate(op, known, axis)
    before, dots, after = right.partition("...")
    shape = p.output_shape(op)
    middle = aligned(p, op, spread, shape[len(before) : len(shape) - len(after)]) if dots else ()
    return [(*(axes[letter] for letter in before), *middle, *(axes[letter] for letter in after))]


@AXIS_RULES.register("scaled_dot_product_attention")
def _attention(p: Propagation, op: Op) -> Sequence[Layout]:
    """Query ``(..., L, E)``, key ``(..., S, E)``, value ``(..., S, F)``; the mask broadcasts to ``(..., L, S)``."""
    query, key, value = (p.layout(tensor(op, number, name)) for number, name in enumerate(("query", "key", "value")))
    mask = op.argument(3, "attn_mask")
    p.equate(op, query[-1], key[-1])
    p.equate(op, key[-2], value[-2])
    shape = p.output_shape(op)
    if op.argument(7, "enable_gqa", False) and p.solver.length(query[-3]) != p.solver.length(key[-3]):
        p.equate(op, key[-3], value[-3])
        times = p.solver.length(query[-3]) // p.solver.length(key[-3])
        p.equate(op, query[-3], p.solver.repeat(key[-3], times))
        batch = (*aligned(p, op, [query[:-3], key[:-3], value[:-3]], shape[:-3]), query[-3])
    else:
        batch = aligned(p, op, [query[:-2], key[:-2], value[:-2]], shape[:-2])
    if isinstance(mask, Ref):
        scores = (*batch, query[-2], key[-2])
        aligned(p, op, [scores, p.layout(mask)], tuple(map(p.solver.length, scores)))
    return [(*batch, query[-2], value[-1])]
