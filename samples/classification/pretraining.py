"""Training of the input model from random weights, and the optimizer that the super-network's training uses too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from bootstrapnas_ext.errors import CheckpointError, TrainingError
from bootstrapnas_ext.evaluation import top1_accuracy
from bootstrapnas_ext.training import seeded_epoch, weight_decay_groups
from bootstrapnas_ext.training.checkpoint import save_tensors
from bootstrapnas_ext.training.learning_rate import CosineSchedule
from samples.classification.settings import OptimizerConfig, PretrainConfig


def create_optimizer(parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """
    Makes an optimizer.

    :param parameters: What to train, by name.
    :param config: Which optimizer.
    """
    keys = [key for key in (config.no_decay_keys or "").split("#") if key]
    exempt, others = [], []
    for name, parameter in parameters:
        (exempt if any(key in name for key in keys) else others).append(parameter)
    if config.decay_norms_and_biases:
        described = [{"params": others, "weight_decay": config.weight_decay}]
    else:
        described = weight_decay_groups(others, config.weight_decay)
    described = [group for group in (*described, {"params": exempt, "weight_decay": 0.0}) if group["params"]]
    if config.type == "sgd":
        return torch.optim.SGD(described, config.base_lr, momentum=config.momentum, nesterov=config.nesterov)
    kind = torch.optim.Adam if config.type == "adam" else torch.optim.AdamW
    return kind(described, config.base_lr)


def pretrain(
    model: nn.Module,
    train_loader: Any,
    val_loader: Any,
    config: PretrainConfig,
    optimizer_config: OptimizerConfig,
    *,
    seed: int,
    bf16: bool,
    device: torch.device,
    console: Console,
    checkpoint: Path | None = None,
) -> None:
    """
    Trains a model, with a progress bar in a terminal, and a line for each epoch.

    What is random in an epoch depends on the seed and the epoch alone, so a training that goes on from its checkpoint
    ends with the weights of one that was not interrupted.

    :param model: On the device; left in evaluation mode.
    :param train_loader: Batches of images and classes.
    :param val_loader: Likewise, for the accuracy that is shown.
    :param config: How long.
    :param optimizer_config: Optimizer, first learning rate and label smoothing.
    :param seed: Of order, augmentation and dropout.
    :param bf16: Whether forward passes run under autocast to bfloat16.
    :param device: Of the model.
    :param console: Where progress is shown.
    :param checkpoint: Is written after each epoch; if it is there, the training goes on from it.
    :raises TrainingError: If the loss is not finite.
    :raises CheckpointError: If the checkpoint is damaged, of another training, or cannot be written.
    """
    optimizer = create_optimizer(model.named_parameters(), optimizer_config)
    criterion = nn.CrossEntropyLoss(label_smoothing=optimizer_config.label_smoothing)
    schedule = CosineSchedule(optimizer_config.base_lr, config.epochs, config.warmup_epochs)
    steps = len(train_loader)
    first = _resume(model, optimizer, checkpoint) if checkpoint is not None and checkpoint.exists() else 0
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("input model", total=config.epochs * steps, completed=first * steps)
        for epoch in range(first, config.epochs):
            model.train()
            total = 0.0
            with seeded_epoch(train_loader, seed, epoch, device):
                for step, (images, targets) in enumerate(train_loader):
                    for group in optimizer.param_groups:
                        group["lr"] = schedule(epoch + step / steps)
                    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                        loss = criterion(model(images.to(device)), targets.to(device))
                    value = loss.item()
                    if not math.isfinite(value):
                        msg = (
                            f"The loss of the input model must be finite, but it is {value} in epoch {epoch + 1}; "
                            "lower `optimizer.base_lr`, or add `pretrain.warmup_epochs`."
                        )
                        raise TrainingError(msg)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += value
                    progress.advance(task)
            model.eval()
            console.print(
                f"input model: epoch {epoch + 1}/{config.epochs}  loss {total / steps:.4f}  "
                f"top-1 on validation {top1_accuracy(model, val_loader, device):.2f} %",
                highlight=False,
                soft_wrap=True,
            )
            if checkpoint is not None:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
                save_tensors(checkpoint, state)
    model.eval()


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> int:
    """Goes to where a checkpoint was written, and returns how many epochs are done."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["epochs"])
    except Exception as error:  # which one depends on the bytes that are damaged
        msg = f"{checkpoint} is damaged, or of another model; delete it, so that the input model is trained anew."
        raise CheckpointError(msg) from error
