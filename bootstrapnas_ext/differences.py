"""What differs between two values as JSON has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def differences(one: Any, two: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """
    Yields the way to each difference, and what is there in both; ``None`` where a key is missing.

    .. code-block:: python

        >>> list(differences({"a": [1, 2]}, {"a": [1, 3], "b": 4}))
        [('a[1]', 2, 3), ('b', None, 4)]

    :param one: Dictionaries, lists and plain values.
    :param two: Others.
    :param where: The way to both.
    """
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in dict.fromkeys((*one, *two)):
            yield from differences(one.get(key), two.get(key), f"{where}.{key}" if where else key)
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for index, (item, other) in enumerate(zip(one, two, strict=True)):
            yield from differences(item, other, f"{where}[{index}]")
    elif one != two:
        yield where, one, two
