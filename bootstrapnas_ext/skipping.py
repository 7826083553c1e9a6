"""How blocks are left out of a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bootstrapnas_ext.graph import ModelGraph, ModuleCall, Place, Ref
from bootstrapnas_ext.graph.blocks import ADDITIVE, Block


class Skip:
    """
    How to leave out blocks in one forward.

    A block of whole modules is left out by passing its input on. Where a block adds to its entry what modules compute,
    these return zeros. In any other block, operations are replaced by placeholders of the right shape that hold no
    memory, and the last one by the entry; that needs :class:`~bootstrapnas_ext._nncf.HookMode` around the model.

    :param graph: The trace.
    :param blocks: Blocks to leave out.
    :ivar needs_mode: Whether there is a block of the last kind.
    :ivar forwards: What takes the place of modules' forwards.
    """

    def __init__(self, graph: ModelGraph, blocks: Sequence[Block]) -> None:
        self._graph = graph
        self._entries: dict[int, Tensor] = {}
        self._origin = {block.exit: block.entry for block in blocks}
        self.needs_mode = False
        self.forwards: dict[Place, Callable[..., Any]] = {}
        self.counters: dict[str, Mapping[str, int]] = {}
        self.replace: dict[str, Callable[[], Any]] = {}
        self.keep: dict[str, Callable[[Any], None]] = {}
        for block in blocks:
            for call in block.calls:
                self._replace_call(call, pass_through)
            if not block.calls:
                inside = self._inside(block)
                calls = list(_calls_inside(graph, inside))
                left = inside.difference(*(range(call.first_op, call.end_op) for call in calls))
                if left == {graph.producer[block.exit]} and _is_sum(graph, block):
                    for call in calls:
                        self._replace_call(call, partial(zeros, _sizes(graph, call)))
                else:
                    self._replace_ops(block, calls, left)

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

        def value_of(index: int) -> Tensor:
            found = self._entries[entry]
            if index in same:
                return found
            value, traced = self._graph.values[index], self._graph.values[entry]
            shape = list(value.shape)
            for dim in value.varying if traced.varying else ():
                shape[dim] = shape[dim] * found.shape[traced.varying[0]] // traced.shape[traced.varying[0]]
            with torch._C.DisableTorchFunction():  # it is no operation of the model, and must not be counted as one
                return found.new_empty(()).expand(shape)

        for call in calls:
            self._replace_call(call, partial(_like, call.result, value_of))
        for index in left:
            op = self._graph.ops[index]
            if len(op.outputs) == 1:
                self.replace[op.site] = partial(value_of, op.outputs[0])
            else:
                self.replace[op.site] = partial(_call_each, value_of, op.outputs)


def pass_through(value: Any, *_: Any, **__: Any) -> Any:
    """
    Returns the first argument: what a module that is left out does.

    :param value: The argument.
    """
    return value


def zeros(sizes: Any, *args: Any, **kwargs: Any) -> Any:
    """
    Returns zeros: what modules do whose results would be added to something.

    :param sizes: Sizes of the tensors, in the structure of the result.
    :param args: What the module is called with.
    :param kwargs: Likewise.
    """
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(()))
    with torch._C.DisableTorchFunction():  # it is no operation of the model, and must not be counted as one
        return pytree.tree_map_only(torch.Size, like.new_zeros, sizes, is_leaf=_is_size)


def _is_size(item: Any) -> bool:
    return isinstance(item, torch.Size)


def _sizes(graph: ModelGraph, call: ModuleCall) -> Any:
    """Returns for each tensor of a call's result the sizes of one that has the fewest items of those of its rank."""
    return pytree.tree_map_only(Ref, lambda ref: torch.Size([1] * len(graph.values[ref.value].shape)), call.result)


def _is_sum(graph: ModelGraph, block: Block) -> bool:
    """Whether a block ends by adding something else to its entry; in place to the entry itself, if at all."""
    op = graph.ops[graph.producer[block.exit]]
    if op.in_place and op.tensors[0] != block.entry:
        return False
    return op.kind in ADDITIVE and op.tensors.count(block.entry) == 1 and len(op.tensors) == 2


def _overwritten_into(graph: ModelGraph, value: int) -> set[int]:
    """Returns a tensor and those that in-place operations made it of: the model's code holds one object for all."""
    found = {value}
    while (op := graph.ops[graph.producer.get(value, 0)]).in_place and value in op.outputs:
        value = op.tensors[0]
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
