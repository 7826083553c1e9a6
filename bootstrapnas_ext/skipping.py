"""How blocks are left out of a forward."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bootstrapnas_ext.graph import ModelGraph, ModuleCall, Place, Ref
from bootstrapnas_ext.graph.blocks import ADDITIVE, Block, is_overwritten

ShapeOf = Callable[[int], tuple[int, ...]]


class Skip:
    """
    How to leave out blocks in one forward.

    A block of whole modules is left out by passing its input on. Where a block adds to its entry what modules compute,
    these return zeros. In any other block, operations are replaced by placeholders of the right shape that hold no
    memory, and the last one by the entry; that needs :class:`~bootstrapnas_ext._nncf.HookMode` around the model.

    :param graph: The trace.
    :param blocks: Blocks to leave out.
    :param shape: Returns the shape of a tensor, by its index, in the subnet that leaves them out.
    :ivar needs_mode: Whether there is a block of the last kind.
    :ivar forwards: What takes the place of modules' forwards.
    :ivar stand_ins: By path of a module what may take its place for good, if no code looks at the sizes of its results.
    """

    def __init__(self, graph: ModelGraph, blocks: Sequence[Block], shape: ShapeOf) -> None:
        self._graph = graph
        self._shape = shape
        self._entries: dict[int, Tensor] = {}
        self._origin = {block.exit: block.entry for block in blocks}
        self.needs_mode = False
        self.forwards: dict[Place, Callable[..., Any]] = {}
        self.stand_ins: dict[str, Callable[..., Any]] = {}
        self.counters: dict[str, Mapping[str, int]] = {}
        self.replace: dict[str, Callable[[], Any]] = {}
        self.keep: dict[str, Callable[[Any], None]] = {}
        for block in blocks:
            for call in block.calls:
                at_end = call is block.calls[-1] and is_overwritten(graph, block.exit)
                function = pass_to_be_overwritten if at_end else pass_through
                self._replace_call(call, function)
                self.stand_ins[call.module] = function
            if not block.calls:
                self._leave_out(block)

    def _leave_out(self, block: Block) -> None:
        inside = self._inside(block)
        calls = list(_calls_inside(self._graph, inside))
        left = inside.difference(*(range(call.first_op, call.end_op) for call in calls))
        made = {block.entry, *(value for op in inside for value in self._graph.ops[op].outputs)}
        # What depends on constants alone may have another type, and nothing of this forward's sizes.
        like = [at for call in calls for at in [_first(call.inputs, made)] if at is not None]
        ends = left == {self._graph.producer[block.exit]} and _is_sum(self._graph, block)
        if not ends or len(like) < len(calls):
            self._replace_ops(block, calls, left)
            return
        for call, at in zip(calls, like, strict=True):
            self._replace_call(call, partial(self._zeros, call, at))
            self.stand_ins[call.module] = partial(zeros, at, _smallest_sizes(self._graph, call))

    def _zeros(self, call: ModuleCall, at: int, *args: Any, **kwargs: Any) -> Any:
        """Returns zeros of the shapes that the call's results would have."""
        like = _tensors(args, kwargs)[at]

        def zero(ref: Ref) -> Tensor:
            return like.new_zeros(()).expand(self._sizes(ref.value, call.inputs[at], like))

        with torch._C.DisableTorchFunction():  # it is no operation of the model, and must not be counted as one
            return pytree.tree_map_only(Ref, zero, call.result)

    def _sizes(self, index: int, known: int, live: Tensor) -> list[int]:
        """Returns the sizes of a tensor in this forward, from those of another, as far as they depend on the input."""
        value, other = self._graph.values[index], self._graph.values[known]
        sizes, expected = list(self._shape(index)), self._shape(known)
        for dim, size in enumerate(sizes):
            if dim in value.varying and other.varying:
                sizes[dim] = size * live.shape[other.varying[0]] // expected[other.varying[0]]
            elif len(sizes) == len(expected) and size == expected[dim] and value.shape[dim] == other.shape[dim]:
                sizes[dim] = live.shape[dim]
        return sizes

    def read_inputs(self, tensors: Mapping[str, Tensor]) -> None:
        """
        Keeps the model's inputs, which may be entries of blocks.

        :param tensors: What the model is called with, as :meth:`ExampleInput.named` returns it.
        """
        for value in self._graph.values:
            if value.source == "input" and value.name in tensors:
                self._entries[value.index] = tensors[value.name]

    def _first_entry(self, block: Block) -> int:
        """Returns what enters the first of the blocks that are left out one after the other up to this one."""
        entry = block.entry
        while entry in self._origin:
            entry = self._origin[entry]
        return entry

    def _inside(self, block: Block) -> set[int]:
        """Returns operations; what runs before the entry is there depends on constants alone, and only it reads it."""
        maker = self._graph.producer.get(self._first_entry(block), -1)
        return {op for op in block.ops if op > maker}

    def _replace_call(self, call: ModuleCall, forward: Callable[..., Any]) -> None:
        self.forwards[Place(call.module, "forward")] = forward
        self.counters[call.module] = call.counters

    def _replace_ops(self, block: Block, calls: Iterable[ModuleCall], left: Iterable[int]) -> None:
        self.needs_mode = True
        entry = self._first_entry(block)
        maker = self._graph.producer.get(entry)
        if maker is not None:
            op, number = self._graph.ops[maker], self._graph.ops[maker].outputs.index(entry)

            def keep(result: Any) -> None:
                self._entries[entry] = result if isinstance(result, Tensor) else result[number]

            self.keep[op.site] = keep

        same = _overwritten_into(self._graph, block.exit)
        pass_on = pass_to_be_overwritten if is_overwritten(self._graph, block.exit) else pass_through

        def value_of(index: int) -> Tensor:
            found = self._entries[entry]
            if index in same:
                return pass_on(found)  # type: ignore[no-any-return]
            with torch._C.DisableTorchFunction():  # it is no operation of the model, and must not be counted as one
                return found.new_empty(()).expand(self._sizes(index, entry, found))

        for call in calls:
            self._replace_call(call, partial(_like, call.result, value_of))
        for index in left:
            op = self._graph.ops[index]
            if len(op.outputs) == 1:
                self.replace[op.site] = partial(value_of, op.outputs[0])
            else:
                self.replace[op.site] = partial(_call_each, value_of, op.outputs)
        made = {value for op in block.ops for value in self._graph.ops[op].outputs} - {block.exit}
        for site, index in self._graph.passed.items():
            if index in made:  # it does nothing in evaluation mode, but may do something in training
                self.replace[site] = partial(value_of, index)


