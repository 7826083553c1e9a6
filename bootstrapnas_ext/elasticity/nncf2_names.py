"""Names that NNCF 2 gave to operations, found among those of a traced model.

NNCF 2 wrote the classes and the names of all modules around an operation, its function, and how often that had run in
its module before: ``ResNet/Sequential[layer1]/Bottleneck[1]/ReLU[relu]/relu__2``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import NamedTuple, TypeVar

from torch import nn

from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.config.rules import REGEX, Scopes, TopLevelScope, scope_list
from bootstrapnas_ext.config.validation import format_path
from bootstrapnas_ext.elasticity.scopes import json_path
from bootstrapnas_ext.errors import ConfigError, warn
from bootstrapnas_ext.graph import ModelGraph

_CLASS = r"[A-Za-z_]\w*"
_NAME = re.compile(rf"{_CLASS}(?P<modules>(/{_CLASS}\[[^\]/]+\])*)/(?P<function>\w+)_(?P<count>\d+)")
_MODULE = re.compile(rf"/{_CLASS}\[([^\]/]+)\]")
_INPUT = re.compile(r"/nncf_model_input_(\d+)")

# What NNCF 2 called wrapped layers.
_PREFIX = "NNCF"
_WRAPPED = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)

Some = TypeVar("Some")


class _Place(NamedTuple):
    """Path of a module, a function as the module's code writes it, and how often it ran there before."""

    module: str
    function: str
    before: int


