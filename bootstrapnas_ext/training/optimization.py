"""What an optimizer is given, and how tensors lie in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def weight_decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """
    Returns parameter groups for an optimizer, with weight decay for weights but not for norms, biases and other
    parameters of at most one dimension, whose scale a norm layer or the next weight would make up for.

    .. code-block:: python

        optimizer = torch.optim.SGD(weight_decay_groups(supernet.parameters(), 5e-4), lr=0.02, momentum=0.9)

    :param parameters: What is trained.
    :param weight_decay: Of the weights, at least 0.
    :return: One group, or two.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in parameters:
        groups[parameter.ndim > 1].append(parameter)
    return [
        {"params": group, "weight_decay": weight_decay if decays else 0.0} for decays, group in groups.items() if group
    ]


def channels_last(tensor: Tensor) -> Tensor:
    """
    Returns a tensor whose channels lie next to each other in memory, which convolutions are faster with.

    :param tensor: Changed only if it has the four dimensions ``(batch, channels, height, width)``.
    """
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def make_channels_last(model: nn.Module) -> None:
    """
    Puts the weights of a model into the layout of :func:`channels_last`; they stay the same objects.

    :param model: Changed in place.
    """
    for parameter in model.parameters():
        parameter.data = channels_last(parameter.data)
