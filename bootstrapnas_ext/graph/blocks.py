"""Finds the blocks of a model that may be skipped: parts whose entry and exit have the same axes.

Skipping a block means that its exit is its entry. That is legal where nothing inside is read outside, and the two
tensors have equal axes, so that they agree in every subnet. A part that is no module must also have no other way in
than the entry, so that it is clear which operations belong to it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.graph.ir import ModelGraph, ModuleCall
from bootstrapnas_ext.graph.propagate import Propagation

ADDITIVE = frozenset({"add", "iadd", "radd"})
"""Kinds of operation whose result still holds each of its inputs, as the end of a residual branch does."""


@dataclass(frozen=True)
class Block:
    """
    A part of the graph that may be skipped.

    :param entry: Index of the tensor that enters.
    :param exit: Index of the tensor that leaves.
    :param ops: Indices of its operations, ascending.
    :param calls: Module calls that make up the whole block one after the other; empty if there are none such.
    :param residual: Whether the entry is added to what the rest of the block computes.
    """

    entry: int
    exit: int
    ops: tuple[int, ...]
    calls: tuple[ModuleCall, ...]
    residual: bool


Chain = tuple[Block, ...]
"""Blocks of which each enters where the one before leaves."""


def find_blocks(propagation: Propagation, min_ops: int, max_ops: int) -> list[Block]:
    """
    Returns blocks that do not overlap, in the order of the model.

    Candidates are residual blocks and whole modules: for each tensor the smallest block that ends there, and each call
    of a module. Of those that overlap, residual ones come first, then whole modules, then smaller ones. A residual
    module that holds just one other, such as an encoder layer with its attention, takes the place of that: what else it
    holds could not be left out as modules. Time grows linearly with the number of operations.

    :param propagation: Layouts of the model.
    :param min_ops: Fewest operations of a block, at least 1.
    :param max_ops: Most operations of a block.
    """
    finder = _Finder(propagation, min_ops, max_ops)
    candidates = sorted(
        {block.ops: block for block in finder.candidates() if block.residual or len(block.calls) == 1}.values(),
        key=lambda block: (not block.residual, not block.calls, len(block.ops), block.ops[0]),
    )
    owner: dict[int, Block] = {}
    for block in candidates:
        inside = {id(owner[op]): owner[op] for op in block.ops if op in owner}
        if not inside or (len(inside) == 1 and _holds(block, *inside.values())):
            owner.update(dict.fromkeys(block.ops, block))
    chosen = {id(block): block for block in owner.values()}.values()
    return without_overwriting(propagation.graph, sorted(chosen, key=lambda block: block.ops[0]))


def _holds(block: Block, other: Block) -> bool:
    """Whether a residual module holds another residual block."""
    return block.residual and other.residual and len(block.calls) == 1 and set(other.ops) < set(block.ops)


def without_overwriting(graph: ModelGraph, blocks: Iterable[Block]) -> list[Block]:
    """
    Leaves out blocks that must run because of an in-place operation after them.

    The exit of a skipped block is its entry, and along a chain that of the first skipped block. An in-place operation
    on the exit would spoil what is read of an entry later.

    :param graph: The traced model.
    :param blocks: Blocks that do not overlap, in the order of the model.
    """
    entries: dict[int, frozenset[int]] = {}
    kept: list[Block] = []
    for block in blocks:
        sources = frozenset({block.entry}) | entries.get(block.entry, frozenset())
        if not _overwrites(graph, block.exit, sources):
            entries[block.exit] = sources
            kept.append(block)
    return kept


def _overwrites(graph: ModelGraph, exit_value: int, entries: Iterable[int]) -> bool:
    """Whether writing into the exit or the entry of a skipped block, or a view of it, would spoil the other's use."""
    end = graph.producer.get(exit_value, -1)
    after, before = _family(graph, [exit_value]), _family(graph, entries)
    return _spoils(graph, after, before, end) or _spoils(graph, before, after, end)


