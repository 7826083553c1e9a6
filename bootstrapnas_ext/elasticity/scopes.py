"""Which layers a config means: its scopes, looked up among the operations of a model.

An elasticity asks with the names of the operations that make up one of its units: a group of channels, a kernel, or a
block.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.config.block import Path
from bootstrapnas_ext.config.rules import REGEX, TYPE, TopLevelScope, scope_list, suggest
from bootstrapnas_ext.config.validation import format_path
from bootstrapnas_ext.elasticity.base import layer_name
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.graph import ModelGraph, Op

Settings = TypeVar("Settings")

_ELASTICITY: Path = ("bootstrapNAS", "training", "elasticity")


class Exclusion:
    """
    What the scopes of a config leave out of one elastic dimension.

    :param graph: The traced model.
    :param config: Its own scopes count for all dimensions, those of its block for the dimension in addition.
    :param dimension: Name of the dimension.
    :raises ConfigError: If a scope names nothing in the model.
    """

    def __init__(self, graph: ModelGraph, config: ElasticityConfig, dimension: str) -> None:
        self._graph = graph
        self._ignored: dict[str, frozenset[str]] = {}
        self._targets: dict[str, frozenset[str]] = {}
        for key, scopes in (("ignored_scopes", self._ignored), ("target_scopes", self._targets)):
            for path, block in (((), config), ((dimension,), getattr(config, dimension, None))):
                for scope in scope_list(getattr(block, key, None)):
                    outer = isinstance(scope, TopLevelScope)
                    scopes[scope] = named_ops(graph, scope, format_path((key,)) if outer else json_path(*path, key))

    def reason(self, ops: Collection[str]) -> str | None:
        """
        Returns why a unit must stay as it is, ``None`` if it may be elastic.

        :param ops: Names of the operations that make it up.
        """
        for scope, ignored in self._ignored.items():
            found = ignored.intersection(ops)
            if found:
                part = "" if len(found) == len(set(ops)) else f" names {self._first(found)!r} of the same group"
                return f"ignored by `ignored_scopes` (entry {scope!r}{part})"
        if self._targets and all(targets.isdisjoint(ops) for targets in self._targets.values()):
            return "not among `target_scopes`"
        return None

    def _first(self, ops: Collection[str]) -> str:
        return layer_name(self._graph, min(ops, key=self._graph.op_index.__getitem__))


@dataclass(frozen=True)
class Override(Generic[Settings]):
    """
    Settings for some layers only.

    :param where: JSON path of the settings.
    :param ops: Names of the operations that they are for.
    :param settings: The settings.
    """

    where: str
    ops: frozenset[str]
    settings: Settings


def find_overrides(
    graph: ModelGraph, given: Mapping[str, Settings], dimension: str, layers: Collection[str]
) -> list[Override[Settings]]:
    """
    Returns the overrides of a dimension.

    :param graph: The traced model.
    :param given: Scope to settings.
    :param dimension: Name of the dimension.
    :param layers: Names of the operations that settings can be for.
    :raises ConfigError: If a scope names none of those.
    """
    found = []
    for scope, settings in given.items():
        where = json_path(dimension, "overrides", scope)
        ops = named_ops(graph, scope, where)
        if ops.isdisjoint(layers):
            msg = f"{where}: must name a layer with a {dimension}, but got {scope!r}; {_nearest(scope, layers)}"
            raise ConfigError(msg)
        found.append(Override(where, ops, settings))
    return found


def agreed(overrides: Iterable[Override[Settings]], ops: Collection[str], name: str) -> Override[Settings] | None:
    """
    Returns the override for a unit, ``None`` if there is none.

    :param overrides: All overrides of a dimension.
    :param ops: Names of the operations that make the unit up.
    :param name: Its name, for the message.
    :raises ConfigError: If two overrides say different things about it.
    """
    first: Override[Settings] | None = None
    for override in overrides:
        if override.ops.isdisjoint(ops):
            continue
        if first is not None and override.settings != first.settings:
            msg = (
                f"{override.where}: must say the same about {name!r} as {first.where}, because they share it, but got "
                f"{_given(override.settings)} and {_given(first.settings)}; remove one of them"
            )
            raise ConfigError(msg)
        first = first or override
    return first


def _given(settings: object) -> dict[str, object]:
    return {key: value for key, value in vars(settings).items() if value is not None}


def named_ops(graph: ModelGraph, scope: str, where: str) -> frozenset[str]:
    """
    Returns the names of all operations that a scope means.

    A regular expression is searched for in an operation's name and in the path of its module, as NNCF does.

    :param graph: The traced model.
    :param scope: As in :data:`bootstrapnas_ext.config.rules.Scope`.
    :param where: JSON path of it.
    :raises ConfigError: If the model has no such operation or module.
    """
    if scope.startswith(TYPE):
        kind = scope.removeprefix(TYPE)
        found = frozenset(op.name for op in graph.ops if op.kind == kind)
        hint = suggest(kind, sorted({op.kind for op in graph.ops}))
    elif scope.startswith(REGEX):
        pattern = _compiled(scope, where)
        found = frozenset(op.name for op in graph.ops if pattern.search(op.name) or pattern.search(op.module))
        hint = "names are paths of modules, such as 'layer1.0', and of operations, such as 'layer1/0/conv1/conv2d/0'"
    else:
        constants = {value.name: value.index for value in graph.values if value.is_constant}
        found = frozenset(
            op.name
            for op in graph.ops
            if scope == op.name or _is_below(op, scope) or constants.get(scope) in op.tensors
        )
        known = {*graph.op_index, *_modules(graph), *constants}
        if scope in known:
            return found  # perhaps a module that does nothing
        hint = _nearest(scope, known)
    if not found:
        msg = f"{where}: must name something in the model, but got {scope!r}, which names nothing; {hint}"
        raise ConfigError(msg)
    return found


def _is_below(op: Op, module: str) -> bool:
    return f"{op.module}.".startswith(f"{module}.")


def _modules(graph: ModelGraph) -> Iterator[str]:
    """Yields the paths of all modules that are called, and of those around them."""
    for path in {*(op.module for op in graph.ops), *(call.module for call in graph.calls)}:
        steps = path.split(".") if path else []
        yield from (".".join(steps[: count + 1]) for count in range(len(steps)))


def _nearest(scope: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(scope, sorted(known), n=1, cutoff=0)
    return f"did you mean {near[0]!r}?" if near else "the model has none"


def _compiled(scope: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(scope.removeprefix(REGEX))
    except re.error as error:
        msg = f"{where}: must be a regular expression after {REGEX!r}, but got {scope!r}: {error}"
        raise ConfigError(msg) from error


def json_path(*steps: str | int) -> str:
    """
    Returns the JSON path of a key of the elasticity.

    :param steps: Keys and indices below `elasticity`.
    """
    return format_path((*_ELASTICITY, *steps))