class NNCF2Names:
    """
    NNCF 2's names of a model's operations.

    :param graph: The traced model.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        self._inputs = dict(enumerate(value.name for value in graph.values if value.source == "input"))
        self._places = {_place(graph, op.site): op.name for op in graph.ops}
        for site, value in graph.passed.items():
            if value in graph.producer:  # what returns its argument stands for what that comes from
                self._places[_place(graph, site)] = graph.ops[graph.producer[value]].name

    def find(self, name: str) -> str | None:
        """
        Returns today's name of an operation, or of an input of the model; ``None`` if it is none of NNCF 2's names, or
        the model has no such one.

        Classes do not count, since they may have been renamed since.

        :param name: A name as NNCF 2 gave it.
        """
        number = _INPUT.fullmatch(name)
        if number is not None:
            return self._inputs.get(int(number[1]))
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        path = ".".join(_MODULE.findall(found["modules"]))
        return self._places.get(_Place(path, found["function"], int(found["count"])))

    def matching(self, pattern: str, model: nn.Module) -> list[str]:
        """
        Returns today's names of the operations in whose names of NNCF 2 a regular expression is found.

        :param pattern: The regular expression.
        :param model: The model, whose classes are part of those names.
        """
        return [
            op.name for op in self._graph.ops if re.search(pattern, _long_name(model, _place(self._graph, op.site)))
        ]


def _place(graph: ModelGraph, site: str) -> _Place:
    module, function, count = graph.spelled[site].rsplit(":", 2)
    if not function.startswith("__"):
        function = function.lstrip("_")  # NNCF 2 wraps what calls a function that PyTorch means for itself alone
    return _Place(module, function, int(count))


def _long_name(model: nn.Module, place: _Place) -> str:
    steps = place.module.split(".") if place.module else []
    modules = [model.get_submodule(".".join(steps[: depth + 1])) for depth in range(len(steps))]
    classes = [f"{_PREFIX}{_class(module)}" if isinstance(module, _WRAPPED) else _class(module) for module in modules]
    parts = [f"{name}[{step}]" for name, step in zip(classes, steps, strict=True)]
    return "/".join([_class(model), *parts, f"{place.function}_{place.before}"])


def _class(module: nn.Module) -> str:
    return type(module).__name__


def with_own_names(config: ElasticityConfig, model: nn.Module, graph: ModelGraph) -> ElasticityConfig:
    """
    Returns the config with this graph's names in place of those of NNCF 2, after one warning for each key with such.

    :param config: The config.
    :param model: The model.
    :param graph: Its trace.
    :raises ConfigError: If a name is one that NNCF 2 gave to an operation of another model.
    """
    if not any(_may_be_old(scope, graph) for scope in _all_scopes(config)):
        return config
    reader = _Reader(model, graph)
    result = reader.config(config)
    for sentence in reader.changes:
        warn(sentence)
    return result


def _may_be_old(scope: str, graph: ModelGraph) -> bool:
    if scope.startswith(REGEX):
        try:
            pattern = re.compile(scope.removeprefix(REGEX))
        except re.error:
            return False  # an error of its own, where the scope is looked up
        return not any(pattern.search(op.name) or pattern.search(op.module) for op in graph.ops)
    return scope not in graph.op_index and any(pattern.fullmatch(scope) for pattern in (_NAME, _INPUT))


def _all_scopes(config: ElasticityConfig) -> Iterable[str]:
    for part in (config, config.width, config.depth, config.kernel):
        yield from scope_list(part.ignored_scopes)
        yield from scope_list(part.target_scopes)
    for group in config.width.overwrite_groups or ():
        yield from group
    for block in config.depth.skipped_blocks or ():
        yield from block


class _Reader:
    """Replaces names, and says for each key what it did."""

    def __init__(self, model: nn.Module, graph: ModelGraph) -> None:
        self.changes: list[str] = []
        self._model = model
        self._graph = graph
        self._names = NNCF2Names(graph)

    def config(self, config: ElasticityConfig) -> ElasticityConfig:
        width, depth, kernel = config.width, config.depth, config.kernel
        if width.overwrite_groups is not None:
            replaced = self._key(("width", "overwrite_groups"), chain.from_iterable(width.overwrite_groups))
            groups = tuple(tuple(replaced[one][0] for one in group) for group in width.overwrite_groups)
            width = replace(width, overwrite_groups=groups)
        if depth.skipped_blocks is not None:
            replaced = self._key(("depth", "skipped_blocks"), chain.from_iterable(depth.skipped_blocks))
            blocks = tuple((replaced[before][0], replaced[last][0]) for before, last in depth.skipped_blocks)
            depth = replace(depth, skipped_blocks=blocks)
        return replace(
            self._scoped(config, ()),
            width=self._scoped(width, ("width",)),
            depth=self._scoped(depth, ("depth",)),
            kernel=self._scoped(kernel, ("kernel",)),
        )

    def _scoped(self, part: Some, path: tuple[str, ...]) -> Some:
        changed = {key: self._scopes((*path, key), getattr(part, key)) for key in ("ignored_scopes", "target_scopes")}
        return replace(part, **changed)  # type: ignore[type-var]  # every part is a dataclass with these keys

    def _scopes(self, path: tuple[str, ...], scopes: Scopes) -> Scopes:
        given = scope_list(scopes)
        replaced = self._key(path, given)
        found = [
            TopLevelScope(own) if isinstance(one, TopLevelScope) else own for one in given for own in replaced[one]
        ]
        return tuple(found) if scopes is not None else None

    def _key(self, path: tuple[str, ...], given: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
        """Returns what each name of a key is replaced by: itself, if it is none of NNCF 2's."""
        replaced: dict[str, tuple[str, ...]] = {}
        changes: dict[str, list[str]] = {}
        for one in given:
            where = format_path(path[-1:]) if isinstance(one, TopLevelScope) else json_path(*path)
            own = replaced[one] = self._own(one, where)
            if own != (one,):
                shown = own[0] if len(own) == 1 else list(own)
                changes.setdefault(where, []).append(f"{shown!r} instead of {one!r}")
        for where, pairs in changes.items():
            self.changes.append(f"{where}: has names of NNCF 2; write {', '.join(dict.fromkeys(pairs))}")
        return replaced

    def _own(self, name: str, where: str) -> tuple[str, ...]:
        if not _may_be_old(name, self._graph):
            return (name,)
        if name.startswith(REGEX):
            return tuple(self._names.matching(name.removeprefix(REGEX), self._model)) or (name,)
        own = self._names.find(name)
        if own is None:
            msg = (
                f"{where}: must name operations of the model, but got {name!r}, a name of NNCF 2 that fits none of "
                "them; give the model that the config was written for, or names of `supernet.graph.ops`"
            )
            raise ConfigError(msg)
        return (own,)