def pass_through(value: Any, *_: Any, **__: Any) -> Any:
    """
    Returns the first argument: what a module that is left out does.

    :param value: The argument.
    """
    return value


def pass_to_be_overwritten(value: Any, *_: Any, **__: Any) -> Any:
    """
    Returns the first argument, or a copy, where the module's result is overwritten by what comes after.

    The gradient of what made the argument may depend on what it holds, as that of ReLU does.

    :param value: The argument.
    """
    with torch._C.DisableTorchFunction():  # it is no operation of the model, and must not be counted as one
        return value.clone() if value.requires_grad else value


def zeros(at: int, sizes: Any, *args: Any, **kwargs: Any) -> Any:
    """
    Returns zeros: what modules do whose results would be added to something.

    :param at: Which of the tensors among the arguments has their type.
    :param sizes: Sizes of the tensors, in the structure of the result.
    :param args: What the module is called with.
    :param kwargs: Likewise.
    """
    return pytree.tree_map_only(torch.Size, _tensors(args, kwargs)[at].new_zeros, sizes, is_leaf=_is_size)


def _first(values: Sequence[int], among: Container[int]) -> int | None:
    return next((at for at, value in enumerate(values) if value in among), None)


def _is_size(item: Any) -> bool:
    return isinstance(item, torch.Size)


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


def _smallest_sizes(graph: ModelGraph, call: ModuleCall) -> Any:
    """Returns for each tensor of a call's result the sizes of one with a single item, which vanishes in an addition."""
    return pytree.tree_map_only(Ref, lambda ref: torch.Size([1] * len(graph.values[ref.value].shape)), call.result)


def _is_sum(graph: ModelGraph, block: Block) -> bool:
    """Whether a block ends by adding something else to its entry; in place to the entry itself, if at all."""
    op = graph.ops[graph.producer[block.exit]]
    if op.overwrites not in (None, block.entry):
        return False
    return op.kind in ADDITIVE and op.tensors.count(block.entry) == 1 and len(op.tensors) == 2


def _overwritten_into(graph: ModelGraph, value: int) -> set[int]:
    """Returns a tensor and those that in-place operations made it of: the model's code holds one object for all."""
    found = {value}
    while value in graph.producer and (before := graph.ops[graph.producer[value]].overwrites) is not None:
        value = before
        found.add(value)
    return found


def _calls_inside(graph: ModelGraph, inside: set[int]) -> Iterator[ModuleCall]:
    """Yields the outermost calls that run operations of a block only, and whose results can be made again."""
    covered: set[int] = set()
    for call in graph.single_calls:
        ops = range(call.first_op, call.end_op)
        if len(ops) and inside.issuperset(ops) and covered.isdisjoint(ops) and _made_inside(graph, call):
            covered.update(ops)
            yield call


def _made_inside(graph: ModelGraph, call: ModuleCall) -> bool:
    """Whether a call returned tensors that it made, in tuples, lists and dictionaries that can be made again."""
    made = {value for op in graph.ops[call.first_op : call.end_op] for value in op.outputs}
    plain = (Ref, str, int, float, type(None))
    return made.issuperset(call.outputs) and all(isinstance(leaf, plain) for leaf in pytree.tree_leaves(call.result))


def _like(traced: Any, value_of: Callable[[int], Tensor], *_: Any, **__: Any) -> Any:
    """Returns what a call returned in the trace, with other tensors, whatever it is called with."""
    return pytree.tree_map_only(Ref, lambda ref: value_of(ref.value), traced)


def _call_each(function: Callable[[int], Tensor], indices: Iterable[int]) -> tuple[Tensor, ...]:
    return tuple(map(function, indices))
