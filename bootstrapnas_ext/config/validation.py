"""Checks a config against the schema and the rules across keys, and reads it into the dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from bootstrapnas_ext.config.block import BOOTSTRAP_NAS, Path, as_given
from bootstrapnas_ext.config.keys import TopLevel
from bootstrapnas_ext.config.rules import Checked, HasRules, Violation, suggest
from bootstrapnas_ext.config.schema import Schema, json_schema, objects, type_in_words
from bootstrapnas_ext.errors import ConfigError

Keys = TypeVar("Keys", bound=TopLevel)

_LONGEST_VALUE = 80

# A Python caller may write tuples for arrays. NaN and infinity are not JSON.
_Validator = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "array": lambda _, value: isinstance(value, list | tuple),
            "number": lambda _, value: (
                isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            ),
        }
    ),
)

# The other keywords are told by `type_in_words`.
_MESSAGES = {
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "uniqueItems": "must not repeat an item",
}


def read_config(config: Any, source: str = "", place: Path = (BOOTSTRAP_NAS,)) -> TopLevel:
    """
    Checks a config and returns the keys that this package reads.

    :param config: A JSON-like dictionary.
    :param source: What the lines of an error begin with, for example a file name.
    :param place: Where the block of this package was in the config that the user has given.
    :raises ConfigError: With one line for each violation; those that cause others come first.
    """
    return read_keys(TopLevel, config, source, place)


def read_keys(keys: type[Keys], config: Any, source: str = "", place: Path = (BOOTSTRAP_NAS,)) -> Keys:
    """
    Checks a config that may have keys of a program's own beside those of this package, and returns them.

    :param keys: A dataclass derived from :class:`TopLevel`, or that itself.
    :param config: A JSON-like dictionary.
    :param source: What the lines of an error begin with, for example a file name.
    :param place: Where the block of this package was in the config that the user has given.
    :raises ConfigError: With one line for each violation; those that cause others come first.
    """
    schema = json_schema(cast(type, keys))  # mypy does not see that a class is hashable
    errors = list(_Validator(schema).iter_errors(config))
    unknown = [*_misspelt_keys(config, schema), *_unknown_keys(errors, schema)]
    wrong = [Violation(tuple(error.absolute_path), _message(error)) for error in errors if not _is_unknown_key(error)]
    reader = _Reader([*unknown, *wrong])
    result = reader.read(keys, config, ())
    if reader.violations:
        prefix = f"{source}: " if source else ""
        lines = [f"{prefix}{format_path(as_given(path, place))}: {message}" for path, message in reader.violations]
        raise ConfigError("\n".join(lines))
    return cast(Keys, result)


def format_path(path: Path) -> str:
    """
    Returns a JSON path, for example ``$.schedule.list_stage_descriptions[1].epochs``.

    :param path: Keys and indices.
    """
    return "$" + "".join(
        f".{step}" if str(step).isidentifier() else f"[{step!r}]"  # also an index: an integer is no identifier
        for step in path
    )


def _is_unknown_key(error: ValidationError) -> bool:
    return bool(error.validator == "additionalProperties")


def _unknown_keys(errors: list[ValidationError], whole: Schema) -> Iterator[Violation]:
    for error in filter(_is_unknown_key, errors):
        known = cast(Schema, error.schema)["properties"]
        for key, value in cast(Schema, error.instance).items():
            if key not in known:
                message = f"unknown key, with the value {_shorten(value)}; {_where_else(key, known, whole)}"
                yield Violation((*error.absolute_path, key), message)


def _where_else(key: str, known: Schema, whole: Schema) -> str:
    """Returns where the key belongs, if it has its exact name elsewhere, or else the nearest key here."""
    places = [path for path, schema in objects(whole) if key in schema["properties"]]
    return f"it belongs in {' or '.join(places)}" if places else suggest(key, known)


def _misspelt_keys(config: Any, whole: Schema) -> Iterator[Violation]:
    """Yields the open top level's keys that are nearly one of ours which is missing."""
    if not isinstance(config, dict):
        return
    known = whole["properties"]
    missing = {name.lower(): name for name in known if name not in config}
    for key in config:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key).lower(), missing, n=1, cutoff=0.8)
        if near:
            yield Violation((key,), f"unknown key; did you mean {missing[near[0]]!r}?")


def _message(error: ValidationError) -> str:
    schema, keyword = cast(Schema, error.schema), str(error.validator)
    value = _shorten(error.instance)
    if keyword == "required":
        return f"must have the keys {schema['required']}, but got {value}"
    rule = _MESSAGES.get(keyword, "").format(schema[keyword]) or f"must be {_with_article(type_in_words(schema))}"
    near = difflib.get_close_matches(str(error.instance), map(str, schema.get("enum", ())), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    meaning = f" ({schema['description']})" if "description" in schema else ""
    return f"{rule}, but got {value}{hint}{meaning}"


def _with_article(words: str) -> str:
    return words if words.startswith("one of") else f"{'an' if words[0] in 'aio' else 'a'} {words}"


def _shorten(value: Any) -> str:
    text = json.dumps(value, default=repr, skipkeys=True)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


class _Reader:
    """
    Reads JSON-like values into config types and collects what the rules across keys find.

    :param violations: What the schema found. Dataclasses with such a violation below them are not built, so that their
        rules do not judge defaults which the config did not mean.
    """

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        self._broken = [violation.path for violation in violations]

    def read(self, hint: Any, raw: Any, path: Path) -> Any:
        origin, args = get_origin(hint), get_args(hint)
        if raw is None or path in self._broken:
            return None
        if origin is Annotated:
            self._check(args[1:], raw, path)
            return self.read(args[0], raw, path)
        if origin in (Union, types.UnionType):
            return self.read(_pick(args, raw), raw, path)
        if origin is tuple:
            return tuple(self.read(args[0], item, (*path, index)) for index, item in enumerate(raw))
        if origin is Mapping:
            return {self.read(args[0], key, (*path, key)): self.read(args[1], raw[key], (*path, key)) for key in raw}
        if dataclasses.is_dataclass(hint):
            return self._read_dataclass(hint, raw, path)
        return hint(raw) if hint in (int, float) else raw

    def _check(self, annotations: tuple[Any, ...], raw: Any, path: Path) -> None:
        for rule in annotations:
            message = rule.complaint(raw) if isinstance(rule, Checked) else None
            if message is not None:
                self.violations.append(Violation(path, message))
                self._broken.append(path)

    def _read_dataclass(self, cls: Any, raw: dict[str, Any], path: Path) -> Any:
        hints, values = get_type_hints(cls, include_extras=True), {}
        for field in dataclasses.fields(cls):
            if field.name in raw:
                values[field.name] = self.read(hints[field.name], raw[field.name], (*path, field.name))
        if any(broken[: len(path)] == path for broken in self._broken):
            return None
        result = cls(**values)
        if isinstance(result, HasRules):
            self.violations += [Violation((*path, *inner), message) for inner, message in result.violations()]
        return result


def _pick(args: tuple[Any, ...], raw: Any) -> Any:
    """Returns the part of ``X | None`` or ``X | tuple[X, ...] | None`` that the value is for."""
    parts = [arg for arg in args if arg is not types.NoneType]
    return parts[isinstance(raw, list | tuple)] if len(parts) > 1 else parts[0]
