"""The example input that a model is traced with: made from ``input_info``, or seen in a user's forward function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bootstrapnas_ext.config import InputInfo
from bootstrapnas_ext.errors import ConfigError, ModelError, first_line
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode

_DTYPES = {"float": torch.float32, "long": torch.int64}


def from_input_info(infos: Sequence[InputInfo]) -> ExampleInput:
    """
    Makes the tensors that ``input_info`` describes. Random ones are the same at every call.

    :param infos: One item for each tensor.
    :raises ConfigError: If there is none.
    """
    if not infos:
        msg = (
            "$: 'input_info' is missing, so the model cannot be traced; give the shape of its input, for example "
            '"input_info": {"sample_size": [1, 3, 224, 224]}, or pass a `dummy_forward_fn`'
        )
        raise ConfigError(msg)
    generator = torch.Generator().manual_seed(0)
    tensors = [(info.keyword, _filled(info, generator)) for info in infos]
    return ExampleInput(
        tuple(tensor for keyword, tensor in tensors if keyword is None),
        {keyword: tensor for keyword, tensor in tensors if keyword is not None},
    )


def _filled(info: InputInfo, generator: torch.Generator) -> Tensor:
    if info.filler == "random":
        tensor = torch.rand(info.sample_size, generator=generator)
        if info.type == "long":
            tensor = tensor.round()  # all are zero, if cut off
    else:
        tensor = torch.full(info.sample_size, 1.0 if info.filler == "ones" else 0.0)
    return tensor.to(_DTYPES[info.type])


def from_forward(model: nn.Module, dummy_forward_fn: Callable[[nn.Module], Any]) -> ExampleInput:
    """
    Runs a user's function once and returns what it called the model with, the first time.

    :param model: The model.
    :param dummy_forward_fn: Gets the model and calls it.
    :raises ModelError: If the function fails, or does not call the model.
    """
    seen: list[ExampleInput] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(ExampleInput(args, kwargs))

    handle = model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with evaluation_mode(model), torch.no_grad():
            dummy_forward_fn(model)
    except Exception as error:
        msg = f"`dummy_forward_fn` failed: {type(error).__name__}: {first_line(error)}"
        raise ModelError(msg) from error
    finally:
        handle.remove()
    if not seen:
        msg = "`dummy_forward_fn` must call the model that it gets, but it did not."
        raise ModelError(msg)
    return seen[0]
