"""Names that NNCF 2 gave to operations, found among those of a traced model.

NNCF 2 wrote the classes and the names of all modules around an operation, its function, and how often that had run in
its module before: ``ResNet/Sequential[layer1]/Bottleneck[1]/ReLU[relu]/relu__2``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import NamedTuple, TypeVar

from torch import nn

from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.config.rules import REGEX, Scopes, TopLevelScope, scope_list
from bootstrapnas_ext.elasticity.scopes import json_path
from bootstrapnas_ext.errors import ConfigError, warn
from bootstrapnas_ext.graph import ModelGraph, Op

_CLASS = r"[A-Za-z_]\w*"
_NAME = re.compile(rf"{_CLASS}(?P<modules>(/{_CLASS}\[[^\]/]+\])*)/(?P<function>\w+)_(?P<count>\d+)")
_MODULE = re.compile(rf"/{_CLASS}\[([^\]/]+)\]")

# Functions that have one name in NNCF 2's trace and another in that of NNCF 3. The other ones differ in underscores at
# most.
_FUNCTIONS = {"hardtanh": "relu6", "iadd": "add", "imul": "mul", "isub": "sub", "truediv": "div", "itruediv": "div"}
# What NNCF 2 called wrapped layers.
_PREFIX = "NNCF"
_WRAPPED = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)

Some = TypeVar("Some")


class _Place(NamedTuple):
    """Path of a module, a function without what its name says about overwriting, and how often that ran before."""

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
        self._places: dict[_Place, str] = {}
        counts: dict[tuple[str, str], int] = {}
        for op in graph.ops:
            function = _plain(op.kind)
            count = counts.get((op.module, function), 0)
            counts[op.module, function] = count + 1
            self._places[_Place(op.module, function, count)] = op.name
        for call in graph.single_calls:
            for function, count in _passed(graph, call.module):
                if call.outputs and call.outputs[0] in graph.producer:
                    maker = graph.ops[graph.producer[call.outputs[0]]].name
                    self._places.setdefault(_Place(call.module, _plain(function), count), maker)

    def find(self, name: str) -> str | None:
        """
        Returns today's name of an operation; ``None`` if it is none of NNCF 2's names, or the model has no such one.

        Classes do not count, since they may have been renamed since.

        :param name: A name as NNCF 2 gave it.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        path = ".".join(_MODULE.findall(found["modules"]))
        return self._places.get(_Place(path, _plain(found["function"]), int(found["count"])))

    def matching(self, pattern: str, model: nn.Module) -> list[str]:
        """
        Returns today's names of the operations in whose names of NNCF 2 a regular expression is found.

        :param pattern: The regular expression.
        :param model: The model, whose classes are part of those names.
        """
        return [op.name for op in self._graph.ops if re.search(pattern, _long_name(model, op))]


def _plain(function: str) -> str:
    plain = function.strip("_").lower()
    return _FUNCTIONS.get(plain, plain)


def _passed(graph: ModelGraph, module: str) -> Iterator[tuple[str, int]]:
    """Yields functions of a module that changed their input in place, and are no operations of today's graph."""
    for site in graph.passed:
        path, function, count = site.rsplit(":", 2)
        if path == module:
            yield function, int(count)


def _long_name(model: nn.Module, op: Op) -> str:
    steps = op.module.split(".") if op.module else []
    modules = [model.get_submodule(".".join(steps[: depth + 1])) for depth in range(len(steps))]
    classes = [f"{_PREFIX}{_class(module)}" if isinstance(module, _WRAPPED) else _class(module) for module in modules]
    parts = [f"{name}[{step}]" for name, step in zip(classes, steps, strict=True)]
    _, function, count = op.site.rsplit(":", 2)
    return "/".join([_class(model), *parts, f"{function}_{count}"])


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
    return scope not in graph.op_index and _NAME.fullmatch(scope) is not None


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
        replaced = {one: self._own(one, json_path(*path)) for one in given}
        old = {one: own for one, own in replaced.items() if own != (one,)}
        if old:
            first, own = next(iter(old.items()))
            more = f", and {len(old) - 1} more" if len(old) > 1 else ""
            shown = own[0] if len(own) == 1 else list(own)
            self.changes.append(f"{json_path(*path)}: has names of NNCF 2; write {shown!r} instead of {first!r}{more}")
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
