"""Names of operations that do not depend on how modules are nested: the module's path, the function, a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Sites:
    """
    Numbers the calls of each function in each module.

    :param model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._paths: dict[int, str] = {id(module): name for name, module in model.named_modules()}
        self.calls: Counter[str] = Counter()

    def path(self, module: nn.Module) -> str:
        """Returns the dotted path of a module."""
        return self._paths.get(id(module), "")

    def stem(self, module: nn.Module, function: str) -> str:
        """Returns a site without its number."""
        return f"{self.path(module)}:{function}"

    def next(self, module: nn.Module, function: str) -> str:
        """Returns the site of the next call, and counts it."""
        site = self.peek(module, function)
        self.calls[self.stem(module, function)] += 1
        return site

    def peek(self, module: nn.Module, function: str) -> str:
        """Returns the site of the next call."""
        stem = self.stem(module, function)
        return f"{stem}:{self.calls[stem]}"


def function_name(function: Callable[..., Any]) -> str:
    """
    Returns the name by which rules know a function; that of a library's own operation tells the library, too.

    :param function: What a function mode is called with.
    """
    if isinstance(function, torch._ops.OpOverload):
        function = function.overloadpacket
    if isinstance(function, torch._ops.OpOverloadPacket):
        library, _, name = function._qualified_op_name.partition("::")
        return name if library == "aten" else f"{library}::{name}"
    if function.__name__ == "__get__":  # reading an attribute such as .T
        return str(function.__self__.__name__)  # type: ignore[attr-defined]
    return function.__name__


def is_in_place(name: str) -> bool:
    """
    Returns whether a function changes its argument.

    :param name: Its name in Python.
    """
    if name.startswith("__"):
        return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
    return name.endswith("_")
