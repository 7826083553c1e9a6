"""The arguments that a subnet changes, and the attributes of modules that they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import chain
from typing import Any, NamedTuple

from torch import Tensor, nn

from bootstrapnas_ext.elasticity import Hook, PortHook
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.graph import ModelGraph, Op, Path, Place, Ref, part_of
from bootstrapnas_ext.graph.ir import ATTRIBUTE


class Source(NamedTuple):
    """
    An attribute that an argument, or a part of it, comes from.

    :param place: The attribute.
    :param path: The way to the part; empty for the whole argument.
    """

    place: Place
    path: Path = ()


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


class Finding(NamedTuple):
    """
    What a probe found at a port.

    :param arrival: What arrived.
    :param wrong: For each hook of the port, the parts of the argument that were wrong.
    """

    arrival: Arrival
    wrong: tuple[frozenset[Path], ...]


Probe = Mapping[tuple[str, int], Finding]
"""What was found in one subnet, by :attr:`Port.key`."""


@dataclass(frozen=True)
class Port:
    """
    An argument of an operation that hooks change, or an attribute beside the operation.

    :param op: The operation.
    :param number: NNCF's port number, or :data:`~bootstrapnas_ext.graph.ir.ATTRIBUTE`.
    :param argument: As in :attr:`Hook.argument`.
    :param hooks: What changes the argument, in order.
    :param traced: The argument in the trace; a :class:`Ref` for a tensor.
    :param sources: Attributes that the argument, or all of it that hooks change, comes from; empty if the model's code
        makes it.
    :param unsteady: Whether the model's code computes the argument from what subnets change, and not as they need it.
    """

    op: Op
    number: int
    argument: str | None
    hooks: tuple[PortHook, ...]
    traced: Any
    sources: tuple[Source, ...]
    unsteady: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Site of the operation, and the port's number."""
        return self.op.site, self.number

    def changes(self) -> bool:
        """Returns whether the operation must get something else in the active subnet than in the trace."""
        return isinstance(self.traced, Ref) or not same(self.traced, self.change(self.traced))

    def rule(self, path: Path) -> Any:
        """
        Returns something that is equal for ports that change a part of their argument alike.

        :param path: The way to the part.
        """
        return next((hook.rules()[path] for hook in self.hooks if path in hook.rules()), self.hooks)

    def part(self, path: Path) -> Any:
        """
        Returns a part of what the operation gets in the active subnet instead of the number or tuple of the trace.

        :param path: The way to the part.
        """
        return part_of(self.change(self.traced), path)

    def limited_to(self, parts: Iterable[Sequence[Iterable[Path]]]) -> tuple[PortHook, ...]:
        """
        Returns hooks that leave alone what arrives right by itself.

        :param parts: For each of several subnets, what each hook found wrong; see :class:`Finding`.
        """
        by_hook = zip(self.hooks, zip(*parts, strict=True), strict=True)
        return tuple(hook.limited_to(frozenset(chain.from_iterable(found))) for hook, found in by_hook)

    def change(self, value: Any) -> Any:
        """
        Returns what the operation gets in the active subnet.

        :param value: The argument of the maximum subnet.
        """
        for hook in self.hooks:
            value = hook.forward(value)  # a call of the module would cost more than what it does
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
    by_port: dict[tuple[str, int, str | None], list[Hook]] = {}
    for hook in hooks:
        by_port.setdefault((hook.op, hook.port, hook.argument), []).append(hook)
    ports: list[Port] = []
    for (name, number, argument), found in by_port.items():
        if name not in graph.op_index:
            msg = f"A hook is meant for the operation {name!r}, which the model does not have."
            raise ModelError(msg)
        op = graph.ops[graph.op_index[name]]
        if number == ATTRIBUTE:
            owner = model.get_submodule(op.module)
            traced = getattr(owner, argument or "", None) if is_pytorchs(owner) else None
        else:
            _, traced = op.at_port(number)
        modules = tuple(hook.module for hook in found)
        if isinstance(traced, Ref):
            sources = [Source(place) for place in places.get(graph.values[traced.value].name, ())]
        else:
            sources = _sources(model, op, number, argument, traced, modules)
        ports.append(Port(op, number, argument, modules, traced, tuple(sources)))
    return tuple(_without_conflicts(graph, ports))


def _sources(
    model: nn.Module, op: Op, number: int, argument: str | None, traced: Any, hooks: Iterable[PortHook]
) -> list[Source]:
    """Returns the attributes of all parts of a number or tuple that hooks change; none if one part is no attribute."""
    parts = [path for hook in hooks for path in hook.rules()]
    if not parts:
        return []
    value = getattr(model.get_submodule(op.module), argument, None) if argument else None
    if argument and value is not None and same(value, traced):
        return [Source(Place(op.module, argument))]
    if number == ATTRIBUTE:
        return []
    start, _ = op.at_port(number)
    found = {path: op.places.get((start, *path)) for path in parts}
    sources = [Source(place, path) for path, place in found.items() if place is not None]
    return sources if len(sources) == len(found) else []


def _without_conflicts(graph: ModelGraph, ports: Sequence[Port]) -> Iterator[Port]:
    """
    Takes the attributes from ports if not all uses of an attribute need the same value.

    A norm without weights, for example, may be called with tensors of different widths.
    """
    hooks = {(port.op.name, port.number, port.argument): port.hooks for port in ports}
    calls: dict[tuple[str, str], list[Op]] = {}
    for op in graph.ops:
        calls.setdefault((op.module, op.kind), []).append(op)
    uses = Counter(place for op in graph.ops for place in op.places.values())
    rules: dict[Place, list[Any]] = {}
    for port in ports:
        for place, path in port.sources if port.number != ATTRIBUTE else ():
            rules.setdefault(place, []).append(port.rule(path))

    def is_like_others(port: Port, source: Source) -> bool:
        if source.place in uses and port.number != ATTRIBUTE:
            needed = rules[source.place]
            return len(needed) == uses[source.place] and all(rule == needed[0] for rule in needed)
        return all(
            hooks.get((op.name, port.number, port.argument)) == port.hooks for op in calls[port.op.module, port.op.kind]
        )

    for port in ports:
        alike = isinstance(port.traced, Ref) or all(is_like_others(port, source) for source in port.sources)
        yield port if alike else replace(port, sources=())


def _places_by_tensor(model: nn.Module) -> dict[str, list[Place]]:
    """Returns for each parameter and buffer, by the first of its names, all attributes that hold it."""
    first_name: dict[int, str] = {}
    places: dict[str, list[Place]] = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            path, _, attribute = name.rpartition(".")
            places.setdefault(first_name.setdefault(id(tensor), name), []).append(Place(path, attribute))
    return places


def is_pytorchs(module: nn.Module) -> bool:
    """Whether PyTorch wrote what the module does, so that its attributes mean what their names say."""
    forwards = [str(vars(kind)["forward"].__module__) for kind in type(module).__mro__ if "forward" in vars(kind)]
    own = next(name for name in forwards if not name.startswith("nncf."))  # NNCF 2 puts classes around others
    return own.startswith("torch.nn.")


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
