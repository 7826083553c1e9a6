"""The JSON Schema of a config, made from the dataclasses: types, defaults, rules, and the text of their docstrings."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from bootstrapnas_ext.config.keys import TopLevel
from bootstrapnas_ext.config.rules import Rule

Schema = dict[str, Any]

_SCALARS = {int: "integer", float: "number", bool: "boolean", str: "string"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


@cache
def json_schema(keys: type = TopLevel) -> Schema:
    """
    Returns the schema (draft 2020-12) of an NNCF config.

    The top level is open, because a config also holds the keys of the user's own training code.

    :param keys: The dataclass of the top level.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NNCF config with a bootstrapNAS block",
        **schema_of(keys),
        "additionalProperties": True,
    }


def schema_of(hint: Any) -> Schema:
    """
    Returns the schema of a type.

    :param hint: A dataclass, a scalar, ``Literal``, ``tuple[X, ...]``, ``tuple[X, X]``, ``Mapping[str, X]``,
        ``X | None``, ``X | tuple[X, ...] | None``, or one of these with rules by ``Annotated``.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        rules = {rule.keyword: rule.value for rule in args[1:] if isinstance(rule, Rule)}
        return {**schema_of(args[0]), **rules}
    if origin in (Union, types.UnionType):
        return _union([schema_of(arg) for arg in args if arg is not types.NoneType])
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple:
        size = {} if args[-1] is Ellipsis else {"minItems": len(args), "maxItems": len(args)}
        return {"type": "array", "items": schema_of(args[0]), **size}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": schema_of(args[1])}
    if dataclasses.is_dataclass(hint):
        return _object(hint)
    return {"type": _SCALARS[hint]}


def _union(schemas: list[Schema]) -> Schema:
    """Returns the schema of what may be ``None``: of one type, or of one or an array of them."""
    if len(schemas) == 1:
        (schema,) = schemas
        key = "enum" if "enum" in schema else "type"
        allowed = schema[key] if isinstance(schema[key], list) else [schema[key]]
        return {**schema, key: [*allowed, None if key == "enum" else "null"]}
    one, array = schemas
    rest = {key: value for key, value in one.items() if key != "type"}  # so that a wrong type is one error
    # Unlike `anyOf`, a condition leaves errors where they are.
    return {"type": [one["type"], "array", "null"], "if": {"type": "array"}, "then": array, "else": rest}


def _object(cls: Any) -> Schema:
    """Returns the schema of a dataclass."""
    texts, hints = _param_texts(cls), get_type_hints(cls, include_extras=True)
    properties: Schema = {}
    required = []
    for field in dataclasses.fields(cls):
        described = {**schema_of(hints[field.name]), "description": texts[field.name]}
        if field.default is not dataclasses.MISSING:
            described["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
        elif field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        properties[field.name] = described
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _param_texts(cls: type) -> dict[str, str]:
    """Returns the ``:param x:`` texts of a class and those that it derives from, each on one line."""
    docs = "\n:\n".join(base.__doc__ or "" for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base))
    found = re.findall(r":param (\w+): (.*?)(?=\n\s*:|\Z)", docs, flags=re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def type_in_words(schema: Schema) -> str:
    """
    Returns what a value may be, for messages and tables, for example ``integer >= 1``.

    :param schema: The schema of the value.
    """
    if "enum" in schema:
        return "one of " + ", ".join(f'"{value}"' for value in schema["enum"] if value is not None)
    if "if" in schema:
        return f"{schema['type'][0]} or {type_in_words(schema['then'])}"
    name = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    if name == "array":
        size = f"{schema['minItems']} x " if "maxItems" in schema else ""
        return f"array of {size}{type_in_words(schema['items'])}"
    bounds = " and ".join(f"{sign} {schema[keyword]}" for keyword, sign in _BOUNDS.items() if keyword in schema)
    return f"{name} {bounds}" if bounds else str(name)


def objects(schema: Schema, path: str = "$") -> Iterator[tuple[str, Schema]]:
    """
    Yields the path and schema of every object with named keys, outer ones first.

    ``[]`` stands for any index and ``<name>`` for any key.

    :param schema: Where to begin.
    :param path: The path of that.
    """
    if "properties" in schema:
        yield path, schema
    for key, inner in schema.get("properties", {}).items():
        yield from objects(inner, f"{path}.{key}")
    if "if" in schema:
        yield from objects(schema["else"], path)
    if "items" in schema:
        yield from objects(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from objects(schema["additionalProperties"], f"{path}.<name>")