def is_overwritten(graph: ModelGraph, value: int) -> bool:
    """
    Returns whether an operation writes into a tensor or a view of it.

    :param graph: The traced model.
    :param value: Index of the tensor.
    """
    family = _family(graph, [value])
    return any(graph.ops[op].overwrites == one for one in family for op in graph.consumers.get(one, ()))


def _family(graph: ModelGraph, values: Iterable[int]) -> set[int]:
    """Returns tensors and their views."""
    found: set[int] = set()
    pending = list(values)
    while pending:
        value = pending.pop()
        if value not in found:
            found.add(value)
            pending += (view for view in graph.views.get(value, ()) if not _is_written(graph, value, view))
    return found


def _is_written(graph: ModelGraph, value: int, view: int) -> bool:
    """Whether what shares the memory of a tensor is that tensor after an in-place operation."""
    op = graph.ops[graph.producer[view]]
    return op.overwrites == value


def _spoils(graph: ModelGraph, written: set[int], read: set[int], end: int) -> bool:
    """Whether an operation after the end writes into one of some tensors, and another of the others is read later."""
    writers = [
        op
        for value in written
        for op in graph.consumers.get(value, ())
        if op > end and graph.ops[op].overwrites == value
    ]
    return bool(writers) and any(_last_use(graph, value) > min(writers) for value in read - written)


def _last_use(graph: ModelGraph, value: int) -> int:
    """Returns the index of the last operation that reads a tensor; inputs and outputs are read after all."""
    if value in graph.outputs or graph.values[value].source == "input":
        return len(graph.ops)
    return max(graph.consumers.get(value, (-1,)))


def block_between(propagation: Propagation, before: str, last: str, *, channels_vary: bool = True) -> Block:
    """
    Returns the block between two operations.

    :param propagation: Layouts of the model.
    :param before: Name of the operation that makes the entry, which runs, or of an input of the model.
    :param last: Name of the operation that makes the exit; it belongs to the block.
    :param channels_vary: Whether subnets differ in channels, so that equal shapes are not enough.
    :raises ModelError: If there is no such operation, or the part between may not be skipped.
    """
    graph = propagation.graph
    entries = {value.name: value.index for value in graph.values if value.source == "input"}
    entries |= {op.name: op.outputs[0] for op in graph.ops if op.outputs}
    for name, known in ((before, entries), (last, graph.op_index)):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            msg = f"must name operations of the model, but got {name!r}.{hint}"
            raise ModelError(msg)
    block = _Finder(propagation, 1, len(graph.ops), channels_vary).between(entries[before], graph.op_index[last])
    if block is None:
        msg = (
            f"the part from {before!r} to {last!r} may not be skipped: all of it must depend on its entry alone, "
            "nothing inside may be read outside, and entry and exit must have equal channels"
            f"{' in every subnet' if channels_vary else ''}."
        )
        raise ModelError(msg)
    return block


def find_chains(blocks: Iterable[Block]) -> list[Chain]:
    """
    Joins blocks that follow each other directly.

    :param blocks: Blocks that do not overlap, in the order of the model.
    """
    chains: list[Chain] = []
    for block in blocks:
        for index, chain in enumerate(chains):
            if chain[-1].exit == block.entry:
                chains[index] = (*chain, block)
                break
        else:
            chains.append((block,))
    return chains


