"""Example inputs of a model, of any structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class ExampleInput:
    """
    What a model is called with.

    :param args: Positional arguments; tensors may be nested in tuples, lists and dictionaries.
    :param kwargs: Keyword arguments likewise.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Returns all tensors in order."""
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def map(self, function: Callable[[Tensor], Any]) -> ExampleInput:
        """
        Returns the same structure with a function applied to each tensor.

        :param function: From tensor to anything.
        """
        args, kwargs = pytree.tree_map_only(Tensor, function, (self.args, self.kwargs))
        return ExampleInput(args, kwargs)

    def to(self, device: torch.device | str) -> ExampleInput:
        """
        Returns it on a device.

        :param device: The device.
        """
        return self.map(lambda tensor: tensor.to(device))

    def with_batch(self, size: int) -> ExampleInput:
        """
        Returns it with another batch size: items along dimension 0 are repeated or left out.

        :param size: The batch size, at least 1.
        """

        def resize(tensor: Tensor) -> Tensor:
            if tensor.ndim == 0:
                return tensor
            return tensor.repeat(-(-size // tensor.shape[0]), *[1] * (tensor.ndim - 1))[:size]

        return self.map(resize)
