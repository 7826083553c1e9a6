"""Schedulers by NNCF 2's names: what a loop calls before each epoch and each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bootstrapnas_ext.compat.nncf2.handler import MultiElasticityHandler
from bootstrapnas_ext.training.passes import Passes
from bootstrapnas_ext.training.scheduler import TrainingScheduler


class CountingScheduler:
    """Counts epochs and steps, and does nothing else: elasticity alone has no schedule."""

    def __init__(self) -> None:
        self.current_epoch = self.current_step = -1

    def step(self, next_step: int | None = None) -> None:
        """
        Counts a step.

        :param next_step: Its number; by default the one after the current one.
        """
        self.current_step = self.current_step + 1 if next_step is None else next_step

    def epoch_step(self, next_epoch: int | None = None) -> None:
        """
        Counts an epoch.

        :param next_epoch: Its number; by default the one after the current one.
        """
        self.current_epoch = self.current_epoch + 1 if next_epoch is None else next_epoch


class BootstrapNASScheduler:
    """
    Moves a training through its stages, each of which lets the handler propose what it opens.

    :param scheduler: The scheduler of today.
    :param handler: Proposes subnets.
    """

    def __init__(self, scheduler: TrainingScheduler, handler: MultiElasticityHandler) -> None:
        self._scheduler = scheduler
        self._handler = handler

    @property
    def current_epoch(self) -> int:
        """The epoch in training, from 0; -1 before the first."""
        return self._scheduler.current_epoch

    @property
    def current_step(self) -> int:
        """The step in training, from 0 over all epochs; -1 before the first."""
        return self._scheduler.current_step

    @property
    def current_stage_idx(self) -> int:
        """Index of the stage in training; -1 before the first epoch."""
        return self._scheduler.current_stage if self.current_epoch >= 0 else -1

    def step(self, next_step: int | None = None) -> Passes:
        """
        Sets the learning rate and activates a subnet, to be called before each training step.

        :param next_step: The step; by default the one after the current one.
        :return: The passes of the step. A loop may ignore them while the strategy trains one subnet a step.
        """
        return self._scheduler.step(next_step)

    def epoch_step(self, next_epoch: int | None = None) -> None:
        """
        Prepares an epoch, to be called before its first step. At the start of a stage, the handler proposes from then
        on what the stage opens.

        :param next_epoch: The epoch; by default the one after the current one.
        """
        before = self.current_stage_idx
        self._scheduler.epoch_step(next_epoch)
        if self.current_stage_idx != before:
            stage = self._scheduler.stages[self.current_stage_idx]
            self._handler.open(stage.config.train_dims or (), stage.space)

    def is_final_stage(self) -> bool:
        """Returns whether training is in its last stage."""
        return self.current_stage_idx == len(self._scheduler.stages) - 1

    def get_total_training_epochs(self) -> int:
        """Returns the epochs of all stages together."""
        return self._scheduler.total_epochs

    def get_state(self) -> dict[str, Any]:
        """Returns the position in training."""
        return self._scheduler.get_state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """
        Goes to the position that :meth:`get_state` returned; what is open stays.

        :param state: The state of a scheduler with the same config.
        :raises CheckpointError: If the config differs.
        """
        self._scheduler.load_state(state)
