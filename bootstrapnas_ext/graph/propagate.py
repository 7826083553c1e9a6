"""Walks the trace and gives every tensor a layout: one axis for each of its dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bootstrapnas_ext.graph.axes import Axis, AxisSolver, Layout
from bootstrapnas_ext.graph.ir import ATTRIBUTE, ModelGraph, Op, Path, Ref
from bootstrapnas_ext.registry import Registry

NOT_CHANNELS = "not a channel dimension"


class NoRuleError(Exception):
    """Raised by a rule that cannot describe this use of its operation; the message is the reason shown to the user."""


@dataclass(frozen=True)
class PortValue:
    """
    An integer argument of an operation that must follow the subnet.

    :param op: The operation.
    :param port: NNCF's port number of the argument, or :data:`~bootstrapnas_ext.graph.ir.ATTRIBUTE`.
    :param name: The argument's name in the function's signature, or the attribute's.
    :param path: Where in the argument: positions in tuples and lists, and ``"start"``, ``"stop"`` of slices, from the
        outermost in; empty if the argument is the integer itself.
    :param axis: The integer is the number of active indices of this axis.
    :param varying: Whether the integer depends on the model's input too, such as batch size times heads; then it
        shrinks in the proportion of the axis.
    """

    op: Op
    port: int
    name: str
    path: Path
    axis: Axis
    varying: bool = False


@dataclass(frozen=True)
class Layer:
    """
    An operation that makes channels by multiplying with a weight.

    :param op: The operation.
    :param weight: Index of the weight tensor.
    :param dim: The weight's dimension of output channels.
    :param axis: The output channels.
    :param dilation: Steps between the positions of the kernel, which are the weight's dimensions after the first two;
        ``None`` if it has no kernel.
    """

    op: Op
    weight: int
    dim: int
    axis: Axis
    dilation: int | tuple[int, ...] | None = None


@dataclass(frozen=True)
class Cut:
    """
    A place where one dimension of channels is cut into several, of which one may shrink.

    Which one cannot be seen there: of ``(3, heads, channels)`` it is the heads, since the 3 are taken apart later, and
    of ``(heads, channels)`` too, but of ``(groups, channels)`` before a shuffle it is the channels.

    :param op: Index of the operation.
    :param number: Which of the operation's cuts.
    """

    op: int
    number: int


Rule = Callable[["Propagation", Op], Sequence[Layout]]
AXIS_RULES: Registry[Rule] = Registry("axis rule")
"""Kind of operation to its rule: given the propagation so far and the operation, equates axes and returns a layout for
each output. A rule raises :class:`NoRuleError` for a use that it does not cover."""


class Propagation:
    """
    Layouts of all tensors of a trace.

    What no rule covers freezes the groups that it touches, and the reason is kept.

    :param graph: The traced model.
    :param decisions: For a cut, which of its dimensions may shrink, counted among those that could; 0 if not given.
    """

    def __init__(self, graph: ModelGraph, decisions: Mapping[Cut, int] | None = None) -> None:
        self.graph = graph
        self.cuts: dict[Cut, tuple[Axis, int]] = {}
        self._decisions = decisions or {}
        self._op = -1
        self.solver = AxisSolver()
        self.port_values: list[PortValue] = []
        self.layers: list[Layer] = []
        self._layouts: dict[int, Layout] = {}
        for value in graph.values:
            if value.is_constant:
                self._layouts[value.index] = tuple(
                    self.solver.fresh(size) if size > 1 else self.solver.static(size, NOT_CHANNELS)
                    for size in value.shape
                )
            elif value.source != "op":
                reason = f"{value.source} {value.name!r}" if value.name else "a tensor that the model does not register"
                self._layouts[value.index] = self.static_layout(value.shape, reason)
        for value in graph.values:
            if value.is_constant and value.alias is not None:
                other = graph.values[value.alias]
                for one, two in ((value, other), (other, value)):
                    self.freeze(one.index, f"{one.name!r} shares its memory with {two.name!r}")
        for index, op in enumerate(graph.ops):
            self._op = index
            self._visit(op)
        for index in graph.outputs:
            self.freeze(index, "output of the model")

    def layout(self, tensor: Ref | int) -> Layout:
        """
        Returns the layout of a tensor, in terms of groups that are not bound to others.

        :param tensor: The tensor, or its index.
        """
        index = tensor.value if isinstance(tensor, Ref) else tensor
        return tuple(self.solver.resolve(axis) for axis in self._layouts[index])

    def shape(self, tensor: Ref | int) -> tuple[int, ...]:
        """
        Returns the shape of a tensor in the trace.

        :param tensor: The tensor, or its index.
        """
        return self.graph.values[tensor.value if isinstance(tensor, Ref) else tensor].shape

    def static_layout(self, shape: Sequence[int], reason: str = NOT_CHANNELS) -> Layout:
        """
        Returns a layout that can never shrink.

        :param shape: Shape of the tensor.
        :param reason: Why.
        """
        return tuple(self.solver.static(size, reason) for size in shape)

    def output_shape(self, op: Op, index: int = 0) -> tuple[int, ...]:
        """
        Returns the traced shape of one of the operation's outputs.

        :param op: The operation.
        :param index: Which output.
        """
        return self.shape(op.outputs[index])

    def equate(self, op: Op, first: Axis, second: Axis) -> None:
        """
        States that two axes are the same because of an operation.

        :param op: The operation.
        :param first: An axis.
        :param second: Another of the same length.
        """
        self.solver.equate(first, second, f"{op.name} joins channels that cannot be paired")

    def follow(self, op: Op, position: int, name: str, axis: Axis, path: Path = (), *, varying: bool = False) -> None:
        """
        States that an integer argument is the length of an axis; without effect if it was not passed.

        :param op: The operation.
        :param position: Position of the argument in the function's signature.
        :param name: Its name there.
        :param axis: The axis.
        :param path: Where in the argument, as in :class:`PortValue`.
        :param varying: Whether the integer depends on the model's input too.
        """
        port = op.port(position, name)
        if port is not None:
            self.port_values.append(PortValue(op, port, name, path, axis, varying))

    def describe(self, op: Op, attribute: str, axis: Axis) -> None:
        """
        States that an attribute, which the module's code compares to its input, is the length of an axis.

        :param op: The operation that the module's code runs; without effect if the module has no such attribute.
        :param attribute: Its name.
        :param axis: The axis.
        """
        self.port_values.append(PortValue(op, ATTRIBUTE, attribute, (), axis))

    def cut(self, sizes: Sequence[int], candidates: Sequence[int]) -> tuple[int, Axis]:
        """
        Returns which dimension of a cut may shrink, and a new axis for it.

        :param sizes: Sizes of the dimensions.
        :param candidates: Which of them could shrink, the likeliest first; at least one.
        """
        key = Cut(self._op, sum(cut.op == self._op for cut in self.cuts))
        chosen = candidates[self._decisions.get(key, 0) % len(candidates)]
        axis = self.solver.fresh(sizes[chosen])
        self.cuts[key] = (axis, len(candidates))
        return chosen, axis

    def is_useful(self, axis: Axis) -> bool:
        """
        Returns whether any part of an axis could shrink.

        :param axis: Any axis.
        """
        return any(
            self.solver.size(segment.group) > 1 and self.solver.reason((segment,)) is None
            for segment in self.solver.resolve(axis)
        )

    def _visit(self, op: Op) -> None:
        layers, values = len(self.layers), len(self.port_values)
        try:
            layouts = self._apply_rule(op)
        except NoRuleError as error:
            del self.layers[layers:], self.port_values[values:]  # what half a rule has stated
            for index in op.tensors:
                self.freeze(index, str(error))
            layouts = [self.static_layout(self.shape(index), str(error)) for index in op.outputs]
        self._layouts.update(zip(op.outputs, layouts, strict=True))

    def _apply_rule(self, op: Op) -> Sequence[Layout]:
        if op.kind not in AXIS_RULES:
            msg = f"no axis rule for the operation {op.kind!r} ({op.name})"
            raise NoRuleError(msg)
        if op.kwargs.get("out") is not None:
            msg = f"{op.name} writes into a given tensor"
            raise NoRuleError(msg)
        misfit = f"the axis rule of {op.kind!r} does not fit this use ({op.name})"
        try:
            layouts = AXIS_RULES.get(op.kind)(self, op)
        except (ValueError, TypeError, IndexError, KeyError) as error:  # other arguments than the rule expects
            raise NoRuleError(misfit) from error
        lengths = [tuple(self.solver.length(axis) for axis in layout) for layout in layouts]
        if lengths != [self.shape(index) for index in op.outputs]:
            raise NoRuleError(misfit)
        return layouts

    def freeze(self, tensor: Ref | int, reason: str) -> None:
        """
        Forbids all items of a tensor to be dropped.

        :param tensor: The tensor, or its index.
        :param reason: Why.
        """
        for axis in self.layout(tensor):
            self.solver.freeze(axis, reason)


_ROUNDS = 12


def propagate(graph: ModelGraph) -> Propagation:
    """
    Returns layouts of all tensors, with each cut decided so that as much as possible can shrink.

    Where a decision leaves nothing to shrink, the next dimension is tried. Of decisions that fail together, because
    they are about the same channels, the last one is changed first. A fixed number of rounds bounds the time by the
    number of operations.

    :param graph: The traced model.
    """
    decisions: dict[Cut, int] = {}
    settled: set[Cut] = set()
    propagation = Propagation(graph)
    for _ in range(_ROUNDS):
        seen: set[int] = set()
        changed = False
        for cut, (axis, count) in reversed(propagation.cuts.items()):
            groups = {segment.group for segment in propagation.solver.resolve(axis)}
            if cut in settled or propagation.is_useful(axis) or groups & seen:
                continue
            seen |= groups
            decisions[cut] = decisions.get(cut, 0) + 1
            if decisions[cut] >= count:
                decisions[cut] = 0
                settled.add(cut)
            changed = True
        if not changed:
            break
        propagation = Propagation(graph, decisions)
    return propagation
