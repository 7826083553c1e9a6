"""Knowledge distillation: the subnet in training learns the outputs of a teacher next to the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bootstrapnas_ext.config.training import DistillationConfig
from bootstrapnas_ext.errors import TrainingError
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet

#: Called with the inputs of the model, gives the teacher's output for them, or ``None`` where it has nothing to teach.
Teacher = Callable[..., Any]


def soft_target_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    Returns the Kullback-Leibler divergence from the softened teacher to the softened student, times the temperature
    squared, which keeps the size of its gradients independent of the temperature.

    G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015,
    https://arxiv.org/abs/1503.02531.

    :param student: Logits of shape ``(batch, classes, ...)``.
    :param teacher: Logits of the same shape; no gradient flows into them.
    :param temperature: Both are divided by it before the softmax, positive; larger is softer.
    :return: A scalar: the sum over classes, the mean over everything else.
    """
    # Autocast may hand over bfloat16, whose 8 bits of mantissa are too few for the difference of two logarithms.
    student_log = F.log_softmax(student.float() / temperature, dim=1)
    teacher_log = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    divergence = F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=1)
    return divergence.mean() * temperature**2


class InputModelTeacher:
    """
    The given model as the teacher: it runs in evaluation mode and without gradients, and learns nothing.

    :param model: A copy of the model before it became a super-network, which nobody trains.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """
        Returns the output of the given model, without gradient.

        :param args: Positional inputs of the model.
        :param kwargs: Keyword inputs of the model.
        """
        self._model.to(ExampleInput(args, kwargs).tensors()[0].device)
        with evaluation_mode(self._model), torch.no_grad():
            return self._model(*args, **kwargs)


class InPlaceTeacher:
    """
    The maximum subnet as the teacher of all others, which costs no memory and learns along.

    J. Yu et al., Universally Slimmable Networks and Improved Training Techniques, ICCV 2019,
    https://arxiv.org/abs/1903.05134.

    It runs in the mode that the model is in. In training its norm layers thus use the statistics of the batch: the
    running ones are those of whatever subnet was trained last.

    :param supernet: The super-network in training.
    """

    def __init__(self, supernet: TrainableSupernet) -> None:
        self._supernet = supernet

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """
        Returns the output of the maximum subnet, without gradient; ``None`` if it is the one in training.

        :param args: Positional inputs of the model.
        :param kwargs: Keyword inputs of the model.
        """
        maximum = self._supernet.space.maximum
        if self._supernet.active == maximum:
            return None
        with torch.no_grad(), self._supernet.activate(maximum):
            return self._supernet.model(*args, **kwargs)


def no_distillation() -> torch.Tensor:
    """Returns zero: the loss of distillation where there is none."""
    return torch.zeros(())


class _LastPass:
    """A forward hook that keeps the inputs and the output of the last pass in training."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[Any, ...], dict[str, Any], Any] | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self._kept = (args, kwargs, output)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        # A copy of the model, for example an extracted subnet, is nobody's student.
        return _keep_nothing

    def pop(self) -> tuple[tuple[Any, ...], dict[str, Any], Any] | None:
        """Returns what was kept, and keeps it no longer."""
        kept, self._kept = self._kept, None
        return kept


def _keep_nothing(*_: Any) -> None:
    """Stands for the hook in copies of the model."""


class DistillationLoss:
    """
    The loss of distillation for the last forward pass of a model.

    It remembers the inputs and the output of the last forward pass in training, so a loop of the user's own needs to
    add one term, and needs to know nothing about the teacher:

    .. code-block:: python

        loss = criterion(model(images), labels) + distillation()

    The teacher runs in this call, before the optimizer's step. Passes in evaluation mode or without gradients are not
    remembered.

    :param model: The model in training. Its output is one tensor of logits, shape ``(batch, classes, ...)``.
    :param teacher: Gives the logits to learn.
    :param temperature: See :func:`soft_target_loss`; positive.
    :param weight: The loss is multiplied by it: how much the teacher counts against the labels.
    """

    def __init__(self, model: nn.Module, teacher: Teacher, *, temperature: float, weight: float) -> None:
        self._teacher = teacher
        self._temperature = temperature
        self._weight = weight
        self._last_pass = _LastPass()
        self._hook = model.register_forward_hook(self._last_pass, with_kwargs=True)

    def __call__(self) -> torch.Tensor:
        """
        Returns the weighted loss of the last forward pass, a scalar, and forgets the pass.

        :raises TrainingError: If there was no forward pass since the last call, or its output is not a tensor.
        """
        last = self._last_pass.pop()
        if last is None:
            msg = (
                "The distillation loss needs a forward pass of the model in training mode since its last call, but "
                "there was none; call `model.train()` and the model before the loss, once each a step."
            )
            raise TrainingError(msg)
        args, kwargs, student = last
        if not isinstance(student, torch.Tensor):
            msg = (
                f"Distillation needs a model whose output is one tensor of logits, but it is {type(student).__name__}; "
                "wrap the model so that it returns its logits only, or switch distillation off."
            )
            raise TrainingError(msg)
        teacher = self._teacher(*args, **kwargs)
        if teacher is None:
            return student.new_zeros(())
        return self._weight * soft_target_loss(student, teacher, self._temperature)

    def close(self) -> None:
        """Takes the hook off the model."""
        self._hook.remove()


def create_distillation(
    config: DistillationConfig, supernet: TrainableSupernet, input_model: nn.Module
) -> Callable[[], torch.Tensor]:
    """
    Returns the loss of distillation that the config asks for.

    :param config: The config of distillation.
    :param supernet: The super-network in training.
    :param input_model: A copy of the given model as it was before it became the super-network.
    """
    if config.source == "none":
        return no_distillation
    teacher = InPlaceTeacher(supernet) if config.source == "maximum" else InputModelTeacher(input_model)
    return DistillationLoss(supernet.model, teacher, temperature=config.temperature, weight=config.weight)
