"""Weights of an input model: from a file, or from torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from bootstrapnas_ext.errors import CheckpointError, ConfigError, DataError, ModelError

_SHOWN = 3
"""How many names of each kind a message lists."""


def load_weights(model: nn.Module, path: Path) -> None:
    """
    Loads a state dict, also one that a checkpoint holds under ``state_dict`` or ``model``, and one of a model that was
    wrapped for training on more than one device.

    :param model: Gets the weights.
    :param path: Of a file that ``torch.save`` wrote.
    :raises CheckpointError: If the file is missing, damaged or holds something else.
    :raises ModelError: If names or shapes do not fit; the message lists the first of each kind.
    """
    state = _read_state(path)
    own = model.state_dict()
    shapes = [
        f"{name} is of shape {tuple(state[name].shape)} and not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    fitting = {name: tensor for name, tensor in state.items() if name not in own or tensor.shape == own[name].shape}
    missing, unexpected = model.load_state_dict(fitting, strict=False)
    absent = [name for name in missing if name not in state]
    if absent or unexpected or shapes:
        problems = [
            f"{len(names)} {what} ({_listed(names)})"
            for what, names in (("missing", absent), ("not in the model", unexpected), ("of another shape", shapes))
            if names
        ]
        msg = f"The weights {path} do not fit {type(model).__name__}: {', '.join(problems)}. Give this model's weights."
        raise ModelError(msg)


def load_torchvision_weights(model: nn.Module, name: str, weights: str) -> bool:
    """
    Loads weights that torchvision knows, and downloads them if they are not there.

    :param model: The torchvision model, with any number of classes.
    :param name: Its name.
    :param weights: For example ``IMAGENET1K_V2`` or ``DEFAULT``.
    :return: Whether all weights fit. The layers of another number of classes keep their random weights.
    :raises ConfigError: If there are no such weights.
    :raises DataError: If they cannot be downloaded.
    """
    try:
        known = torchvision.models.get_model_weights(name)
        state = known[weights].get_state_dict(check_hash=True)
    except (KeyError, ValueError) as error:
        msg = (
            f"$.weights: {weights!r} is neither a file nor weights that torchvision has for {name!r}; give the path of "
            "a file of weights"
        )
        raise ConfigError(msg) from error
    except OSError as error:
        msg = f"The weights {weights} of {name} cannot be downloaded ({error}); give a file of weights with --weights."
        raise DataError(msg) from error
    own = model.state_dict()
    fitting = {key: tensor for key, tensor in state.items() if key in own and own[key].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    return len(fitting) == len(own)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        msg = f"There is no file of weights at {path}; give its path with --weights."
        raise CheckpointError(msg)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # which one depends on the bytes that are damaged
        msg = f"{path} is damaged, or not a file that torch.save wrote with tensors alone; give another one."
        raise CheckpointError(msg) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        msg = f"{path} must hold a state dict, names to tensors, but it holds something else; give another file."
        raise CheckpointError(msg)
    wrapped = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in state.items()}


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
