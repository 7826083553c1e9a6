"""How a model runs as its active subnet.

Most arguments of operations are attributes of modules: weights, running statistics, ``groups``, ``padding``. For the
length of a forward, such an attribute is shadowed by what its hooks make of it, so the operation runs at full speed, as
in a model that was built small. Only arguments that the model's own code computes, such as the sizes of a ``view``, and
blocks that are no modules of their own, need NNCF's function mode around the model. Which is which is not guessed: a
probe runs the model once and looks at what arrives at every hooked port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bootstrapnas_ext._nncf import HookMode
from bootstrapnas_ext.elasticity import Elasticity, Hook, PortHook
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.graph import ModelGraph, ModuleCall, Op, Ref
from bootstrapnas_ext.graph.blocks import Block
from bootstrapnas_ext.graph.ir import ATTRIBUTE
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet


class Place(NamedTuple):
    """
    An attribute of a module.

    :param module: Path of the module.
    :param attribute: Name of the attribute.
    """

    module: str
    attribute: str


class Arrival(Enum):
    """What an operation got in a subnet without a hook at its argument, but with attributes changed."""

    UNTOUCHED = auto()
    """The subnet needs what the trace had, and that arrived."""
    RIGHT = auto()
    """What the subnet needs."""
    AS_TRACED = auto()
    """What the trace had, which the subnet does not need."""
    OTHER = auto()
    """Something else: the model's code computes it from what subnets change."""


@dataclass(frozen=True)
class Port:
    """
    An argument of an operation that hooks change, or an attribute beside the operation.

    :param op: The operation.
    :param number: NNCF's port number, or :data:`~bootstrapnas_ext.graph.ir.ATTRIBUTE`.
    :param hooks: What changes the argument, in order.
    :param traced: The argument in the trace; a :class:`Ref` for a tensor.
    :param places: Attributes that the argument comes from; empty if the model's code makes it.
    :param unsteady: Whether the model's code computes the argument from what subnets change, and not as they need it.
    """

    op: Op
    number: int
    hooks: tuple[PortHook, ...]
    traced: Any
    places: tuple[Place, ...]
    unsteady: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Site of the operation, and the port's number."""
        return self.op.site, self.number

    def changes(self) -> bool:
        """Returns whether the operation must get something else in the active subnet than in the trace."""
        return isinstance(self.traced, Ref) or not same(self.traced, self.change(self.traced))

    def change(self, value: Any) -> Any:
        """
        Returns what the operation gets in the active subnet.

        :param value: The argument of the maximum subnet.
        """
        for hook in self.hooks:
            value = hook(value)
        return value


def collect_ports(model: nn.Module, graph: ModelGraph, hooks: Iterable[Hook]) -> tuple[Port, ...]:
    """
    Gathers hooks by port, with the attributes that may be the argument's source.

    :param model: The model.
    :param graph: Its trace.
    :param hooks: Hooks; those of one port are applied in this order.
    :raises ModelError: If a hook's operation or port is not in the trace.
    """
    places = _places_by_tensor(model)
    by_port: dict[tuple[str, int], list[Hook]] = {}
    for hook in hooks:
        by_port.setdefault((hook.op, hook.port), []).append(hook)
    ports: list[Port] = []
    for (name, number), found in by_port.items():
        if name not in graph.op_index:
            msg = f"A hook is meant for the operation {name!r}, which the model does not have."
            raise ModelError(msg)
        op = graph.ops[graph.op_index[name]]
        if number == ATTRIBUTE:
            owner = model.get_submodule(op.module)
            traced = getattr(owner, found[0].argument or "", None) if _is_pytorchs(owner) else None
        else:
            traced = op.at_port(number)
        if isinstance(traced, Ref):
            sources = places.get(graph.values[traced.value].name, ())
        else:
            sources = _argument_places(model, op, found[0].argument, traced)
        ports.append(Port(op, number, tuple(hook.module for hook in found), traced, tuple(sources)))
    return tuple(_without_conflicts(graph, ports))


def _without_conflicts(graph: ModelGraph, ports: Sequence[Port]) -> Iterator[Port]:
    """
    Takes the attribute from ports of a module that is called several times, if not all calls need the same value.

    A norm without weights, for example, may be called with tensors of different widths.
    """
    hooks = {(port.op.name, port.number): port.hooks for port in ports}
    calls: dict[tuple[str, str], list[Op]] = {}
    for op in graph.ops:
        calls.setdefault((op.module, op.kind), []).append(op)
    for port in ports:
        alike = isinstance(port.traced, Ref) or all(
            hooks.get((op.name, port.number)) == port.hooks for op in calls[port.op.module, port.op.kind]
        )
        yield port if alike else replace(port, places=())


