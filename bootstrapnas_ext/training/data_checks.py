"""What is checked about the training data before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

from bootstrapnas_ext.errors import DataError
from bootstrapnas_ext.inputs import ExampleInput, as_input
from bootstrapnas_ext.modes import evaluation_mode


def split_batch(batch: Any) -> tuple[ExampleInput, torch.Tensor]:
    """
    Returns the inputs and the targets of a batch.

    :param batch: What the loader gave: a pair of inputs, as in :func:`bootstrapnas_ext.inputs.as_input`, and a
        tensor of targets.
    :raises DataError: If it is something else.
    """
    found = type(batch).__name__
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2 and isinstance(batch[1], torch.Tensor):
            return as_input(batch[0]), batch[1]
        found = f"{found} of {[type(part).__name__ for part in batch]}"
    msg = f"A batch of the training loader must be a pair (inputs, targets) with a tensor of targets, but got {found}."
    raise DataError(msg)


def count_steps(loader: Any) -> int:
    """
    Returns the number of batches of an epoch.

    :param loader: The training loader.
    :raises DataError: If it has no length, or no batch.
    """
    try:
        steps = len(loader)
    except TypeError as error:
        msg = "The training loader must have a length, which schedules need; use a map-style dataset."
        raise DataError(msg) from error
    if steps == 0:
        dataset = getattr(loader, "dataset", ())
        msg = (
            f"The training loader has no batch: the dataset has {len(dataset)} samples (batch_size="
            f"{getattr(loader, 'batch_size', None)}, drop_last={getattr(loader, 'drop_last', None)}); give it more "
            "samples than a batch."
        )
        raise DataError(msg)
    return steps


def count_classes(model: nn.Module, loader: Any, device: torch.device) -> int | None:
    """
    Returns the number of classes that integer labels may name, or ``None`` if the targets are something else.

    Runs one sample through the model, in evaluation mode.

    :param model: The model in training.
    :param loader: The training loader, not empty.
    :param device: The device of the model.
    """
    inputs, targets = split_batch(next(iter(loader)))
    sample = inputs.with_batch(1).to(device)
    with evaluation_mode(model), torch.no_grad():
        outputs = model(*sample.args, **sample.kwargs)
    if not _are_labels(targets) or not isinstance(outputs, torch.Tensor) or outputs.ndim != targets.ndim + 1:
        return None
    return outputs.shape[1]


def check_labels(labels: torch.Tensor, classes: int, ignored: int | None) -> None:
    """
    Checks that the model has an output for every label.

    :param labels: Integer labels of any shape.
    :param classes: Number of the model's outputs.
    :param ignored: The label that the loss leaves out, if any.
    :raises DataError: If a label is out of range.
    """
    wrong = (labels < 0) | (labels >= classes)
    if ignored is not None:
        wrong &= labels != ignored
    if bool(wrong.any()):
        msg = (
            f"`0 <= label < {classes}` must hold, because the model has {classes} outputs, but the training data has "
            f"label={int(labels[wrong][0])}; check the classes of the dataset and the last layer of the model."
        )
        raise DataError(msg)


def stored_labels(dataset: Any) -> torch.Tensor | None:
    """
    Returns all labels of a dataset that can tell them without loading its samples; ``None`` otherwise.

    :param dataset: A dataset; a ``TensorDataset``, one with ``targets`` as torchvision's, or a ``Subset`` of one.
    """
    if isinstance(dataset, Subset):
        labels = stored_labels(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, TensorDataset):
        labels = dataset.tensors[-1]
    elif getattr(dataset, "targets", None) is not None and getattr(dataset, "target_transform", None) is None:
        labels = torch.as_tensor(dataset.targets)
    else:
        return None
    return labels if _are_labels(labels) else None


def _are_labels(targets: torch.Tensor) -> bool:
    return not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
