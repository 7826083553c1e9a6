"""Names of a model's input and output tensors, for file formats that have no structure but a list of names."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.inputs import ExampleInput


def input_names(module: nn.Module, example: ExampleInput) -> list[str]:
    """
    Returns a name for each of ``example.tensors()``: the argument of ``forward``, and the way into it if it is nested.

    .. code-block:: python

        def forward(self, image, points, mask=None): ...

        input_names(module, ExampleInput((image, (first, second)), {"mask": mask}))
        # ["image", "points_0", "points_1", "mask"]

    :param module: The model.
    :param example: What it is called with.
    """
    arguments = [
        parameter.name
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    arguments += [f"input_{index}" for index in range(len(arguments), len(example.args))]
    named = [*zip(arguments, example.args, strict=False), *example.kwargs.items()]
    return [name for argument, value in named for name in _named_tensors(value, argument)]


def output_tensors(outputs: Any) -> dict[str, Tensor]:
    """
    Returns the tensors of a model's outputs by name, in the order of the structure.

    A single tensor is ``output``, those of a tuple or list are ``output_0``, ``output_1``, and those of a dictionary
    have their keys; ``None`` is left out.

    :param outputs: A tensor, or any nesting of tuples, lists and dictionaries of tensors.
    :raises ModelError: If there is anything else, or no tensor.
    """
    return _named_tensors(outputs, "" if isinstance(outputs, dict) else "output", only_tensors=True)


def _named_tensors(value: Any, root: str, *, only_tensors: bool = False) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path, leaf in pytree.tree_flatten_with_path(value)[0]:
        name = "_".join(filter(None, (root, *(_label(key) for key in path))))
        if isinstance(leaf, Tensor):
            found[name] = leaf
        elif only_tensors and leaf is not None:
            msg = (
                f"The model's outputs must be tensors, but {name!r} is of type {type(leaf).__name__}; wrap the model "
                "in a module that returns nothing else."
            )
            raise ModelError(msg)
    if only_tensors and not found:
        raise ModelError("The model's outputs hold no tensor; wrap the model so that it returns one.")
    return found


def _label(key: Any) -> str:
    if isinstance(key, pytree.SequenceKey):
        return str(key.idx)
    return str(key.key if isinstance(key, pytree.MappingKey) else key.name)