def _places_by_tensor(model: nn.Module) -> dict[str, list[Place]]:
    """Returns for each parameter and buffer, by the first of its names, all attributes that hold it."""
    first_name: dict[int, str] = {}
    places: dict[str, list[Place]] = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            path, _, attribute = name.rpartition(".")
            places.setdefault(first_name.setdefault(id(tensor), name), []).append(Place(path, attribute))
    return places


def _is_pytorchs(module: nn.Module) -> bool:
    """Whether PyTorch wrote what the module does, so that its attributes mean what their names say."""
    return type(module).forward.__module__.startswith("torch.nn.")


def _argument_places(model: nn.Module, op: Op, argument: str | None, traced: Any) -> list[Place]:
    value = getattr(model.get_submodule(op.module), argument, None) if argument else None
    return [Place(op.module, argument)] if argument and value is not None and same(value, traced) else []


def same(one: Any, two: Any) -> bool:
    """
    Returns whether two arguments are equal, apart from tensors in them; a tuple may equal a list.

    :param one: An argument.
    :param two: Another; a :class:`Ref` in it stands for any tensor.
    """
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, (Tensor, Ref)) or isinstance(two, (Tensor, Ref)):
        return isinstance(one, (Tensor, Ref)) and isinstance(two, (Tensor, Ref))
    return type(one) is type(two) and bool(one == two)


