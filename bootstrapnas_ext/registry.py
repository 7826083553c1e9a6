"""One small registry, for algorithms, elasticities, objectives and search algorithms."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from bootstrapnas_ext.errors import RegistryError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to entries, with errors that list what there is.

    .. code-block:: python

        >>> colours: Registry[int] = Registry("colour")
        >>> _ = colours.register("red")(0xFF0000)
        >>> hex(colours.get("red"))
        '0xff0000'

    :param kind: What the entries are, in the singular, for error messages.
    :param names: Gets every name that is registered: what checks a name without importing what is registered.
    """

    def __init__(self, kind: str, names: set[str] | None = None) -> None:
        self.kind = kind
        self._names = set() if names is None else names
        self._entries: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """
        Returns a decorator that registers its argument under each of the names.

        :param names: The names, at least one.
        :raises RegistryError: If a name is registered already.
        """

        def decorate(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    msg = f"A {self.kind} named {name!r} is registered already; choose another name."
                    raise RegistryError(msg)
                self._entries[name] = entry
                self._names.add(name)
            return entry

        return decorate

    def get(self, name: str) -> T:
        """
        Returns the entry of that name.

        :param name: A registered name.
        :raises RegistryError: If the name is not registered; the message names the nearest ones.
        """
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            msg = f"There is no {self.kind} named {name!r}.{hint} Registered: {', '.join(sorted(self._entries))}."
            raise RegistryError(msg)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
