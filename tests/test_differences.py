"""What differs between two values as JSON has them."""

from __future__ import annotations

from typing import Any

import pytest

from bootstrapnas_ext.differences import differences


@pytest.mark.parametrize(
    ("one", "two", "found"),
    [
        ({"a": 1, "b": [1, {"c": 2}]}, {"b": [1, {"c": 2}], "a": 1}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", 1, 2)]),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, [("a[1].b", 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]),
        ({"a": 1}, {"b": {"c": 1}}, [("a", 1, None), ("b", None, {"c": 1})]),
    ],
)
def test_the_way_to_each_difference(one: Any, two: Any, found: list[tuple[str, Any, Any]]) -> None:
    assert list(differences(one, two)) == found
