"""How the model's code writes an operation: a function mode sees ``x + y`` and ``x.add(y)`` as the same function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

_BINARY = ("add", "sub", "mul", "truediv", "div", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
_OTHERS = ("abs", "neg", "invert", "eq", "ne", "lt", "le", "gt", "ge")
OPERATORS = tuple(
    name
    for name in (*(f"__{side}{stem}__" for stem in _BINARY for side in ("", "i", "r")), *(f"__{x}__" for x in _OTHERS))
    if hasattr(torch.Tensor, name)
)
"""Methods behind Python's operators, those whose functions have other names."""


@contextmanager
def operators_told(tell: Callable[[str | None], None]) -> Iterator[None]:
    """
    Tells of each operator on tensors, for the length of a ``with`` block.

    :param tell: Called with the name of the operator's method before it runs, and with ``None`` after.
    """
    given = {name: method for name, method in vars(torch.Tensor).items() if name in OPERATORS}
    for name in OPERATORS:
        setattr(torch.Tensor, name, _telling(tell, name, getattr(torch.Tensor, name)))
    try:
        yield
    finally:
        for name in OPERATORS:
            if name in given:
                setattr(torch.Tensor, name, given[name])
            else:
                delattr(torch.Tensor, name)


def _telling(tell: Callable[[str | None], None], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def told(*args: Any) -> Any:
        tell(name)
        try:
            return method(*args)
        finally:
            tell(None)

    return told
