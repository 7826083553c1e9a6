"""The learning rate as a pure function of the position in training."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineSchedule:
    """
    A half cosine from ``base_lr`` down to zero after an optional linear warm-up, and zero from there on.

    I. Loshchilov, F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017,
    https://arxiv.org/abs/1608.03983; without restarts.

    .. code-block:: python

        >>> schedule = CosineSchedule(base_lr=0.2, num_epochs=10)
        >>> schedule(0.0), round(schedule(5.0), 6), schedule(10.0)
        (0.2, 0.1, 0.0)

    :param base_lr: The learning rate at the end of the warm-up, positive.
    :param num_epochs: Length of warm-up and cosine together, in epochs.
    :param warmup_epochs: Length of the warm-up, in epochs, less than ``num_epochs``.
    :param warmup_lr: The learning rate that the warm-up starts from.
    """

    base_lr: float
    num_epochs: float
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0

    def __call__(self, epoch: float) -> float:
        """
        Returns the learning rate.

        :param epoch: The number of epochs that are done, with the fraction of the current one.
        """
        if epoch < self.warmup_epochs:
            return self.warmup_lr + (self.base_lr - self.warmup_lr) * epoch / self.warmup_epochs
        done = min((epoch - self.warmup_epochs) / (self.num_epochs - self.warmup_epochs), 1.0)
        return 0.5 * self.base_lr * (1.0 + math.cos(math.pi * done))
