"""What a data loader gives, as a call of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bootstrapnas_ext.inputs import ExampleInput


def as_input(inputs: Any) -> ExampleInput:
    """
    Returns the inputs of a batch as the arguments that the model is called with.

    :param inputs: A tensor, a tuple or list of positional arguments, a mapping of keyword arguments, or an
        :class:`ExampleInput`, which is returned as it is.
    """
    if isinstance(inputs, ExampleInput):
        return inputs
    if isinstance(inputs, Mapping):
        return ExampleInput((), dict(inputs))
    if isinstance(inputs, (tuple, list)):
        return ExampleInput(tuple(inputs))
    return ExampleInput((inputs,))
