"""The traced graph as a file for Graphviz."""

from __future__ import annotations

import json
from pathlib import Path

from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.graph import ModelGraph
from bootstrapnas_ext.writing import whole_file


def write_dot(graph: ModelGraph, path: Path) -> None:
    """
    Writes operations, parameters and shapes in the DOT language; ``dot -Tsvg`` draws it.

    :param graph: The traced model.
    :param path: Of the file; a file there is replaced, the folder is made if it is not there.
    :raises ConfigError: If it cannot be written.
    """
    lines = ["digraph model {", "  node [shape=box];"]
    for index, op in enumerate(graph.ops):
        lines.append(f"  op{index} [label={json.dumps(op.name)}];")
        for value in op.tensors:
            maker = graph.producer.get(value)
            source = f"value{value}" if maker is None else f"op{maker}"
            lines.append(f"  {source} -> op{index} [label={json.dumps(str(graph.values[value].shape))}];")
    used = {value for op in graph.ops for value in op.tensors}
    for item in graph.values:
        if item.index in used and item.index not in graph.producer:
            lines.append(f"  value{item.index} [label={json.dumps(item.name or item.source)}, style=rounded];")
    lines.append("}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        msg = f"The graph cannot be written to {path} ({error}); change `log_dir`, or pass dump_graphs=False."
        raise ConfigError(msg) from error
