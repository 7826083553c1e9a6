"""The training loop, for those who have none of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from bootstrapnas_ext import processes
from bootstrapnas_ext.config.training import TrainingConfig
from bootstrapnas_ext.errors import CheckpointError, DivergenceError
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.checkpoint import load_checkpoint, make_folder, restore_supernet, save_checkpoint
from bootstrapnas_ext.training.data_checks import count_steps, stored_labels
from bootstrapnas_ext.training.interruption import Interruption
from bootstrapnas_ext.training.optimization import make_channels_last
from bootstrapnas_ext.training.randomness import get_random_state, seeded_epoch, set_random_state
from bootstrapnas_ext.training.records import EpochProgress, EpochRecord, TrainingResult
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
        self._optimizer = optimizer
        self._evaluate = evaluate
        self._config = config
        self._description = description
        self._device = next(supernet.parameters()).device
        self._make_step_runner = partial(
            StepRunner,
            supernet,
            scheduler,
            criterion,
            optimizer,
            loss=loss,
            optimization=config.optimization,
            estimate=estimate,
        )
        self._average: WeightAverage | None = None
        self._steps_per_epoch = 0
        self._progress = EpochProgress()
        self._history: list[EpochRecord] = []

    def run(self, checkpoint_dir: Path, log_dir: Path, *, resume: Path | None, console: Console) -> TrainingResult:
        """
        Trains until the last epoch of the last stage. The maximum subnet is active afterwards.

        Without ``resume`` it starts at the first epoch, also after another run. SIGINT and SIGTERM let the step in
        progress finish and be saved before they act; a second one acts at once.

        :param checkpoint_dir: The folder of ``last.pt`` and ``best.pt``.
        :param log_dir: The folder of the TensorBoard events.
        :param resume: The ``last.pt`` of an interrupted training to go on with, or ``None`` to start.
        :param console: Where progress is shown.
        :return: The record of all epochs.
        :raises DataError: If the loader is empty or a label is out of range.
        :raises ModelError: If the cross entropy cannot read what the model returns.
        :raises CheckpointError: If there is a ``last.pt`` already that this is not to resume, a checkpoint cannot be
            written, or the one to resume from does not fit.
        :raises TrainingError: If a subnet or its loss cannot be computed.
        :raises DivergenceError: If a loss or gradient is not finite, and there is no going back.
        """
        last = checkpoint_dir / LAST
        if resume is None and last.exists():
            msg = f"{last} holds a training already; resume it (`resume=True`, --resume), or choose another folder."
            raise CheckpointError(msg)
        processes.wait_for_all()  # before the first one writes
        self._start(resume)
        for folder in (checkpoint_dir, log_dir):
            make_folder(folder)
        if self._config.on_divergence == "restore" and resume is None:
            self._save(last)  # to go back to
        with Interruption() as interruption:
            while True:
                log = TrainingLog(console, log_dir, self._scheduler, self._steps_per_epoch, self._progress.steps)
                try:
                    with log:
                        if self._description and not self._history:
                            log.config(self._description)
                        is_finished = self._train(checkpoint_dir, log, interruption)
                    break
                except DivergenceError as error:
                    log.say(self._go_back(error, last))
        processes.wait_for_all()  # before any of them reads what the first one has written
        if not is_finished:
            raise KeyboardInterrupt  # if the signal was another process's, or its own handler lets this one live
        return TrainingResult(tuple(self._history))

    def _start(self, resume: Path | None) -> None:
        self._supernet.set_active(self._supernet.space.maximum)
        optimization = self._config.optimization
        if optimization.channels_last:
            make_channels_last(self._supernet.model)
        self._run_step = self._make_step_runner()
        self._steps_per_epoch = math.ceil(self._check_data() / optimization.gradient_accumulation)
        if optimization.ema_decay is not None:
            self._average = WeightAverage(self._supernet.parameters(), optimization.ema_decay)
        self._scheduler.reset()
        self._scheduler.attach(self._optimizer, self._steps_per_epoch)
        self._history = []
        self._progress = EpochProgress()
        self._random: Any = None
        if resume is not None:
            self._resume(resume)

    def _check_data(self) -> int:
        batches = count_steps(self._loader)
        with seeded_epoch(self._loader, self._scheduler.seed, 0, self._device):
            self._run_step.expect(next(iter(self._loader)))
        labels = stored_labels(getattr(self._loader, "dataset", None))
        if labels is not None:
            self._run_step.check_labels(labels)
        return batches

    def _train(self, folder: Path, log: TrainingLog, interruption: Interruption) -> bool:
        """Trains to the end, or until a signal asks to stop, which is after a checkpoint; returns whether it ended."""
        was_training = self._supernet.model.training
        is_finished = True
        for epoch in range(len(self._history), self._scheduler.total_epochs):
            with seeded_epoch(self._loader, self._scheduler.seed, epoch, self._device):
                is_finished = self._train_epoch(folder / LAST, log, interruption)
                if not is_finished:
                    break
                record = self._validated(epoch)
            self._history.append(record)
            self._progress = EpochProgress()
            # The best first: a training killed between the two repeats this epoch and writes both again.
            if TrainingResult(tuple(self._history)).best is record:
                with self._averaged():
                    self._save(folder / BEST)
            self._save(folder / LAST)
            log.epoch(record)
        if not is_finished:
            log.say(f"{interruption.name or 'Another process'}: stopped, and saved {folder / LAST} to resume from.")
        self._supernet.model.train(was_training)
        return is_finished

    def _train_epoch(self, last: Path, log: TrainingLog, interruption: Interruption) -> bool:
        """Trains what is left of an epoch, and returns whether it was all of it."""
        done = self._progress.steps
        if not done:
            self._scheduler.epoch_step()
            stage = self._scheduler.stages[self._scheduler.current_stage]
            if self._average is not None and stage.config.reorg_weights and len(self._history) == stage.first_epoch:
                self._average.restart()  # the channels of its values have moved
        self._supernet.model.train()
        batches = _groups(self._loader, self._config.optimization.gradient_accumulation)
        for _ in islice(batches, done):
            pass  # loaded once more, since the loader's workers draw random numbers for each
        if done:
            set_random_state(self._random, self._device)
        saved = time.monotonic()
        while (group := _next(batches, interruption)) is not None:
            step = self._run_step(group)
            if self._average is not None:
                self._average.update()
            self._progress = self._progress.plus(step)
            log.step(step, self._optimizer.param_groups[0]["lr"])
            is_due = time.monotonic() - saved > 60 * self._config.checkpoint_minutes
            is_due, stop = processes.any_of(is_due, interruption.asked)
            if is_due or stop:
                self._save(last)
                saved = time.monotonic()
            if stop:
                return False
        return True

    def _validated(self, epoch: int) -> EpochRecord:
        """Returns what there is to say about an epoch whose steps are done."""
        self._supernet.set_active(self._supernet.space.maximum)
        smallest = self._scheduler.stages[-1].space.minimum
        with self._averaged():
            self._scheduler.adapt_batchnorm()
            return EpochRecord(
                epoch=epoch,
                stage=self._scheduler.current_stage,
                steps=self._scheduler.current_step + 1,
                loss=self._progress.loss / self._progress.steps,
                learning_rate=self._optimizer.param_groups[0]["lr"],
                top1_maximum=self._evaluate(self._supernet.space.maximum),
                top1_minimum=self._evaluate(smallest),
                top1_random=tuple(self._evaluate(subnet) for subnet in self._validation_subnets()),
            )

    def _validation_subnets(self) -> Iterator[Subnet]:
        rng = np.random.default_rng([self._scheduler.seed, self._config.num_validation_subnets])
        for _ in range(self._config.num_validation_subnets):
            yield self._scheduler.stages[-1].space.sample(rng)

    def _averaged(self) -> AbstractContextManager[None]:
        """A context in which the weights are what is measured and kept as the best."""
        return nullcontext() if self._average is None else self._average.applied()

    def _go_back(self, error: DivergenceError, last: Path) -> str:
        """Restores the last checkpoint at half the learning rate, and returns a sentence about it."""
        factor = self._scheduler.rate_factor / 2
        if self._config.on_divergence == "stop" or factor < 0.5**_RESTORES:
            kept = f"The last good checkpoint is {last}." if last.exists() else "There is no checkpoint yet."
            raise DivergenceError(f"{error} {kept}") from error
        processes.wait_for_all()  # the first one may still be writing
        self._resume(last)
        self._scheduler.rate_factor = factor
        return (
            f"{error} Going back to step {self._scheduler.current_step + 1}, the last checkpoint, and on at {factor:g} "
            "of the learning rate."
        )

    def _save(self, path: Path) -> None:
        """Writes a checkpoint; all processes call it, and the first one writes."""
        is_within = self._progress.steps > 0
        random = processes.gather(get_random_state(self._device)) if is_within else None
        if processes.rank() == 0:
            contents = {
                "supernet": self._supernet.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "average": None if self._average is None else self._average.get_state(),
                "scheduler": self._scheduler.get_state(),
                "history": [asdict(record) for record in self._history],
                "progress": {**asdict(self._progress), "steps_per_epoch": self._steps_per_epoch},
                "random": random,
            }
            save_checkpoint(path, contents)

    def _resume(self, path: Path) -> None:
        contents = load_checkpoint(
            path, ("scheduler", "supernet", "optimizer", "average", "history", "progress", "random")
        )
        progress = contents["progress"]
        try:
            history = [EpochRecord(**record) for record in contents["history"]]
            steps_per_epoch = progress.pop("steps_per_epoch")
            self._progress = EpochProgress(**progress)
        except (KeyError, TypeError) as error:
            msg = f"The history of {path} is damaged ({error}); use another checkpoint, or start without resuming."
            raise CheckpointError(msg) from error
        if self._progress.steps:
            self._check_same_data(path, steps_per_epoch, len(contents["random"]))
            self._random = contents["random"][processes.rank()]
        self._scheduler.load_state(contents["scheduler"])
        restore_supernet(self._supernet, contents, path)
        try:
            self._optimizer.load_state_dict(contents["optimizer"])
        except (KeyError, ValueError) as error:
            msg = f"The optimizer does not fit that of {path} ({error}); resume with the same kind of optimizer."
            raise CheckpointError(msg) from error
        if self._average is not None:
            try:
                self._average.load_state(contents["average"])
            except ValueError as error:
                msg = f"{path} does not fit: {error}; use another checkpoint, or start without resuming."
                raise CheckpointError(msg) from error
        self._history = history

    def _check_same_data(self, path: Path, steps_per_epoch: int, count: int) -> None:
        """Checks that the rest of an epoch is what it would have been."""
        if (steps_per_epoch, count) != (self._steps_per_epoch, processes.count()):
            msg = (
                f"{path} was written in the midst of an epoch of {steps_per_epoch} steps in {count} processes, but "
                f"here an epoch has {self._steps_per_epoch} steps in {processes.count()}; resume with the same data, "
                "batch size and number of processes."
            )
            raise CheckpointError(msg)


def _next(batches: Iterator[list[Any]], interruption: Interruption) -> list[Any] | None:
    try:
        return next(batches, None)
    except RuntimeError:
        if interruption.asked:  # Ctrl-C reaches the loader's workers, too
            return None
        raise


def _groups(loader: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yields the batches of a loader in lists of that size; the last one may be shorter."""
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group
