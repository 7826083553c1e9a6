"""The texts that are made from the config dataclasses: the schema file, and the tables in ``docs/config.md``."""

from __future__ import annotations

import json
from typing import Any

from bootstrapnas_ext.config.schema import Schema, json_schema, objects, type_in_words
from bootstrapnas_ext.errors import ConfigError

BEGIN = "<!-- keys: begin; made by `make schema`, do not edit -->"
END = "<!-- keys: end -->"


def schema_text() -> str:
    """Returns the content of the schema file."""
    return json.dumps(json_schema(), indent=2) + "\n"


def documented(page: str) -> str:
    """
    Returns a page with fresh tables between its two marks.

    :param page: Markdown with the marks ``BEGIN`` and ``END``.
    :raises ConfigError: If a mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        msg = f"The page must have the lines {BEGIN!r} and {END!r}, between which the tables go"
        raise ConfigError(msg)
    return f"{before}{BEGIN}\n\n{key_tables()}\n{END}{after}"


def key_tables() -> str:
    """Returns a table of keys for every object of a config, in Markdown."""
    return "\n".join(f"### `{path}`\n\n{_table(schema)}" for path, schema in objects(json_schema()))


def _table(schema: Schema) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, inner in schema["properties"].items():
        default = "required" if key in schema.get("required", ()) else _default(inner)
        rows.append(f"| `{key}` | {type_in_words(inner)} | {default} | {inner['description']} |")
    return "\n".join(rows) + "\n"


def _default(schema: Schema) -> str:
    value: Any = schema.get("default")
    return "" if value is None else f"`{json.dumps(value)}`"
