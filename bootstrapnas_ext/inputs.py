"""Example inputs of a model, of any structure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bootstrapnas_ext.errors import ModelError


@dataclass(frozen=True)
class ExampleInput:
    """
    What a model is called with.

    :param args: Positional arguments; tensors may be nested in tuples, lists and dictionaries.
    :param kwargs: Keyword arguments likewise.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.args, tuple):
            msg = f"`args` must be a tuple, as in ExampleInput((tensor,)), but got {type(self.args).__name__}."
            raise ModelError(msg)

    def tensors(self) -> list[Tensor]:
        """Returns all tensors in order."""
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def named(self, forward: Callable[..., Any]) -> dict[str, Tensor]:
        """
        Returns all tensors by the parameters of a function, however they are passed: ``x``, or ``x[0]`` inside a list.

        :param forward: A function that can be called with this input.
        :raises TypeError: If it cannot.
        """
        arguments = inspect.signature(forward).bind(*self.args, **self.kwargs).arguments
        return {
            f"{name}{pytree.keystr(path)}": leaf
            for name, argument in arguments.items()
            for path, leaf in pytree.tree_leaves_with_path(argument)
            if isinstance(leaf, Tensor)
        }

    @property
    def batch_size(self) -> int:
        """Extent of dimension 0 of the first tensor that has dimensions; 1 if there is none."""
        return next((tensor.shape[0] for tensor in self.tensors() if tensor.ndim), 1)

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

    def has_batch(self, tensor: Tensor) -> bool:
        """
        Returns whether dimension 0 of a tensor is the batch: it is as long as the :attr:`batch_size`.

        Ask the example that the user gave, and not one that :meth:`with_batch` made, where a tensor without a batch may
        happen to be as long as the new batch.

        :param tensor: One of :meth:`tensors`.
        """
        is_dense = tensor.layout is torch.strided  # others, such as adjacency matrices, cannot be repeated
        return is_dense and tensor.ndim > 0 and tensor.shape[0] == self.batch_size

    def with_batch(self, size: int) -> ExampleInput:
        """
        Returns it with another batch size: items along dimension 0 are repeated or left out.

        Tensors without a batch, such as masks, stay as they are; see :meth:`has_batch`.

        :param size: The batch size, at least 1.
        """

        def resize(tensor: Tensor) -> Tensor:
            if not self.has_batch(tensor):
                return tensor
            return tensor.repeat(-(-size // tensor.shape[0]), *[1] * (tensor.ndim - 1))[:size]

        return self.map(resize)

    def varied(self, batch_size: int) -> ExampleInput:
        """
        Returns an input of the same kind with other values: numbers with the sign changed, integers in reverse order.

        :param batch_size: Its batch size; see :meth:`with_batch`.
        """

        def vary(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                return -tensor
            return tensor.flip(-1) if tensor.ndim and tensor.dtype != torch.bool else tensor

        return self.with_batch(batch_size).map(vary)


def refuse_hidden_tensors(tree: Any, what: str) -> None:
    """
    Looks for objects in which nothing finds the tensors: no tuples, lists, dictionaries or registered classes.

    :param tree: Arguments or results of a model.
    :param what: What they are, for the message.
    :raises ModelError: If there is one.
    """
    for leaf in pytree.tree_leaves(tree):
        if not isinstance(leaf, Tensor) and _holds_tensor(leaf, depth=3):
            name = type(leaf).__name__
            register = "torch.export.register_dataclass" if is_dataclass(leaf) else "pytree.register_pytree_node"
            msg = (
                f"{what} holds an object of type {name!r}, in which tensors cannot be found; register it by `{register}"
                f"({name}{'' if is_dataclass(leaf) else ', ...'})`, let the model do without (as `use_cache=False` "
                "does in those of Hugging Face), or wrap it in a module that takes and returns tensors, tuples, lists "
                "and dictionaries."
            )
            raise ModelError(msg)


def _holds_tensor(item: Any, depth: int) -> bool:
    """Whether an object has a tensor in its attributes, or in those of objects there, and so on."""
    if isinstance(item, Tensor) or not depth:
        return isinstance(item, Tensor)
    held = pytree.tree_leaves(list(getattr(item, "__dict__", {}).values()))
    return any(_holds_tensor(one, depth - 1) for one in held)


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