class _Finder:
    """Candidates by dominators: every way into a block leads through the operation that makes its entry."""

    def __init__(self, propagation: Propagation, min_ops: int, max_ops: int, channels_vary: bool = True) -> None:
        self._p = propagation
        self._channels_vary = channels_vary
        self._graph: ModelGraph = propagation.graph
        self._min_ops, self._max_ops = min_ops, max_ops
        self._weighted = {self._graph.op_index[layer.op.name] for layer in propagation.layers}
        self._returned = set(self._graph.outputs)
        self._calls_by_input: dict[int, list[ModuleCall]] = {}
        for call in self._graph.single_calls:
            if call.single:
                self._calls_by_input.setdefault(call.inputs[0], []).append(call)
        self._dominator = self._dominators()

    def candidates(self) -> Iterator[Block]:
        for op, dominator in enumerate(self._dominator):
            if dominator is not None and len(self._graph.ops[op].outputs) == 1:
                block = self._smallest_block(op)
                if block is not None:
                    yield block
        for call in self._graph.single_calls:
            block = self._whole_call(call) if call.single else None
            if block is not None:
                yield block

    def _whole_call(self, call: ModuleCall) -> Block | None:
        """Returns a module as a block. It may read what others have made, such as a mask, since that harms nothing."""
        entry, exit_value = call.inputs[0], call.outputs[0]
        region = set(range(call.first_op, call.end_op))
        end = self._graph.producer.get(exit_value, -1)
        if end not in region or len(region) > self._max_ops or len(self._graph.ops[end].outputs) > 1:
            return None
        if self._p.shape(entry) != self._p.shape(exit_value) or not self._may_skip(entry, exit_value, region):
            return None
        if not all(self._only_read_in(op, region) for op in region - {end}):
            return None
        return Block(entry, exit_value, tuple(sorted(region)), (call,), self._is_residual(entry, end, region))

    def _dominators(self) -> list[int | None]:
        """
        Returns the immediate dominator of each operation: another's index, or a negative number for a model input.

        ``None`` is an operation that depends on no input, such as one that prepares a parameter.
        """
        found: list[int | None] = []
        depth: dict[int, int] = {}
        root = -len(self._graph.values) - 1
        depth[root] = 0
        parent: dict[int, int] = {}

        def meet(one: int, two: int) -> int:
            while one != two:
                if depth[one] < depth[two]:
                    one, two = two, one
                one = parent[one]
            return one

        for index, op in enumerate(self._graph.ops):
            sources: list[int] = []
            for value in op.tensors:
                maker = self._graph.producer.get(value)
                if maker is not None:
                    if found[maker] is not None:
                        sources.append(maker)
                elif self._graph.values[value].source == "input":
                    sources.append(-value - 1)
                    parent.setdefault(-value - 1, root)
                    depth.setdefault(-value - 1, 1)
            if not sources:
                found.append(None)
                continue
            dominator = sources[0]
            for source in sources[1:]:
                dominator = meet(dominator, source)
            found.append(dominator)
            parent[index] = dominator
            depth[index] = depth[dominator] + 1
        return found

    def between(self, entry: int, end: int) -> Block | None:
        """Returns the block from a tensor to an operation's first output."""
        maker = self._graph.producer.get(entry, -entry - 1)
        at = self._dominator[end] if self._graph.ops[end].outputs else None
        while at is not None and at >= 0 and at != maker:
            at = self._dominator[at]
        return self._block(entry, end) if at == maker else None

    def _smallest_block(self, end: int) -> Block | None:
        at = self._dominator[end]
        steps = 0
        while at is not None and steps <= self._max_ops:
            for entry in self._graph.ops[at].outputs if at >= 0 else (-at - 1,):
                block = self._block(entry, end)
                if block is not None:
                    return block
            at = self._dominator[at] if at >= 0 else None
            steps += 1
        return None

    def _block(self, entry: int, end: int) -> Block | None:
        exit_value = self._graph.ops[end].outputs[0]
        if entry >= len(self._graph.values) or self._p.shape(entry) != self._p.shape(exit_value):
            return None
        region = self._region(entry, end)
        if region is None or not self._may_skip(entry, exit_value, region):
            return None
        residual = self._is_residual(entry, end, region)
        calls = self._call_chain(entry, exit_value, region)
        for call in calls:
            region.update(range(call.first_op, call.end_op))
        return Block(entry, exit_value, tuple(sorted(region)), calls, residual)

    def _region(self, entry: int, end: int) -> set[int] | None:
        """Returns the operations between a tensor and the end; ``None`` if too many, or one is read outside."""
        region: set[int] = {end}
        pending = [end]
        while pending:
            for value in self._graph.ops[pending.pop()].tensors:
                maker = self._graph.producer.get(value)
                if value == entry or maker is None or maker in region:
                    continue
                if maker == self._graph.producer.get(entry):  # another of its results: a second way in
                    return None
                if self._dominator[maker] is None and not self._only_read_in(maker, region):
                    continue
                region.add(maker)
                pending.append(maker)
                if len(region) > self._max_ops:
                    return None
        inside = region - {end}
        region |= self._writers(inside)
        if len(region) <= self._max_ops and all(self._only_read_in(op, region) for op in inside):
            return region
        return None

    def _writers(self, region: set[int]) -> set[int]:
        """Returns operations that only write into tensors of the region, such as an assignment to a part of one."""
        return {
            op
            for index in region
            for value in self._graph.ops[index].outputs
            for op in self._graph.consumers.get(value, ())
            if not self._graph.ops[op].outputs
            and all(self._graph.producer.get(tensor) in region for tensor in self._graph.ops[op].tensors)
        }

    def _only_read_in(self, op: int, region: set[int]) -> bool:
        return all(
            value not in self._returned and region.issuperset(self._graph.consumers.get(value, ()))
            for value in self._graph.ops[op].outputs
        )

    def _may_skip(self, entry: int, exit_value: int, region: set[int]) -> bool:
        if len(region) < self._min_ops or not any(self._dominator[op] is not None for op in region & self._weighted):
            return False  # a weight that meets no input, such as in a table of positions, makes no block
        return self._same_channels(entry, exit_value) and not _overwrites(self._graph, exit_value, [entry])

    def _same_channels(self, entry: int, exit_value: int) -> bool:
        """Whether two tensors of the same shape have it in every subnet."""
        solver = self._p.solver
        return not self._channels_vary or all(
            one == two or (solver.is_static(one) and solver.is_static(two))
            for one, two in zip(self._p.layout(entry), self._p.layout(exit_value), strict=True)
        )

    def _is_residual(self, entry: int, end: int, region: set[int]) -> bool:
        """Whether the entry reaches the end through additions, norms and other operations that make no channels."""
        pending, seen = [end], {end}
        found_addition = False
        while pending:
            op = self._graph.ops[pending.pop()]
            found_addition |= op.kind in ADDITIVE
            tensors = [value for value in op.tensors if not self._graph.values[value].is_constant]
            if op.kind not in ADDITIVE and (len(tensors) > 1 or self._graph.op_index[op.name] in self._weighted):
                continue
            for value in tensors:
                if value == entry:
                    return found_addition
                maker = self._graph.producer.get(value)
                if maker is not None and maker in region and maker not in seen:
                    seen.add(maker)
                    pending.append(maker)
        return False

    def _call_chain(self, entry: int, exit_value: int, region: set[int]) -> tuple[ModuleCall, ...]:
        """Returns module calls that lead from the entry to the exit and run all operations of the region."""
        chain: list[ModuleCall] = []
        value = entry
        covered: set[int] = set()
        while value != exit_value:
            inside = [
                call
                for call in self._calls_by_input.get(value, ())
                if call.outputs[0] != value and call.end_op > call.first_op and self._belongs(call, region)
            ]
            if not inside:
                return ()
            call = max(inside, key=lambda call: call.end_op - call.first_op)
            chain.append(call)
            covered.update(range(call.first_op, call.end_op))
            value = call.outputs[0]
        return tuple(chain) if region <= covered else ()

    def _belongs(self, call: ModuleCall, region: set[int]) -> bool:
        """Whether a call runs operations of the region only, and such as prepare constants for themselves."""
        ops = set(range(call.first_op, call.end_op))
        return all(self._dominator[op] is None and self._only_read_in(op, ops) for op in ops - region)
