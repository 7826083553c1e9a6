"""Where a training is, and what its checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bootstrapnas_ext import processes
from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.training.checkpoint import ANOTHER, load_checkpoint, restore_supernet, save_checkpoint
from bootstrapnas_ext.training.randomness import get_random_state
from bootstrapnas_ext.training.records import EpochRecord, StepRecord
from bootstrapnas_ext.training.scheduler import TrainingScheduler
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet
from bootstrapnas_ext.training.weight_average import WeightAverage

_KEYS = ("supernet", "optimizer", "average", "scheduler", "position", "random", "steps_per_epoch")


@dataclass(frozen=True)
class Position:
    """
    Where a training is.

    :param history: The finished epochs.
    :param steps: How many steps of the next epoch are done.
    :param loss: The sum of their losses.
    """

    history: tuple[EpochRecord, ...] = ()
    steps: int = 0
    loss: float = 0.0

    def after_step(self, step: StepRecord) -> Position:
        """
        Returns the position after one more step.

        :param step: The step.
        """
        return replace(self, steps=self.steps + 1, loss=self.loss + step.loss)

    def after_epoch(self, epoch: EpochRecord) -> Position:
        """
        Returns the position after the epoch whose steps are done.

        :param epoch: The epoch.
        """
        return Position((*self.history, epoch))


@dataclass(frozen=True)
class TrainingState:
    """
    All that changes while a training runs; it is written to checkpoints and read from them.

    :param supernet: The super-network.
    :param scheduler: Its scheduler.
    :param optimizer: Its optimizer.
    :param average: The moving average of the weights, if there is one.
    :param steps_per_epoch: Number of steps of an epoch.
    :param device: The device of the super-network.
    """

    supernet: TrainableSupernet
    scheduler: TrainingScheduler
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    steps_per_epoch: int
    device: torch.device

    def save(self, path: Path, position: Position) -> None:
        """
        Writes a checkpoint. All processes call this, and the first one writes.

        :param path: The file; its folder exists.
        :param position: Where the training is.
        :raises CheckpointError: If the file cannot be written.
        """
        random = processes.gather(get_random_state(self.device))
        if processes.rank() == 0:
            contents = {
                "supernet": self.supernet.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": None if self.average is None else self.average.get_state(),
                "scheduler": self.scheduler.get_state(),
                "position": {**asdict(position), "history": [asdict(record) for record in position.history]},
                "random": random,
                "steps_per_epoch": self.steps_per_epoch,
            }
            save_checkpoint(path, contents)

    def load(self, path: Path) -> tuple[Position, dict[str, Any] | None]:
        """
        Goes to where a checkpoint was written.

        :param path: The file.
        :return: The position, and the random state to go on with, if that is in the midst of an epoch.
        :raises CheckpointError: If the file is missing or damaged, or of another training.
        """
        contents = load_checkpoint(path, _KEYS)
        position = _position(contents["position"], path)
        try:
            self.scheduler.load_state(contents["scheduler"])
        except CheckpointError as error:
            msg = f"{path}: {error}"
            raise CheckpointError(msg) from error
        is_within = self.scheduler.current_epoch == len(position.history)
        if is_within:
            self._check_same_data(path, contents["steps_per_epoch"], len(contents["random"]))
        restore_supernet(self.supernet, contents, path)
        try:
            self.optimizer.load_state_dict(contents["optimizer"])
        except (KeyError, ValueError) as error:
            msg = f"The optimizer does not fit that of {path} ({error}); resume with the same kind of optimizer."
            raise CheckpointError(msg) from error
        if self.average is not None:
            try:
                self.average.load_state(contents["average"])
            except ValueError as error:
                msg = f"{path} does not fit: {error}; {ANOTHER}."
                raise CheckpointError(msg) from error
        return position, contents["random"][processes.rank()] if is_within else None

    def _check_same_data(self, path: Path, steps_per_epoch: int, count: int) -> None:
        """Checks that the rest of an epoch is what it would have been."""
        if (steps_per_epoch, count) != (self.steps_per_epoch, processes.count()):
            msg = (
                f"{path} was written in the midst of an epoch of {steps_per_epoch} steps in {count} processes, but "
                f"here an epoch has {self.steps_per_epoch} steps in {processes.count()}; resume with the same data, "
                "batch size and number of processes."
            )
            raise CheckpointError(msg)


def _position(values: Mapping[str, Any], path: Path) -> Position:
    try:
        return Position(**{**values, "history": tuple(EpochRecord(**record) for record in values["history"])})
    except (KeyError, TypeError) as error:
        msg = f"The history of {path} is damaged ({error}); {ANOTHER}."
        raise CheckpointError(msg) from error