class Executor:
    """
    Runs a model as any of its subnets.

    :param model: The model; its own forward is passed to :meth:`run`.
    :param graph: Its trace.
    :param elasticities: What is elastic.
    :param ports: All hooked arguments.
    """

    def __init__(
        self, model: nn.Module, graph: ModelGraph, elasticities: Sequence[Elasticity], ports: tuple[Port, ...]
    ) -> None:
        self.graph = graph
        self.elasticities = tuple(elasticities)
        self.ports = ports
        self._model = model
        # Looking a module up by its path on every forward would cost more than slicing its weight.
        self._looked_for_checkpoints = False
        self._sources = {
            place: (model.get_submodule(place.module), port) for port in reversed(ports) for place in port.places
        }

    def skipped(self, subnet: Subnet) -> list[Block]:
        """
        Returns the blocks that a subnet leaves out.

        :param subnet: Any subnet.
        """
        return [block for elasticity in self.elasticities for block in elasticity.skipped(subnet)]

    def shadows(self) -> dict[Place, Any]:
        """Returns for each attribute that hooks change its value in the active subnet."""
        return {place: port.change(getattr(owner, place.attribute)) for place, (owner, port) in self._sources.items()}

    def code_hooks(self) -> dict[tuple[str, int], Callable[[Any], Any]]:
        """Returns what changes the arguments that the model's code makes."""
        return {port.key: port.change for port in self.ports if not port.places}

    def run(
        self,
        forward: Callable[..., Any],
        subnet: Subnet,
        example: ExampleInput,
        observe: Callable[[str, Any], None] | None = None,
    ) -> Any:
        """
        Runs the model as the active subnet.

        :param forward: The model's own forward.
        :param subnet: The active subnet.
        :param example: What to call the model with.
        :param observe: Called with the site and the result of every operation; makes the forward slow.
        """
        skip = Skip(self.graph, self.skipped(subnet))
        hooks = self.code_hooks()
        with self._shadowed(self.shadows()), shadowed(self._model, skip.forwards):
            if not hooks and not skip.replace and observe is None and not self.graph.adapted:
                result = forward(*example.args, **example.kwargs)
            else:
                skip.read_inputs(example.named(forward))
                with HookMode(self._model, hooks, skip.replace, skip.keep, observe, skip.counters) as mode:
                    result = forward(*example.args, **example.kwargs)
                check_counts(self.graph, mode.calls, {op for op, _ in hooks} | skip.replace.keys())
        if torch.is_grad_enabled() and not self._looked_for_checkpoints:
            refuse_checkpointing(result)
            self._looked_for_checkpoints = True
        return result

    @contextmanager
    def _shadowed(self, values: Mapping[Place, Any]) -> Iterator[None]:
        """As :func:`shadowed`; what training wrote into copied parts of buffers goes back into the buffers."""
        with _swapped((vars(owner), place.attribute, values[place]) for place, (owner, _) in self._sources.items()):
            yield
        for place, (owner, port) in self._sources.items():
            part, whole = values[place], getattr(owner, place.attribute)
            # BatchNorm does not mark its statistics as changed, so it is the mode that tells that they may be.
            if owner.training and _is_copy(part, whole):
                for hook in port.hooks:
                    hook.write_back(whole, part)

    def by_hooks(self) -> Executor:
        """
        Returns an executor that leaves attributes alone that are no tensors, in modules that are not PyTorch's.

        Their code may read such a number for something else, too.
        """
        ports = (
            port
            if isinstance(port.traced, Ref) or _is_pytorchs(self._model.get_submodule(port.op.module))
            else replace(port, places=())
            for port in self.ports
        )
        return Executor(self._model, self.graph, self.elasticities, tuple(ports))

    def without_hooks(self) -> Executor:
        """Returns an executor that changes no arguments."""
        return Executor(self._model, self.graph, self.elasticities, ())

    def probe(
        self, forward: Callable[..., Any], example: ExampleInput, observe: Callable[[str, Any], None]
    ) -> dict[tuple[str, int], Arrival]:
        """
        Runs the active subnet, which must skip no block, and looks at what arrives at every hooked argument.

        :param forward: The model's own forward.
        :param example: Input of the trace.
        :param observe: Called with the site and the result of every operation.
        :return: What arrived, by site of operation and number of port; those that did not run are missing.
        """
        arrivals: dict[tuple[str, int], Arrival] = {}

        def look_at(port: Port) -> Callable[[Any], Any]:
            def hook(value: Any) -> Any:
                arrival = arrivals[port.key] = self._arrival(port, value)
                return port.change(value) if arrival in (Arrival.AS_TRACED, Arrival.OTHER) else value

            return hook

        hooks = {port.key: look_at(port) for port in self.ports}
        with shadowed(self._model, self.shadows()), torch.no_grad(), HookMode(self._model, hooks, observe=observe):
            forward(*example.args, **example.kwargs)
        return arrivals

    def _arrival(self, port: Port, value: Any) -> Arrival:
        if isinstance(value, Tensor):
            assert isinstance(port.traced, Ref)
            full = self.graph.values[port.traced.value].shape
            needed = tuple(port.change(torch.empty(full, device="meta")).shape)
            got = tuple(value.shape)
            if needed == full:
                return Arrival.UNTOUCHED if got == full else Arrival.OTHER
            if got == needed:
                return Arrival.RIGHT
            return Arrival.AS_TRACED if got == full else Arrival.OTHER
        if not port.changes() and same(value, port.traced):
            return Arrival.UNTOUCHED
        if same(value, port.change(port.traced)):
            return Arrival.RIGHT
        return Arrival.AS_TRACED if same(value, port.traced) else Arrival.OTHER

    def settled(self, probes: Sequence[Mapping[tuple[str, int], Arrival]]) -> Executor:
        """
        Returns an executor that knows by trial where each argument comes from.

        One trial is not enough: what the code computes from one width may be right for another by chance.

        :param probes: What :meth:`probe` returned for several subnets.
        """
        ports: list[Port] = []
        for port in self.ports:
            found = {probe[port.key] for probe in probes if port.key in probe}
            if port.number == ATTRIBUTE and port.places:
                ports.append(port)
            elif Arrival.AS_TRACED in found or Arrival.OTHER in found:
                ports.append(replace(port, places=(), unsteady=Arrival.OTHER in found or Arrival.RIGHT in found))
            elif port.places and Arrival.RIGHT in found:
                ports.append(port)
            elif isinstance(port.traced, Ref):  # its shape does not tell whether its hook was at work
                ports.append(replace(port, places=()))
            # else: the argument is right without a hook, since it is static or the code computes it from shapes
        return Executor(self._model, self.graph, self.elasticities, tuple(ports))


def check_counts(graph: ModelGraph, calls: Mapping[str, int], sites: Iterable[str]) -> None:
    """
    Looks whether functions ran as often as in the trace: operations are known by their number.

    :param graph: The trace, made in evaluation mode.
    :param calls: How often each function ran in each module.
    :param sites: Of the operations that were changed or left out.
    :raises ModelError: If one ran more often, for example because the model's code looks at its mode.
    """
    for site in sites:
        stem = site.rpartition(":")[0]
        if calls[stem] > graph.counts[stem]:
            name = graph.ops[graph.site_index[site]].name.rpartition("/")[0]
            msg = (
                f"The model's code runs {name!r} {calls[stem]} times, and {graph.counts[stem]} times when it was "
                "traced, in evaluation mode, so a subnet that changes it cannot run like this. Let the code run the "
                "same operations in both modes, or put what differs into a module of its own."
            )
            raise ModelError(msg)


