"""Attributes of modules that have other values while a subnet runs: parts of weights, numbers that follow them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bootstrapnas_ext.graph import ModelGraph, Path, Place, Ref
from bootstrapnas_ext.ports import Port
from bootstrapnas_ext.space import Subnet


@dataclass(frozen=True)
class _Attribute:
    """
    An attribute that subnets change.

    :param name: Its name.
    :param owner: The module that has it.
    :param port: An argument that comes from it; hooks of all such arguments do the same.
    :param path: The part of the argument that it is.
    :param ops: Indices of all operations that get it.
    """

    name: str
    owner: nn.Module
    port: Port
    path: Path
    ops: frozenset[int]

    @property
    def home(self) -> dict[str, Any]:
        """Where its value is shadowed."""
        return _home(self.owner, self.name)

    def whole(self) -> Any:
        """Returns its value in the maximum subnet."""
        owner, name = self.owner, self.name
        for held in (owner._parameters, owner._buffers):  # quicker than getattr
            if held.get(name) is not None:
                return held[name]
        return getattr(owner, name)

    def part(self) -> Any:
        """Returns its value in the active subnet."""
        # Numbers are those of the trace; a call of the hook, a module, would cost more than what it does.
        return self.port.change(self.whole()) if isinstance(self.port.traced, Ref) else self.port.part(self.path)


class _Kept(NamedTuple):
    """
    A value for the next forward of the same subnet.

    :param attribute: Of which it is the value.
    :param value: The value itself.
    :param whole: That of the maximum subnet.
    :param memory: Where the whole is in memory; 0 if it is no tensor.
    :param is_view: Whether the value is a part of that memory, and so sees what becomes of the whole.
    """

    attribute: _Attribute
    value: Any
    whole: Any
    memory: int
    is_view: bool

    def now(self) -> _Kept:
        """Returns it with the value that it has now: itself, if that is a view."""
        if not self.memory:
            return self
        whole = self.attribute.whole()
        if whole is not self.whole or whole.data_ptr() != self.memory:
            return _value_of(self.attribute)
        return self if self.is_view else self._replace(value=self.attribute.part())


class Shadows:
    """
    The attributes that subnets change, and their values in the active one.

    :param model: The model.
    :param graph: Its trace.
    :param ports: Hooked arguments; those without sources are left to function hooks.
    """

    def __init__(self, model: nn.Module, graph: ModelGraph, ports: Sequence[Port]) -> None:
        ops: dict[Place, set[int]] = {}
        for port in ports:
            for source in port.sources:
                ops.setdefault(source.place, set()).add(graph.op_index[port.op.name])
        # Looking a module up by its path on every forward would cost more than slicing its weight.
        self._attributes = {
            place: _Attribute(place.attribute, model.get_submodule(place.module), port, path, frozenset(ops[place]))
            for port in reversed(ports)
            for place, path in port.sources
        }
        self._kept: tuple[Subnet | None, bool, list[_Kept]] = (None, False, [])

    @property
    def places(self) -> frozenset[Place]:
        """The attributes."""
        return frozenset(self._attributes)

    @property
    def numbers(self) -> list[tuple[Place, nn.Module]]:
        """The attributes that are no tensors, with the modules that have them."""
        found = self._attributes.items()
        return [(place, one.owner) for place, one in found if not isinstance(one.port.traced, Ref)]

    def values(self) -> dict[Place, Any]:
        """Returns the value of each attribute in the active subnet."""
        return {place: attribute.part() for place, attribute in self._attributes.items()}

    @contextmanager
    def cast(self, subnet: Subnet, unused: Container[int]) -> Iterator[None]:
        """
        Gives the attributes their values in the active subnet for a while.

        What the model writes into parts of buffers, or in their place, goes into the buffers.

        :param subnet: The active subnet.
        :param unused: Indices of operations that do not run.
        """
        kept = self._values(subnet, unused)
        with swapped([(one.attribute.home, one.attribute.name, one.value) for one in kept]):
            yield
            written = [
                (one, buffers[attribute.name])
                for one in kept
                if (attribute := one.attribute).name in (buffers := attribute.owner._buffers)
            ]
        for one, part in written:
            _write_back(one, part)

    def _values(self, subnet: Subnet, unused: Container[int]) -> list[_Kept]:
        """Returns values; without gradients, views of the weights are those of the last time."""
        # The exporter of NNCF 2 must see where views come from.
        if torch.is_grad_enabled() or torch._C._is_tracing():
            return [_value_of(one) for one in self._used(unused)]
        inference = torch.is_inference_mode_enabled()  # its tensors are no others'
        before, mode, kept = self._kept
        if before is not subnet or mode is not inference:
            kept = [_value_of(one) for one in self._used(unused)]
        else:
            kept = [one.now() for one in kept]
        self._kept = (subnet, inference, kept)
        return kept

    def _used(self, unused: Container[int]) -> Iterator[_Attribute]:
        return (one for one in self._attributes.values() if not all(op in unused for op in one.ops))


def _value_of(attribute: _Attribute) -> _Kept:
    whole, value = attribute.whole(), attribute.part()
    if not isinstance(whole, Tensor):
        return _Kept(attribute, value, whole, 0, False)
    is_view = value.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    return _Kept(attribute, value, whole, whole.data_ptr(), is_view)


def _write_back(one: _Kept, part: Any) -> None:
    is_another = part is not one.value and isinstance(part, Tensor) and part.shape == one.value.shape
    # BatchNorm does not mark its statistics as changed, so it is the mode that tells that they may be.
    if is_another or (one.attribute.owner.training and not one.is_view):
        with torch.no_grad():
            for hook in one.attribute.port.hooks:
                hook.write_back(one.whole, part)


def _home(owner: nn.Module, attribute: str) -> dict[str, Any]:
    """Returns where a module keeps what may be shadowed; its code may assign buffers, but no parameters."""
    buffers = owner._buffers
    return buffers if attribute in buffers else owner.__dict__


@contextmanager
def shadowed(model: nn.Module, values: Mapping[Place, Any]) -> Iterator[None]:
    """
    Gives attributes of modules other values for a while; parameters and buffers stay registered as they are.

    :param model: The model.
    :param values: Attribute to value.
    """
    owners = {place: model.get_submodule(place.module) for place in values}
    with swapped((_home(owners[place], place.attribute), place.attribute, value) for place, value in values.items()):
        yield


@contextmanager
def swapped(items: Iterable[tuple[dict[str, Any], str, Any]]) -> Iterator[None]:
    """
    Puts values into dictionaries under names, and what was there back at the end.

    :param items: Dictionaries, names and values.
    """
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
