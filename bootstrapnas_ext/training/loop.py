"""The training loop, for those who have none of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from bootstrapnas_ext import processes
from bootstrapnas_ext.config.training import TrainingConfig
from bootstrapnas_ext.errors import CheckpointError, DataError, DivergenceError
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.checkpoint import make_folder
from bootstrapnas_ext.training.data_checks import check_parameters, count_steps, stored_labels
from bootstrapnas_ext.training.interruption import Interruption
from bootstrapnas_ext.training.optimization import make_channels_last
from bootstrapnas_ext.training.position import Position, TrainingState
from bootstrapnas_ext.training.randomness import batches_of_epoch, get_random_state, seeded_epoch, set_random_state
from bootstrapnas_ext.training.records import EpochRecord, TrainingResult
from bootstrapnas_ext.training.reporting import TrainingLog
from bootstrapnas_ext.training.scheduler import TrainingScheduler
from bootstrapnas_ext.training.steps import StepRunner
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet
from bootstrapnas_ext.training.weight_average import WeightAverage

#: File names within the folder of checkpoints.
LAST = "last.pt"
BEST = "best.pt"
#: How often a training goes back from a divergence before it gives up: then its learning rate is a thousandth.
_RESTORES = 10


class Trainer:
    """
    Trains a super-network through the stages of its scheduler.

    After each epoch it recalibrates the maximum's norm statistics in the super-network, measures the maximum, the
    smallest subnet of the last stage and some random ones, and writes ``last.pt`` and, at a new best
    :attr:`EpochRecord.score`, ``best.pt``. Every few minutes, and when a signal asks it to stop, it writes ``last.pt``
    in the midst of an epoch.

    Everything random within an epoch depends on the scheduler's seed and the epoch alone, and ``last.pt`` has the
    states of generators in its midst, so that on the CPU a training that was stopped anywhere and resumed ends with the
    weights of one that was not.

    Where ``torch.distributed`` is initialized, each process gives batches of its own, and only the first one writes.

    :param supernet: The super-network, on the device to train on.
    :param scheduler: Its scheduler.
    :param loader: Gives batches ``(inputs, targets)``, inputs as in :func:`bootstrapnas_ext.inputs.as_input`; has a
        length.
    :param criterion: The loss of ``(outputs, targets)``, a scalar. Only of PyTorch's cross entropy it is known what
        outputs and labels must be, so only then they are checked.
    :param optimizer: Over ``supernet.parameters()``.
    :param loss: Makes the loss of a pass from that of the criterion; see
        :class:`bootstrapnas_ext.training.StepLoss`.
    :param evaluate: A subnet to its top-1 on the validation data, in percent.
    :param config: How weights are changed, and when the training saves, validates and goes back. With a moving average,
        that is what is measured after each epoch and written to ``best.pt``, while training goes on with the weights
        themselves; where a stage reorganizes channels, it begins anew.
    :param estimate: A subnet to how large its loss is, for the strategy "attentive", such as a predictor fitted before;
        if not given, the loss on the batch of the step.
    :param description: What TensorBoard shows as the config, in Markdown.
    """

    def __init__(
        self,
        supernet: TrainableSupernet,
        scheduler: TrainingScheduler,
        loader: Any,
        criterion: Callable[[Any, torch.Tensor], torch.Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        loss: Callable[[torch.Tensor], torch.Tensor],
        evaluate: Callable[[Subnet], float],
        config: TrainingConfig,
        estimate: Callable[[Subnet], float] | None = None,
        description: str = "",
    ) -> None:
        self._supernet = supernet
        self._scheduler = scheduler
        self._loader = loader
        self._criterion = criterion
        self._optimizer = optimizer
        self._loss = loss
        self._evaluate = evaluate
        self._config = config
        self._estimate = estimate
        self._description = description

    def run(self, checkpoint_dir: Path, log_dir: Path, *, resume: Path | None, console: Console) -> TrainingResult:
        """
        Trains until the last epoch of the last stage. The maximum subnet is active afterwards.

        Without ``resume`` it starts at the first epoch, also after another run. SIGINT and SIGTERM let the step or the
        validation of a subnet in progress finish and be saved before they act; a second one acts at once.

        :param checkpoint_dir: The folder of ``last.pt`` and ``best.pt``.
        :param log_dir: The folder of the TensorBoard events.
        :param resume: The ``last.pt`` of an interrupted training to go on with, or ``None`` to start.
        :param console: Where progress is shown.
        :return: The record of all epochs.
        :raises DataError: If the loader is empty or a label is out of range.
        :raises ModelError: If the cross entropy cannot read what the model returns.
        :raises CheckpointError: If there is a ``last.pt`` already that this is not to resume, a checkpoint cannot be
            written, or the one to resume from does not fit.
        :raises TrainingError: If the optimizer lacks a parameter, or a subnet or its loss cannot be computed.
        :raises DivergenceError: If a loss or gradient is not finite, and there is no going back.
        """
        last = checkpoint_dir / LAST
        if resume is None and last.exists():
            msg = f"{last} holds a training already; resume it (`resume=True`, --resume), or choose another folder."
            raise CheckpointError(msg)
        processes.wait_for_all()  # before the first one writes
        session, position, random = self._session(resume, checkpoint_dir)
        for folder in (checkpoint_dir, log_dir):
            make_folder(folder)
        state = session.state
        if self._config.on_divergence == "restore" and resume != last:
            with seeded_epoch(self._loader, self._scheduler.seed, len(position.history), state.device):
                if random is not None:
                    set_random_state(random, state.device)
                state.save(last, position)  # to go back to
        was_training = self._supernet.model.training
        with Interruption() as interruption:
            while True:
                with TrainingLog(console, log_dir, self._scheduler, state.steps_per_epoch, position.steps) as log:
                    if self._description and not position.history:
                        log.config(self._description)
                    try:
                        position, is_finished = session.train(position, random, log, interruption)
                        break
                    except DivergenceError as error:
                        position, random = session.go_back(error, log)
            processes.wait_for_all()  # before any of them reads what the first one has written
        self._supernet.model.train(was_training)
        if not is_finished:
            raise KeyboardInterrupt  # the signal was another process's, or its own handler lets this one live
        return TrainingResult(position.history)

    def _session(self, resume: Path | None, folder: Path) -> tuple[_Session, Position, dict[str, Any] | None]:
        """Returns what runs the training, where it begins and, in the midst of an epoch, the random state there."""
        supernet, scheduler, optimization = self._supernet, self._scheduler, self._config.optimization
        device = next(supernet.parameters()).device
        supernet.set_active(supernet.space.maximum)
        check_parameters(self._optimizer, supernet.model)
        if optimization.channels_last:
            make_channels_last(supernet.model)
        run_step = StepRunner(
            supernet,
            scheduler,
            self._criterion,
            self._optimizer,
            loss=self._loss,
            optimization=optimization,
            estimate=self._estimate,
        )
        steps_per_epoch = math.ceil(self._check_data(run_step, device) / optimization.gradient_accumulation)
        average = (
            None if optimization.ema_decay is None else WeightAverage(supernet.parameters(), optimization.ema_decay)
        )
        scheduler.reset()
        scheduler.attach(self._optimizer, steps_per_epoch)
        state = TrainingState(supernet, scheduler, self._optimizer, average, steps_per_epoch, device)
        position, random = (Position(), None) if resume is None else state.load(resume)
        return _Session(state, run_step, self._loader, self._evaluate, self._config, folder), position, random

    def _check_data(self, run_step: StepRunner, device: torch.device) -> int:
        batches = count_steps(self._loader)
        if len(counts := set(processes.gather(batches))) > 1:
            msg = (
                "The training loaders of all processes must have equally many batches, but they have "
                f"{sorted(counts)}; give each the same number of samples, for example by a `DistributedSampler`."
            )
            raise DataError(msg)
        with seeded_epoch(self._loader, self._scheduler.seed, 0, device):
            batch = next(iter(self._loader), None)
        if batch is None:
            msg = f"The training loader must give {batches} batches, its length, but it gives none; check the data."
            raise DataError(msg)
        run_step.expect(batch)
        labels = stored_labels(self._loader)
        if labels is not None:
            run_step.check_labels(labels)
        return batches


class _StoppedError(Exception):
    """A signal has asked to stop, all processes have agreed on it, and the position is saved."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position


@dataclass(frozen=True)
class _Session:
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
                f"learning rate; check the data and the model. The last good checkpoint is {last}."
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
