"""Where a config has this package's block: at the top level, or among NNCF's compression algorithms."""

from __future__ import annotations

from typing import Any

Path = tuple[str | int, ...]

BOOTSTRAP_NAS = "bootstrapNAS"
_ALGORITHMS = "compression"


def places(config: Any) -> list[Path]:
    """
    Returns the paths of all blocks of this package.

    :param config: A JSON-like dictionary.
    """
    if not isinstance(config, dict):
        return []
    own = [path for path, name in _algorithms(config) if name == BOOTSTRAP_NAS]
    return [(BOOTSTRAP_NAS,), *own] if BOOTSTRAP_NAS in config else own


def other_algorithms(config: dict[str, Any]) -> list[str]:
    """
    Returns the names of all compression algorithms but this package's.

    :param config: A JSON-like dictionary.
    """
    return [name for _, name in _algorithms(config) if name != BOOTSTRAP_NAS]


def at_top_level(config: dict[str, Any], place: Path) -> dict[str, Any]:
    """
    Returns a config with this package's block at the top level.

    :param config: A JSON-like dictionary.
    :param place: Where it has the block.
    """
    if place == (BOOTSTRAP_NAS,):
        return config
    rest = {key: value for key, value in config.items() if key != _ALGORITHMS}
    given = config[_ALGORITHMS]
    index = place[1] if len(place) > 1 else None
    own = given if index is None else given[index]
    others = [] if index is None else [entry for position, entry in enumerate(given) if position != index]
    block = {key: value for key, value in own.items() if key != "algorithm"}
    return {**rest, BOOTSTRAP_NAS: block, **({_ALGORITHMS: others} if others else {})}


def as_given(path: Path, place: Path) -> Path:
    """
    Returns the path of a key in the config that the user has given.

    :param path: Its path in the one with the block at the top level.
    :param place: Where the block was.
    """
    return (*place, *path[1:]) if path[:1] == (BOOTSTRAP_NAS,) else path


def _algorithms(config: dict[str, Any]) -> list[tuple[Path, str]]:
    """Returns path and name of each algorithm."""
    given = config.get(_ALGORITHMS)
    entries: list[tuple[Path, Any]] = [((_ALGORITHMS,), given)]
    if isinstance(given, list | tuple):
        entries = [((_ALGORITHMS, index), entry) for index, entry in enumerate(given)]
    named = [(path, entry.get("algorithm")) for path, entry in entries if isinstance(entry, dict)]
    return [(path, name) for path, name in named if isinstance(name, str)]
