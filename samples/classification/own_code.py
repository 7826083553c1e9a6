"""Code of one's own that a config names."""

from __future__ import annotations

import importlib
from typing import Any

from bootstrapnas_ext.errors import ConfigError


def own_function(name: str) -> Any:
    """
    Imports the module of a function, and returns the function.

    :param name: ``module.path:function``.
    :raises ConfigError: If there is no such function.
    """
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, ValueError, AttributeError) as error:
        msg = f"$.model: {name!r} cannot be imported ({error}); it must be module.path:function of an importable module"
        raise ConfigError(msg) from error
    if not callable(function):
        msg = f"$.model: {name!r} must be a function, but it is a {type(function).__name__}"
        raise ConfigError(msg)
    return function
