"""Accuracy of a classifier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bootstrapnas_ext import processes
from bootstrapnas_ext.errors import DataError, ModelError
from bootstrapnas_ext.inputs import as_input
from bootstrapnas_ext.modes import evaluation_mode


def top1_accuracy(
    module: nn.Module,
    loader: Iterable[tuple[Any, Tensor]],
    device: torch.device | str = "cpu",
    *,
    all_processes: bool = False,
) -> float:
    """
    Returns how often the largest output is the right class, in percent.

    :param module: The model, on the device; it runs in evaluation mode and is left as it was.
    :param loader: Batches of inputs and class indices; inputs as in :func:`bootstrapnas_ext.inputs.as_input`, class
        indices of shape ``(batch,)``.
    :param device: Where the batches are moved to.
    :param all_processes: Whether to count over the batches of all processes, which must all call this.
    :return: From 0 to 100.
    :raises DataError: If there is no sample, or a class index for which the model has no output.
    :raises ModelError: If the model's output is not a tensor of shape ``(batch, classes)``.
    """
    # Summed on the device: asking for a number after every batch would wait for the device every time.
    correct = torch.zeros((), dtype=torch.int64, device=device)
    total = 0
    with evaluation_mode(module), torch.no_grad():
        for inputs, targets in loader:
            example = as_input(inputs).to(device)
            logits = module(*example.args, **example.kwargs)
            _check(logits, targets)
            correct += (logits.argmax(dim=1) == targets.to(device)).sum()
            total += len(targets)
    counts = torch.tensor([int(correct), total])
    if all_processes:
        processes.add_up(counts)
    if not counts[1]:
        raise DataError("The data to measure accuracy on is empty; give at least one sample.")
    return 100.0 * int(counts[0]) / int(counts[1])


def _check(logits: Any, targets: Tensor) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or targets.shape != logits.shape[:1]:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        msg = (
            f"Top-1 accuracy needs outputs of shape (batch, classes) for targets of shape (batch,), but got {found} "
            f"for {tuple(targets.shape)}; wrap the model so that it returns such logits, or give "
            "`register_default_init_args` a `model_eval_fn` of your own, and `val_loader=None`."
        )
        raise ModelError(msg)
    classes = logits.shape[1]
    wrong = targets[(targets < 0) | (targets >= classes)]
    if len(wrong):
        msg = (
            f"`0 <= label < {classes}` must hold, because the model has {classes} outputs, but the data has label="
            f"{int(wrong[0])}; check the classes of the dataset and the last layer of the model."
        )
        raise DataError(msg)
