"""The traced model as plain values: operations, the tensors between them, and module calls. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

ATTRIBUTE = -1
"""Stands for a port where no argument must follow a subnet, but an attribute that the module's own code reads."""


Path = tuple[int | str, ...]
"""Where in an argument something is: positions in tuples and lists, keys, ``"start"`` and ``"stop"`` of slices, from
the outermost in; empty for the argument itself."""


class Place(NamedTuple):
    """
    An attribute of a module.

    :param module: Path of the module.
    :param attribute: Name of the attribute.
    """

    module: str
    attribute: str


@dataclass(frozen=True)
class Ref:
    """
    Stands for a tensor among the arguments of an operation.

    :param value: Index of the tensor in :attr:`ModelGraph.values`.
    """

    value: int


@dataclass(frozen=True)
class Value:
    """
    A tensor of the trace.

    :param index: Position in :attr:`ModelGraph.values`.
    :param shape: Its shape in the trace.
    :param source: ``"input"``, ``"parameter"``, ``"buffer"``, ``"op"``, or ``"unknown"`` for a tensor that the model
        holds without having registered it.
    :param name: Name of the input, parameter or buffer; of the operation that made it otherwise.
    :param is_mask: Whether its items are truth values.
    :param alias: Index of a tensor that it shares memory with: an argument of the operation that made it, as for a
        view; for a parameter or buffer another one, of which it is not just another name.
    :param varying: Dimensions that have another size when the model is called with another batch size.
    """

    index: int
    shape: tuple[int, ...]
    source: str
    name: str
    is_mask: bool = False
    alias: int | None = None
    varying: tuple[int, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether it is a parameter or a buffer of the model."""
        return self.source in ("parameter", "buffer")


@dataclass(frozen=True)
class Op:
    """
    One executed operation.

    :param name: NNCF's name for it, for example ``layer1/0/conv1/conv2d/0``.
    :param kind: Name of the function without underscores at its ends, for example ``conv2d`` or ``add``.
    :param module: Dotted path of the module whose code called it; empty for the model itself.
    :param args: Positional arguments, with a :class:`Ref` for each tensor.
    :param kwargs: Keyword arguments likewise.
    :param outputs: Indices of the tensors that it returned.
    :param overwrites: Index of the tensor that it writes into, ``None`` if there is none.
    :param site: What identifies it in another run: module, function, and how often the function had run there. NNCF's
        name does not always tell the modules of a list apart, so that what one of them runs renumbers the others.
    :param places: Which integers among the arguments are attributes of modules, as the model's code reads them: the
        argument's position or name and the way into it, to the attribute.
    """

    name: str
    kind: str
    module: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[int, ...]
    overwrites: int | None = None
    site: str = ""
    places: Mapping[Path, Place] = field(default_factory=dict)

    @property
    def in_place(self) -> bool:
        """Whether it returns a tensor that it has overwritten."""
        return self.overwrites is not None and bool(self.outputs)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """
        Returns an argument, whichever way it was passed.

        :param position: Its position in the function's signature, from 0.
        :param name: Its name there.
        :param default: Returned if it was not passed.
        """
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def port(self, position: int, name: str) -> int | None:
        """
        Returns NNCF's port number of an argument, ``None`` if it was not passed.

        Ports count arguments in order, positional ones first; each tensor of a list has a port of its own.

        :param position: Its position in the function's signature, from 0.
        :param name: Its name there.
        """
        for port, place, _ in self._arguments():
            if place in (position, name):
                return port
        return None

    def at_port(self, number: int) -> tuple[int | str, Any]:
        """
        Returns the argument at a port, after its position or its name.

        :param number: NNCF's port number.
        :raises KeyError: If there is no such port.
        """
        for port, place, argument in self._arguments():
            if port == number:
                return place, argument
        raise KeyError(number)

    @cached_property
    def tensor_ports(self) -> tuple[tuple[int, int], ...]:
        """Pairs of port and tensor index for every tensor argument that has a port, in order."""
        return tuple((port, arg.value) for port, _, arg in self._arguments() if isinstance(arg, Ref))

    @cached_property
    def tensors(self) -> tuple[int, ...]:
        """Indices of all tensors among the arguments, however deeply nested, in order."""
        return tuple(ref.value for ref in _refs((self.args, self.kwargs)))

    def _arguments(self) -> Iterator[tuple[int, int | str, Any]]:
        port = 0
        places: list[tuple[int | str, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        for place, arg in places:
            if isinstance(arg, (list, tuple)) and all(isinstance(item, Ref) for item in arg):
                for item in arg:
                    yield port, place, item
                    port += 1
            else:
                yield port, place, arg
                port += 1


@dataclass(frozen=True)
class ModuleCall:
    """
    One call of a module.

    :param module: Its dotted path.
    :param arguments: How many arguments it got.
    :param inputs: Tensors among its arguments.
    :param outputs: Tensors that it returned.
    :param single: Whether the first argument is one tensor, the result is one tensor, and no hooks of the user's run
        around the module.
    :param first_op: Index of the first operation that ran inside.
    :param end_op: Index after the last operation that ran inside.
    :param counters: How often functions had run in modules, as the call left them; those that it moved. They are what
        :attr:`Op.site` consists of.
    :param result: What it returned, with a :class:`Ref` for each tensor.
    """

    module: str
    arguments: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    single: bool
    first_op: int
    end_op: int
    counters: Mapping[str, int]
    result: Any = None


@dataclass(frozen=True)
class ModelGraph:
    """
    A traced model.

    :param ops: Operations in the order of execution.
    :param values: All tensors.
    :param outputs: Indices of the tensors that the model returned.
    :param calls: Module calls, in the order in which they began.
    :param counts: How often each function ran in each module, by :attr:`Op.site` without the number; more often than
        there are operations where a function returned just what it got.
    :param passed: Sites of operations that were left out since they returned just what they got, with the tensor.
    :param spelled: From sites of operations, and of those that were left out, to what they would be if functions were
        counted by what the model's code writes, such as ``__iadd__`` and not ``add_``.
    :param adapted: Modules in which a function of PyTorch ran as its stand-in, which subnets need; see
        :mod:`bootstrapnas_ext.functions`.
    """

    ops: tuple[Op, ...]
    values: tuple[Value, ...]
    outputs: tuple[int, ...]
    calls: tuple[ModuleCall, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    passed: Mapping[str, int] = field(default_factory=dict)
    spelled: Mapping[str, str] = field(default_factory=dict)
    adapted: frozenset[str] = frozenset()

    @property
    def takes_any_batch(self) -> bool:
        """Whether the model ran with two batch sizes; see :mod:`bootstrapnas_ext.graph.variation`."""
        return any(value.varying for value in self.values if value.source == "input")

    @cached_property
    def producer(self) -> dict[int, int]:
        """Tensor index to the index of the operation that made it."""
        return {value: index for index, op in enumerate(self.ops) for value in op.outputs}

    @cached_property
    def consumers(self) -> dict[int, tuple[int, ...]]:
        """Tensor index to the indices of the operations that read it, in order."""
        found: dict[int, dict[int, None]] = {}
        for index, op in enumerate(self.ops):
            for value in op.tensors:
                found.setdefault(value, {})[index] = None
        return {value: tuple(indices) for value, indices in found.items()}

    @cached_property
    def views(self) -> dict[int, tuple[int, ...]]:
        """Tensor index to the indices of the tensors that were made of it and share its memory."""
        found: dict[int, list[int]] = {}
        for value in self.values:
            if value.alias is not None:
                found.setdefault(value.alias, []).append(value.index)
        return {value: tuple(views) for value, views in found.items()}

    @cached_property
    def single_calls(self) -> tuple[ModuleCall, ...]:
        """Calls of modules that are called once."""
        counts = Counter(call.module for call in self.calls)
        return tuple(call for call in self.calls if counts[call.module] == 1)

    @cached_property
    def op_index(self) -> dict[str, int]:
        """Operation name to its index."""
        return {op.name: index for index, op in enumerate(self.ops)}

    @cached_property
    def site_index(self) -> dict[str, int]:
        """Operation site to its index."""
        return {op.site: index for index, op in enumerate(self.ops)}


def part_of(value: Any, path: Path) -> Any:
    """
    Returns a part of an argument.

    :param value: The argument.
    :param path: The way into it.
    """
    for step in path:
        value = getattr(value, str(step)) if isinstance(value, slice) else value[step]
    return value


def _refs(tree: Any) -> Iterator[Ref]:
    if isinstance(tree, Ref):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _refs(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _refs(item)
    elif isinstance(tree, slice):
        yield from _refs((tree.start, tree.stop, tree.step))
