"""Which settings for single layers a super-network could not follow, because the model's own code does not let it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.elasticity.base import layer_name
from bootstrapnas_ext.elasticity.scopes import json_path, named_ops
from bootstrapnas_ext.graph import ModelGraph, Op
from bootstrapnas_ext.supernet import Supernet


def unheeded_settings(supernet: Supernet, config: ElasticityConfig) -> list[str]:
    """
    Returns a sentence for each setting of the config that names a layer or block which trials have shown to be static.

    :param supernet: The super-network.
    :param config: What it was made with.
    """
    reasons = set(supernet.refused.values())
    graph = supernet.graph
    sentences = []
    for dimension, path, scopes in _settings(config) if reasons else ():
        static = supernet.static_layers().get(dimension, {})
        where = json_path(dimension, *path)
        ops = [graph.ops[graph.op_index[name]] for scope in scopes for name in named_ops(graph, scope, where)]
        names = {op.name for op in ops} | (_around(ops) if dimension == "depth" else _layers(graph, ops))
        refused = [name for name in static if static[name] in reasons and name in names]
        if refused:
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            sentences.append(f"{where} is without effect on {refused[0]!r}{more}: {static[refused[0]]}")
    return sentences


def _settings(config: ElasticityConfig) -> Iterator[tuple[str, tuple[str | int, ...], Sequence[str]]]:
    """Yields dimension, path below it, and scopes of each setting for single layers."""
    for scope in config.width.overrides:
        yield "width", ("overrides", scope), (scope,)
    for index, group in enumerate(config.width.overwrite_groups or ()):
        yield "width", ("overwrite_groups", index), group
    for scope in config.kernel.overrides:
        yield "kernel", ("overrides", scope), (scope,)
    for index, (_, last) in enumerate(config.depth.skipped_blocks or ()):
        yield "depth", ("skipped_blocks", index), (last,)


def _layers(graph: ModelGraph, ops: Sequence[Op]) -> set[str]:
    return {layer_name(graph, op.name) for op in ops}


def _around(ops: Sequence[Op]) -> set[str]:
    """Returns the modules that operations are in: a block may be any of them."""
    paths = [op.module.split(".") for op in ops]
    return {".".join(path[:count]) for path in paths for count in range(1, len(path) + 1)}
