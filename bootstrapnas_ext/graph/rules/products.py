"""Products of tensors, and attention."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op, Ref
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Layer, NoRuleError, Propagation
from bootstrapnas_ext.graph.rules.arguments import data, dims, letters, tensor
from bootstrapnas_ext.graph.rules.elementwise import aligned


@AXIS_RULES.register("matmul", "imatmul", "bmm", "mm", "mv", "dot", "vdot")
def _matmul(p: Propagation, op: Op) -> Sequence[Layout]:
    """``(..., n, m) @ (..., m, k)``; a vector counts as a matrix with one row or column, which goes again."""
    return [_product(p, op, data(op), tensor(op, 1, "other", "mat2", "vec", "tensor"))]


@AXIS_RULES.register("rmatmul")
def _reflected_matmul(p: Propagation, op: Op) -> Sequence[Layout]:
    """The second argument is the first factor."""
    return [_product(p, op, tensor(op, 1, "other"), data(op))]


@AXIS_RULES.register("addmm", "baddbmm", "addmv")
def _added_product(p: Propagation, op: Op) -> Sequence[Layout]:
    """The first tensor is added to the product of the others."""
    product = _product(p, op, tensor(op, 1, "mat1", "batch1", "mat"), tensor(op, 2, "mat2", "batch2", "vec"))
    return [aligned(p, op, [product, p.layout(data(op))], p.output_shape(op))]


def _product(p: Propagation, op: Op, first: Ref, second: Ref) -> Layout:
    one, two = p.layout(first), p.layout(second)
    contracted = two[-2] if len(two) > 1 else two[-1]
    p.equate(op, one[-1], contracted)
    rows, columns = one[-2:-1], (two[-1:] if len(two) > 1 else ())
    if columns and p.graph.values[second.value].is_constant:
        p.layers.append(Layer(op, second.value, len(two) - 1, columns[0]))
    rank = len(p.output_shape(op)) - len(rows) - len(columns)
    batch = aligned(p, op, [one[:-2], two[:-2]], p.output_shape(op)[:rank])
    return (*batch, *rows, *columns)


@AXIS_RULES.register("inner")
def _inner(p: Propagation, op: Op) -> Sequence[Layout]:
    """``(..., m)`` and ``(---, m)`` to ``(..., ---)``."""
    one, two = p.layout(data(op)), p.layout(tensor(op, 1, "other"))
    p.equate(op, one[-1], two[-1])
    return [(*one[:-1], *two[:-1])]


@AXIS_RULES.register("outer", "ger")
def _outer(p: Propagation, op: Op) -> Sequence[Layout]:
    """Each item of one vector times each of the other."""
    return [(*p.layout(data(op)), *p.layout(tensor(op, 1, "vec2")))]


@AXIS_RULES.register("tensordot")
def _tensordot(p: Propagation, op: Op) -> Sequence[Layout]:
    """Sums over pairs of dimensions; the others of both tensors are left. A number pairs the last with the first."""
    one, two = p.layout(tensor(op, 0, "a", "self")), p.layout(tensor(op, 1, "b", "other"))
    pairs = op.argument(2, "dims", 2)
    if isinstance(pairs, int):
        pairs = (range(len(one) - pairs, len(one)), range(pairs))
    left, right = dims([*pairs[0]], len(one)), dims([*pairs[1]], len(two))
    for first, second in zip(left, right, strict=True):
        p.equate(op, one[first], two[second])
    return [
        (
            *(axis for number, axis in enumerate(one) if number not in left),
            *(axis for number, axis in enumerate(two) if number not in right),
        )
    ]


@AXIS_RULES.register("cdist")
def _distances(p: Propagation, op: Op) -> Sequence[Layout]:
    """Rows ``(..., n, m)`` and ``(..., k, m)`` to distances ``(..., n, k)``."""
    one, two = p.layout(tensor(op, 0, "x1")), p.layout(tensor(op, 1, "x2"))
    p.equate(op, one[-1], two[-1])
    return [(*aligned(p, op, [one[:-2], two[:-2]], p.output_shape(op)[:-2]), one[-2], two[-2])]


@AXIS_RULES.register("cosine_similarity")
def _similarity(p: Propagation, op: Op) -> Sequence[Layout]:
    """Both tensors broadcast, and one dimension goes."""
    return _compared(p, op, 1)


@AXIS_RULES.register("pairwise_distance", "linalg_vecdot", "vecdot")
def _compared_last(p: Propagation, op: Op) -> Sequence[Layout]:
    """The same over the last dimension, unless another is given."""
    return _compared(p, op, -1)


def _compared(p: Propagation, op: Op, default: int) -> Sequence[Layout]:
    layouts = [p.layout(tensor(op, number, f"x{number + 1}", "xy"[number])) for number in (0, 1)]
    rank = max(map(len, layouts))
    sizes = [[1] * (rank - len(layout)) + [*map(p.solver.length, layout)] for layout in layouts]
    joined = aligned(p, op, layouts, [max(pair) for pair in zip(*sizes, strict=True)])
    at = op.kwargs.get("dim", op.args[2] if op.kind == "cosine_similarity" and len(op.args) > 2 else default) % rank
    kept = p.static_layout([1]) if len(p.output_shape(op)) == rank else ()
    return [(*joined[:at], *kept, *joined[at + 1 :])]


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
