"""Tells where the integers among the arguments of operations come from.

During the trace, integers in plain attributes of modules know their place. What the model's code computes from one of
them is an ordinary integer again, so an argument that still knows its place is that attribute and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from bootstrapnas_ext.graph import Path, Place


class MarkedInt(int):
    """
    An integer that is an attribute.

    :ivar place: The attribute.
    """

    place: Place


@contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """
    Lets all integers in plain attributes of a model's modules know their place for a while.

    :param model: The model.
    """
    marks: list[tuple[dict[str, Any], str, MarkedInt]] = []
    for path, module in model.named_modules():
        attributes = vars(module)
        for name, value in attributes.items():
            if type(value) is int:
                mark = MarkedInt(value)
                mark.place = Place(path, name)
                marks.append((attributes, name, mark))
    for attributes, name, mark in marks:
        attributes[name] = mark
    try:
        yield
    finally:
        for attributes, name, mark in marks:
            if attributes.get(name) is mark:  # the model's code may have assigned another
                attributes[name] = int(mark)


def without_mark(leaf: Any) -> Any:
    """
    Returns an argument with ordinary integers.

    :param leaf: Anything but a tuple, list or dictionary.
    """
    if isinstance(leaf, slice):
        return slice(*map(without_mark, _bounds(leaf).values()))
    return int(leaf) if isinstance(leaf, MarkedInt) else leaf


def places(tree: Any) -> dict[Path, Place]:
    """
    Returns where in arguments there are attributes.

    :param tree: Arguments, however deeply nested.
    """
    found: dict[Path, Place] = {}
    if not any(isinstance(leaf, (MarkedInt, slice)) for leaf in pytree.tree_leaves(tree)):
        return found
    for keys, leaf in pytree.tree_flatten_with_path(tree)[0]:
        path = tuple(getattr(key, "idx", getattr(key, "key", "")) for key in keys)
        bounds = _bounds(leaf) if isinstance(leaf, slice) else {}
        parts = {(*path, name): bound for name, bound in bounds.items()} or {path: leaf}
        found.update({at: part.place for at, part in parts.items() if isinstance(part, MarkedInt)})
    return found


def _bounds(leaf: slice) -> dict[str, Any]:
    return {"start": leaf.start, "stop": leaf.stop, "step": leaf.step}
