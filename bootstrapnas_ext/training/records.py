"""What a training leaves behind of its epochs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """
    One finished step.

    :param loss: The sum of the losses of its passes; of several processes, their mean.
    :param gradient_norm: The norm of all gradients together, before it is clipped.
    """

    loss: float
    gradient_norm: float


@dataclass(frozen=True)
class EpochRecord:
    """
    One finished epoch.

    :param epoch: The epoch, from 0.
    :param stage: Index of its stage.
    :param steps: Number of steps of training that are done after it.
    :param loss: Mean loss of its steps.
    :param learning_rate: The learning rate of its last step.
    :param top1_maximum: Top-1 of the maximum subnet on the validation data, in percent.
    :param top1_minimum: Top-1 of the smallest subnet that the last stage trains, in percent.
    :param top1_random: Top-1 of some random subnets of the last stage, always the same ones, in percent.
    """

    epoch: int
    stage: int
    steps: int
    loss: float
    learning_rate: float
    top1_maximum: float
    top1_minimum: float
    top1_random: tuple[float, ...] = ()

    @property
    def score(self) -> float:
        """
        What the best checkpoint is the best of: the mean of both accuracies.

        The two span the super-network: the maximum alone would prefer the first epochs, which have hardly trained a
        small subnet, the minimum alone would let the large ones decay.
        """
        return (self.top1_maximum + self.top1_minimum) / 2


@dataclass(frozen=True)
class TrainingResult:
    """
    A finished training.

    :param history: All epochs, in order, those before an interruption included.
    """

    history: tuple[EpochRecord, ...]

    @property
    def best(self) -> EpochRecord:
        """The epoch of the best checkpoint: that of the highest score, the first of equals."""
        return max(self.history, key=lambda record: record.score)
