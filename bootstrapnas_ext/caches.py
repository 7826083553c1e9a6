"""Tensors that a model's code keeps in plain attributes of its modules, from one call to the next.

Such a cache is made for the subnet that ran, and another subnet needs another one. So calls begin with the attributes
as they were before the first call.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_DICTIONARIES = (dict, OrderedDict, defaultdict)


@dataclass(frozen=True)
class _Attribute:
    """
    What an attribute of a module held.

    :param module: The module.
    :param name: Name of the attribute.
    :param value: What it held, containers copied; missing if there was no such attribute.
    """

    module: nn.Module
    name: str
    value: Any

    def restore(self) -> None:
        home = self.module._buffers if self.name in self.module._buffers else vars(self.module)
        if self.value is _MISSING:
            home.pop(self.name, None)
        else:
            home[self.name] = _copied(self.value)


class _Missing(Enum):
    """Stands for an attribute that there was not; a copy of it is itself."""

    MISSING = auto()


_MISSING = _Missing.MISSING


class Caches:
    """
    Watches a model for attributes with tensors that its calls change.

    :param model: A model before its calls.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._before = {(module, name): _copied(value) for module, name, value in _attributes(model)}
        self._changed: dict[tuple[nn.Module, str], _Attribute] = {}

    def find(self) -> None:
        """Looks, after a call, at which attributes with tensors are others than before all calls."""
        now = {(module, name): value for module, name, value in _attributes(self._model)}
        for place in now.keys() | self._before.keys():
            before, after = self._before.get(place, _MISSING), now.get(place, _MISSING)
            if isinstance(before, Tensor) and place[1] in place[0]._buffers:
                continue  # a state of the model's own, which subnets share
            if not _same(before, after) and (_has_tensors(before) or _has_tensors(after)):
                self._changed[place] = _Attribute(*place, before)

    def reset(self) -> None:
        """Gives the attributes that were found what they held before all calls."""
        for attribute in self._changed.values():
            attribute.restore()


def _attributes(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in _OF_EVERY_MODULE:
                yield module, name, value
        for name, buffer in module._buffers.items():
            yield module, name, buffer


def _copied(value: Any) -> Any:
    """Returns a value with new dictionaries and lists, however deep, that hold the very same items."""
    if type(value) in _DICTIONARIES:
        new = copy.copy(value)
        new.update({key: _copied(item) for key, item in value.items()})
        return new
    if type(value) is list:
        return [_copied(item) for item in value]
    return value


def _same(one: Any, two: Any) -> bool:
    if type(one) in _DICTIONARIES and type(one) is type(two):
        return one.keys() == two.keys() and all(_same(item, two[key]) for key, item in one.items())
    if type(one) is list and type(two) is list:
        return len(one) == len(two) and all(map(_same, one, two))
    return one is two


def _has_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
