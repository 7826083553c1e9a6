"""The generated JSON Schema: it is what is committed and shipped, it is valid, and it agrees with the dataclasses."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.resources
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator

from bootstrapnas_ext.config import BootstrapNASConfig, json_schema
from bootstrapnas_ext.config.document import schema_text
from bootstrapnas_ext.config.rules import PositiveInt, Rule
from bootstrapnas_ext.config.schema import objects, schema_of, type_in_words

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "schemas" / "bootstrapnas.schema.json"


@dataclasses.dataclass(frozen=True)
class Inner:
    """
    Inside.

    :param size: A size.
    """

    size: PositiveInt


@dataclasses.dataclass(frozen=True)
class Outer:
    """
    Outside.

    :param one: One, with a text
        of two lines.
    :param pair: Two names.
    :param kind: A kind.
    :param names: A name, or several.
    """

    one: Inner | tuple[Inner, ...] | None = None
    pair: tuple[str, str] | None = None
    kind: Literal["a", "b"] = "a"
    names: str | tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Derived(Outer):
    """
    Outside, and more.

    :param kind: Another text.
    :param more: More.
    """

    more: bool = False


def all_defaults() -> dict[str, Any]:
    """A config that spells every default out."""
    typed = BootstrapNASConfig.from_nncf({"bootstrapNAS": {}})
    return {
        "bootstrapNAS": {"training": dataclasses.asdict(typed.training), "search": dataclasses.asdict(typed.search)}
    }


def test_committed_schema_is_the_generated_one() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run `make schema`"


def test_schema_is_shipped_as_package_data() -> None:
    try:
        importlib.metadata.distribution("bootstrapnas_ext")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    shipped = importlib.resources.files("bootstrapnas_ext.schemas") / SCHEMA.name
    assert json.loads(shipped.read_text(encoding="utf-8")) == json_schema()


def test_schema_is_valid() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_every_key_says_what_it_means() -> None:
    for path, schema in objects(json_schema()):
        for key, inner in schema["properties"].items():
            assert inner["description"].endswith("."), f"{path}.{key}"


def test_only_the_top_level_takes_other_keys() -> None:
    paths = {path: schema["additionalProperties"] for path, schema in objects(json_schema())}
    assert paths.pop("$") is True
    assert set(paths.values()) == {False}


def test_defaults_satisfy_the_schema_and_read_back_as_themselves() -> None:
    spelt_out = json.loads(json.dumps(all_defaults()))
    assert BootstrapNASConfig.from_nncf(spelt_out) == BootstrapNASConfig.from_nncf({"bootstrapNAS": {}})


def test_dataclass_becomes_an_object() -> None:
    schema = schema_of(Outer)
    assert schema["additionalProperties"] is False
    assert "required" not in schema
    assert schema["properties"]["kind"] == {"enum": ["a", "b"], "description": "A kind.", "default": "a"}
    assert schema["properties"]["pair"] == {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "minItems": 2,
        "maxItems": 2,
        "description": "Two names.",
        "default": None,
    }
    assert schema["properties"]["one"]["description"] == "One, with a text of two lines."


@pytest.mark.parametrize(
    ("value", "valid"),
    [({"size": 1}, True), ([{"size": 1}], True), (None, True), ({}, False), (3, False), ([3], False)],
)
def test_one_or_several(value: object, valid: bool) -> None:
    assert Draft202012Validator(schema_of(Outer)).is_valid({"one": value}) is valid


@pytest.mark.parametrize(("value", "valid"), [("a", True), (["a", "b"], True), (None, True), (3, False), ([3], False)])
def test_a_string_or_several(value: object, valid: bool) -> None:
    assert Draft202012Validator(schema_of(Outer)).is_valid({"names": value}) is valid


def test_texts_of_a_derived_dataclass() -> None:
    texts = {key: schema["description"] for key, schema in schema_of(Derived)["properties"].items()}
    assert (texts["pair"], texts["kind"], texts["more"]) == ("Two names.", "Another text.", "More.")


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (PositiveInt | None, "integer >= 1"),
        (Annotated[float, Rule("exclusiveMinimum", 0), Rule("maximum", 1)], "number > 0 and <= 1"),
        (tuple[tuple[str, str], ...], "array of array of 2 x string"),
        (Literal["a", "b"] | None, 'one of "a", "b"'),
        (bool, "boolean"),
        (str | tuple[str, ...] | None, "string or array of string"),
        (Inner | tuple[Inner, ...] | None, "object or array of object"),
    ],
)
def test_type_in_words(hint: object, words: str) -> None:
    assert type_in_words(schema_of(hint)) == words


def test_config_does_not_import_torch() -> None:
    code = "import sys, bootstrapnas_ext.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