def refuse_checkpointing(result: Any) -> None:
    """
    Looks for activation checkpoints in what gradients flow back through.

    They run modules once more during the backward pass, when the attributes of the subnet are gone.

    :param result: What a model returned, with gradients.
    :raises ModelError: If there is one.
    """
    pending = [leaf.grad_fn for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "CheckpointFunction" in node.name():
            msg = (
                "The model uses activation checkpointing, which runs parts of it again during the backward pass, as "
                "the maximum subnet. Turn checkpointing off while a super-network is trained."
            )
            raise ModelError(msg)
        pending += [following for following, _ in node.next_functions]


@contextmanager
def shadowed(model: nn.Module, values: Mapping[Place, Any]) -> Iterator[None]:
    """
    Gives attributes of modules other values for a while; parameters and buffers stay registered as they are.

    :param model: The model.
    :param values: Attribute to value.
    """
    with _swapped((vars(model.get_submodule(place.module)), place.attribute, value) for place, value in values.items()):
        yield


@contextmanager
def _swapped(items: Iterable[tuple[dict[str, Any], str, Any]]) -> Iterator[None]:
    """Puts values into dictionaries under names, and what was there back at the end."""
    missing = object()
    saved: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for attributes, name, value in items:
            saved.append((attributes, name, attributes.get(name, missing)))
            attributes[name] = value
        yield
    finally:
        for attributes, name, value in reversed(saved):
            if value is missing:
                attributes.pop(name, None)
            else:
                attributes[name] = value


def _is_copy(part: Any, whole: Any) -> bool:
    """Whether a part of a buffer is a tensor of its own; a view needs no writing back, and a parameter no in-place."""
    is_buffer = isinstance(whole, Tensor) and not isinstance(whole, nn.Parameter)
    return is_buffer and part is not whole and part._base is None


def _pass_through(value: Any, *_: Any, **__: Any) -> Any:
    return value


class Skip:
    """
    How to leave out blocks in one forward.

    A block of whole modules is left out by passing its input on. In any other block, operations are replaced by
    placeholders of the right shape that hold no memory, and the last one by the entry.

    :param graph: The trace.
    :param blocks: Blocks to leave out.
    """

    def __init__(self, graph: ModelGraph, blocks: Sequence[Block]) -> None:
        self._graph = graph
        self._entries: dict[int, Tensor] = {}
        self._origin = {block.exit: block.entry for block in blocks}
        self.forwards: dict[Place, Any] = {}
        self.counters: dict[str, Mapping[str, int]] = {}
        self.replace: dict[str, Callable[[], Any]] = {}
        self.keep: dict[str, Callable[[Any], None]] = {}
        for block in blocks:
            if not block.calls:
                self._replace_ops(block)
            for call in block.calls:
                self._replace_call(call, _pass_through)

    def read_inputs(self, tensors: Mapping[str, Tensor]) -> None:
        """
        Keeps the model's inputs, which may be entries of blocks.

        :param tensors: What the model is called with, as :meth:`ExampleInput.named` returns it.
        """
        for value in self._graph.values:
            if value.source == "input" and value.name in tensors:
                self._entries[value.index] = tensors[value.name]

    def _replace_call(self, call: ModuleCall, forward: Callable[..., Any]) -> None:
        self.forwards[Place(call.module, "forward")] = forward
        self.counters[call.module] = call.counters

    def _replace_ops(self, block: Block) -> None:
        entry = block.entry
        while entry in self._origin:
            entry = self._origin[entry]
        maker = self._graph.producer.get(entry)
        if maker is not None:
            op, number = self._graph.ops[maker], self._graph.ops[maker].outputs.index(entry)

            def keep(result: Any) -> None:
                self._entries[entry] = result if isinstance(result, Tensor) else result[number]

            self.keep[op.site] = keep

        def value_of(index: int) -> Tensor:
            found = self._entries[entry]
            if index == block.exit:
                return found
            value, traced = self._graph.values[index], self._graph.values[entry]
            shape = list(value.shape)
            for dim in value.varying if traced.varying else ():
                shape[dim] = shape[dim] * found.shape[traced.varying[0]] // traced.shape[traced.varying[0]]
            with torch._C.DisableTorchFunction():  # it is no operation of the model, and must not be counted as one
                return found.new_empty(()).expand(shape)

        # What runs before the entry is there depends on constants alone, and nothing but the block reads it.
        inside = {op for op in block.ops if maker is None or op > maker}
        covered: set[int] = set()
        for call in self._graph.single_calls:
            ops = range(call.first_op, call.end_op)
            if len(ops) and inside.issuperset(ops) and covered.isdisjoint(ops) and _made_inside(self._graph, call):
                covered.update(ops)
                self._replace_call(call, partial(_like, call.result, value_of))
        for index in sorted(inside - covered):
            op = self._graph.ops[index]
            if len(op.outputs) == 1:
                self.replace[op.site] = partial(value_of, op.outputs[0])
            else:
                self.replace[op.site] = partial(_call_each, value_of, op.outputs)


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
