"""Names to entries."""

from __future__ import annotations

import pytest

from bootstrapnas_ext.errors import RegistryError
from bootstrapnas_ext.registry import Registry


@pytest.fixture
def colours() -> Registry[int]:
    registry: Registry[int] = Registry("colour")
    registry.register("red", "rouge")(1)
    registry.register("green")(2)
    return registry


def test_every_name_gives_the_entry(colours: Registry[int]) -> None:
    assert (colours.get("red"), colours.get("rouge"), colours.get("green")) == (1, 1, 2)
    assert list(colours) == ["red", "rouge", "green"]
    assert len(colours) == 3
    assert "red" in colours
    assert "blue" not in colours


def test_the_decorator_returns_what_it_registers() -> None:
    registry: Registry[type] = Registry("class")

    @registry.register("mine")
    class Mine:
        pass

    assert registry.get("mine") is Mine


def test_a_missing_name_is_answered_with_the_nearest_and_all_names(colours: Registry[int]) -> None:
    with pytest.raises(RegistryError, match=r"no colour named 'gren'\. Did you mean 'green'\?.*green, red, rouge"):
        colours.get("gren")
    with pytest.raises(RegistryError, match=r"no colour named 'xyz'\. Registered: green, red, rouge\."):
        colours.get("xyz")


def test_a_name_is_registered_once(colours: Registry[int]) -> None:
    with pytest.raises(RegistryError, match="A colour named 'red' is registered already"):
        colours.register("red")(3)
    assert colours.get("red") == 1


def test_names_are_told_to_whoever_cannot_import_the_registry() -> None:
    names = {"red"}
    Registry[int]("colour", names).register("green", "blue")(1)
    assert names == {"red", "green", "blue"}
