"""What a training does from one position to another: epochs, validation, checkpoints, and going back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bootstrapnas_ext import processes
from bootstrapnas_ext.config.training import TrainingConfig
from bootstrapnas_ext.errors import DataError, DivergenceError
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.interruption import Interruption
from bootstrapnas_ext.training.position import Position, TrainingState
from bootstrapnas_ext.training.randomness import batches_of_epoch, get_random_state, seeded_epoch, set_random_state
from bootstrapnas_ext.training.records import EpochRecord, TrainingResult
from bootstrapnas_ext.training.reporting import TrainingLog
from bootstrapnas_ext.training.steps import StepRunner

#: File names within the folder of checkpoints.
LAST = "last.pt"
BEST = "best.pt"
#: How often a training goes back from a divergence before it gives up: then its learning rate is a thousandth.
_RESTORES = 10


class _StoppedError(Exception):
    """A signal has asked to stop, all processes have agreed on it, and the position is saved."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position


@dataclass(frozen=True)
class Session:
    """
    Runs a training from one position to another.

    :param state: What changes while it runs.
    :param run_step: Runs a step.
    :param loader: Gives batches.
    :param evaluate: A subnet to its top-1.
    :param config: When to save and what to validate.
    :param folder: The folder of checkpoints.
    """

    state: TrainingState
    run_step: StepRunner
    loader: Any
    evaluate: Callable[[Subnet], float]
    config: TrainingConfig
    folder: Path

    def train(
        self, position: Position, random: dict[str, Any] | None, log: TrainingLog, interruption: Interruption
    ) -> tuple[Position, bool]:
        """
        Trains to the end, or until a signal asks to stop, which is after a checkpoint.

        :param position: Where to begin.
        :param random: The random state there, in the midst of an epoch.
        :param log: Where to tell about it.
        :param interruption: Whether to stop.
        :return: Where it is now, and whether that is the end.
        """
        scheduler, last = self.state.scheduler, self.folder / LAST
        for epoch in range(len(position.history), scheduler.total_epochs):
            if random is None:
                self._begin_epoch(epoch)
            try:
                with seeded_epoch(self.loader, scheduler.seed, epoch, self.state.device):
                    size = self.config.optimization.gradient_accumulation
                    batches = batches_of_epoch(self.loader, size, self.state.device)
                    if random is not None:
                        set_random_state(random, self.state.device)
                    position = self._train_epoch(batches, position, log, interruption)
                    record = self._validated(epoch, position, interruption)
            except _StoppedError as stopped:
                position = stopped.position
                log.say(f"{interruption.name or 'Another process'}: stopped, and saved {last} to resume from.")
                return position, False
            random = None
            position = position.after_epoch(record)
            # Before the checkpoints, since what is told twice counts once. The best first: a training killed between
            # the two repeats this epoch and writes both again.
            log.epoch(record)
            if TrainingResult(position.history).best is record:
                with self._averaged():
                    self.state.save(self.folder / BEST, position)
            self.state.save(last, position)
        return position, True

    def go_back(self, error: DivergenceError, log: TrainingLog) -> tuple[Position, dict[str, Any] | None]:
        """
        Restores the last checkpoint at half the learning rate.

        :param error: What has happened.
        :param log: Where to tell about it.
        :return: Where it is now, and the random state there, in the midst of an epoch.
        :raises DivergenceError: If that is not asked for, or was done too often.
        """
        scheduler, last = self.state.scheduler, self.folder / LAST
        factor = scheduler.rate_factor / 2
        if self.config.on_divergence == "stop":
            kept = f"The last good checkpoint is {last}." if last.exists() else "There is no checkpoint yet."
            remedy = 'Check the data, lower the learning rate, or set `training.on_divergence` to "restore".'
            raise DivergenceError(f"{error} {remedy} {kept}") from error
        if factor < 0.5**_RESTORES:
            msg = (
                f"{error} The training went back {_RESTORES} times already, to {scheduler.rate_factor:.2g} of the "
                f"learning rate; start anew with a lower one in the config, and check the data and the model. The last "
                f"checkpoint is {last}; its weights may be no good either."
            )
            raise DivergenceError(msg) from error
        processes.wait_for_all()  # the first one may still be writing
        found = self.state.load(last)
        scheduler.rate_factor = factor
        steps = scheduler.current_step + 1
        where = f"step {steps}, the last checkpoint" if steps else "the start"
        log.say(f"{error} Going back to {where}, and on at {factor:g} of the learning rate.")
        return found

    def _begin_epoch(self, epoch: int) -> None:
        scheduler, average = self.state.scheduler, self.state.average
        with seeded_epoch(self.loader, scheduler.seed, epoch, self.state.device):
            scheduler.epoch_step()
        stage = scheduler.stages[scheduler.current_stage]
        if average is not None and stage.config.reorg_weights and epoch == stage.first_epoch:
            average.restart()  # the channels of its values have moved

    def _train_epoch(
        self, batches: Iterator[list[Any]], position: Position, log: TrainingLog, interruption: Interruption
    ) -> Position:
        """Trains what is left of an epoch, and returns where it ends."""
        self.state.supernet.model.train()
        for _ in zip(range(position.steps), batches, strict=False):
            pass  # loaded once more, since each draws random numbers
        saved = time.monotonic()
        while True:
            group = _next(batches, interruption)
            is_due = time.monotonic() - saved > 60 * self.config.checkpoint_minutes
            is_due, stop = processes.any_of(is_due, interruption.asked)
            if is_due or stop:
                self.state.save(self.folder / LAST, position)
                log.flush()
                saved = time.monotonic()
            if stop:
                raise _StoppedError(position)
            if not group:
                break
            step = self.run_step(group)
            if self.state.average is not None:
                self.state.average.update()
            position = position.after_step(step)
            log.step(step, self.state.optimizer.param_groups[0]["lr"])
        if not position.steps:
            msg = "The training loader gave no batch in an epoch; give one that can be gone through again and again."
            raise DataError(msg)
        return position

    def _validated(self, epoch: int, position: Position, interruption: Interruption) -> EpochRecord:
        """Returns what there is to say about an epoch whose steps are done."""
        scheduler, space = self.state.scheduler, self.state.supernet.space
        subnets = (space.maximum, scheduler.stages[-1].space.minimum, *self._validation_subnets())
        random = get_random_state(self.state.device)
        self.state.supernet.set_active(space.maximum)
        with self._averaged():
            scheduler.adapt_batchnorm()
            found = self._measured(subnets, interruption)
        if not found:  # stopped
            set_random_state(random, self.state.device)
            self.state.save(self.folder / LAST, position)
            raise _StoppedError(position)
        return EpochRecord(
            epoch=epoch,
            stage=scheduler.current_stage,
            steps=scheduler.current_step + 1,
            loss=position.loss / position.steps,
            learning_rate=self.state.optimizer.param_groups[0]["lr"],
            top1_maximum=found[0],
            top1_minimum=found[1],
            top1_random=tuple(found[2:]),
        )

    def _measured(self, subnets: Sequence[Subnet], interruption: Interruption) -> list[float]:
        """Returns the top-1 of subnets, or nothing if a signal asks to stop: the same in all processes."""
        found: list[float] = []
        for subnet in subnets:
            try:
                found.append(self.evaluate(subnet))
            except Exception:
                if not interruption.asked:  # it may have ended the loader's workers
                    raise
            if processes.any_of(interruption.asked)[0]:
                return []
        return found

    def _validation_subnets(self) -> Iterator[Subnet]:
        scheduler, count = self.state.scheduler, self.config.num_validation_subnets
        rng = np.random.default_rng([scheduler.seed, count])
        for _ in range(count):
            yield scheduler.stages[-1].space.sample(rng)

    def _averaged(self) -> AbstractContextManager[None]:
        """A context in which the weights are what is measured and kept as the best."""
        return nullcontext() if self.state.average is None else self.state.average.applied()


def _next(batches: Iterator[list[Any]], interruption: Interruption) -> list[Any]:
    """Returns the next batches; none at the end, or where a signal has ended the loader's workers, too."""
    try:
        return next(batches, [])
    except Exception:
        if interruption.asked:
            return []
        raise
