"""What is checked about the training data before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DistributedSampler, RandomSampler, SequentialSampler, Subset, TensorDataset

from bootstrapnas_ext.errors import DataError, ModelError, TrainingError
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
    msg = (
        f"A batch of the training loader must be a pair (inputs, targets) with a tensor of targets, but got {found}; "
        "let its `collate_fn` make such pairs."
    )
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
        msg = (
            f"The training loader must have a length, which schedules need, but {type(loader).__name__} has none; give "
            "it, or its dataset, a `__len__`."
        )
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


def count_classes(model: nn.Module, sample: ExampleInput, targets: torch.Tensor) -> int | None:
    """
    Returns the number of classes that labels may name for the cross entropy, or ``None`` if the targets are no labels.

    Runs one sample through the model, in evaluation mode.

    :param model: The model in training.
    :param sample: Inputs of batch size 1, on the device of the model.
    :param targets: Of a batch of any size.
    :raises ModelError: If the model's output is no tensor, or the cross entropy cannot compare it with the targets.
    :raises DataError: If labels are no integers.
    """
    with evaluation_mode(model), torch.no_grad():
        outputs = model(*sample.args, **sample.kwargs)
    check_logits(outputs)
    if outputs.ndim != targets.ndim + 1:
        return None
    if not _are_labels(targets):
        msg = f"Cross entropy needs labels that are integers, but got {targets.dtype}; convert them, as by `.long()`."
        raise DataError(msg)
    if outputs.shape[2:] != targets.shape[1:]:
        msg = (
            "Cross entropy needs outputs of shape (batch, classes, ...) for labels of shape (batch, ...), but got "
            f"{_shape(outputs)} for {_shape(targets)}; wrap the model so that its classes are dimension 1, or pass a "
            "`criterion` that takes them where they are."
        )
        raise ModelError(msg)
    classes: int = outputs.shape[1]
    return classes


def check_logits(outputs: Any) -> None:
    """
    Checks that the cross entropy can read what a model returns.

    :param outputs: What the model returned.
    :raises ModelError: If it is no tensor.
    """
    if not isinstance(outputs, torch.Tensor):
        msg = (
            f"Cross entropy needs a model that returns a tensor of logits, but it returns {type(outputs).__name__}; "
            "wrap the model so that it returns its logits, or pass a `criterion` that takes what it returns, and "
            "`val_loader=None` with a `model_eval_fn` for the accuracy."
        )
        raise ModelError(msg)


def check_loss(loss: Any) -> None:
    """
    Checks what a criterion has returned.

    :param loss: What it returned.
    :raises TrainingError: If that is no tensor with one item, or has no gradients while they are wanted.
    """
    if not isinstance(loss, torch.Tensor):
        found = type(loss).__name__
    elif loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}"
    elif torch.is_grad_enabled() and not loss.requires_grad:
        found = "a tensor that does not come from the model's outputs by operations with gradients"
    else:
        return
    msg = (
        "The criterion must return a loss, a tensor with one item that gradients flow back from, but it returned "
        f"{found}; let it return such a tensor, for example the mean over the batch."
    )
    raise TrainingError(msg)


def check_labels(labels: torch.Tensor, classes: int, ignored: int) -> None:
    """
    Checks that the model has an output for every label.

    :param labels: Integer labels of any shape.
    :param classes: Number of the model's outputs, along the dimension that the loss takes as classes.
    :param ignored: The label that the loss leaves out.
    :raises DataError: If a label is out of range.
    """
    wrong = ((labels < 0) | (labels >= classes)) & (labels != ignored)
    if bool(wrong.any()):
        msg = (
            f"`0 <= label < {classes}` must hold, because the model has {classes} outputs, but the training data has "
            f"label={int(labels[wrong][0])}; check the classes of the dataset and the last layer of the model."
        )
        raise DataError(msg)


def stored_labels(loader: Any) -> torch.Tensor | None:
    """
    Returns all labels that a loader will give, if its dataset can tell them without loading samples, and its sampler
    leaves none out; ``None`` otherwise.

    :param loader: Of a dataset; a ``TensorDataset``, one with ``targets`` as torchvision's, or a ``Subset`` of one.
    """
    if type(getattr(loader, "sampler", None)) not in (SequentialSampler, RandomSampler, DistributedSampler):
        return None
    return _labels_of(getattr(loader, "dataset", None))


def _labels_of(dataset: Any) -> torch.Tensor | None:
    if isinstance(dataset, Subset):
        labels = _labels_of(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, TensorDataset):
        labels = dataset.tensors[-1]
    elif getattr(dataset, "targets", None) is not None and getattr(dataset, "target_transform", None) is None:
        try:
            labels = torch.as_tensor(dataset.targets)
        except (TypeError, ValueError, RuntimeError):  # of another kind than one number for each sample
            return None
    else:
        return None
    return labels if _are_labels(labels) else None


def check_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """
    Checks that the optimizer trains everything that wants to be trained.

    :param optimizer: The optimizer.
    :param model: The model of the super-network, which has parameters that the given model had not.
    :raises TrainingError: If a parameter is missing.
    """
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if missing := [name for name, parameter in wanted.items() if id(parameter) not in trained]:
        msg = (
            f"The optimizer must train all {len(wanted)} parameters of the super-network, but it lacks {len(missing)}, "
            f"the first of which is {missing[0]!r}; make it of `supernet.parameters()` after the super-network, and "
            "set `requires_grad` of what shall not be trained to False."
        )
        raise TrainingError(msg)


def _shape(batch: torch.Tensor) -> str:
    return f"({', '.join(['batch', *map(str, batch.shape[1:])])})"


def _are_labels(targets: torch.Tensor) -> bool:
    return not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
