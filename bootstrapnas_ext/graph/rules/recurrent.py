"""Recurrent layers and their cells."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrapnas_ext.graph.axes import Axis, Layout
from bootstrapnas_ext.graph.ir import Op, Ref
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Layer, NoRuleError, Propagation

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@AXIS_RULES.register(*(f"{kind}_cell" for kind in _GATES))
def _cell(p: Propagation, op: Op) -> Sequence[Layout]:
    """One step: input ``(..., in)``, state ``(..., hidden)``, weights ``(gates * hidden, ...)``; all gates alike."""
    data, state, *weights = op.args
    states = [state] if isinstance(state, Ref) else state
    hidden = p.solver.fresh(p.shape(weights[1])[1])
    for index in states:
        p.equate(op, p.layout(index)[-1], hidden)
    _step(p, op, weights, p.layout(data)[-1], hidden)
    p.describe(op, "hidden_size", hidden)
    p.describe(op, "input_size", p.layout(data)[-1])
    return [(*p.layout(data)[:-1], hidden) for _ in op.outputs]


def _step(p: Propagation, op: Op, weights: Sequence[Ref | None], incoming: Axis, hidden: Axis) -> None:
    gates = hidden * _GATES[op.kind.removesuffix("_cell")]
    for weight, columns in zip(weights, (incoming, hidden, None, None), strict=False):
        if weight is None:
            continue
        p.equate(op, p.layout(weight)[0], gates)
        if columns is not None:
            p.equate(op, p.layout(weight)[1], columns)
            p.layers.append(Layer(op, weight.value, 0, gates))


@AXIS_RULES.register(*_GATES)
def _recurrent(p: Propagation, op: Op) -> Sequence[Layout]:
    """All steps of all layers, which have states of one width; two directions are joined."""
    data, states, weights, has_bias, count, *_, both, _batch_first = op.args
    if not isinstance(weights, (list, tuple)):
        msg = f"{op.name} takes packed sequences"
        raise NoRuleError(msg)
    directions, each = 1 + both, 4 if has_bias else 2
    if len(weights) != count * directions * each:
        msg = f"{op.name} projects its state"
        raise NoRuleError(msg)
    hidden = p.solver.fresh(p.shape(weights[1])[1])
    incoming = p.layout(data)[-1]
    p.describe(op, "input_size", incoming)
    p.describe(op, "hidden_size", hidden)
    for start in range(0, len(weights), each * directions):
        for first in range(start, start + each * directions, each):
            _step(p, op, weights[first : first + each], incoming, hidden)
        incoming = hidden * directions
    for index in [states] if isinstance(states, Ref) else states:
        p.equate(op, p.layout(index)[-1], hidden)
    for axis in p.layout(data)[:-1]:
        p.solver.freeze(axis, f"{op.name} takes it for steps or for the batch")
    outputs = [p.static_layout(p.output_shape(op, number)[:-1]) for number in range(len(op.outputs))]
    return [(*outputs[0], incoming), *((*state, hidden) for state in outputs[1:])]
