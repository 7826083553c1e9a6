"""The loss of a pass: that of the task and that of distillation, weighted as the strategy says."""

from __future__ import annotations

import torch

from bootstrapnas_ext.training.distillation import Distillation
from bootstrapnas_ext.training.scheduler import TrainingScheduler


class StepLoss:
    """
    Puts the loss of a pass together, so that a loop needs to know neither teachers nor weights:

    .. code-block:: python

        for subnet in scheduler.step():
            loss = step_loss(criterion(model(images), labels))
            loss.backward()

    :param scheduler: Knows the current pass.
    :param distillation: The loss of distillation of the last forward pass.
    """

    def __init__(self, scheduler: TrainingScheduler, distillation: Distillation) -> None:
        self._scheduler = scheduler
        self._distillation = distillation

    def __call__(self, task: torch.Tensor | None = None) -> torch.Tensor:
        """
        Returns the loss of the current pass, a scalar: its part of the loss of the step. Call it once after each
        forward pass in training.

        :param task: The loss of the task, a scalar. Without it, the result is the term of distillation alone, which a
            loop may add to a loss of its own making.
        :raises TrainingError: If there is a teacher, and there was no forward pass since the last call.
        """
        current = self._scheduler.current_pass
        term = current.distillation_weight * self._distillation(current.teacher)
        return term if task is None else current.task_weight * task + term
