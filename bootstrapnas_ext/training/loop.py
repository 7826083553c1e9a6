"""The training loop, for those who have none of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from bootstrapnas_ext.training.randomness import seeded_epoch, set_random_state
from bootstrapnas_ext.training.records import TrainingResult
from bootstrapnas_ext.training.reporting import TrainingLog
from bootstrapnas_ext.training.scheduler import TrainingScheduler
from bootstrapnas_ext.training.session import LAST, Session
from bootstrapnas_ext.training.steps import StepRunner
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet
from bootstrapnas_ext.training.weight_average import WeightAverage


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

    def _session(self, resume: Path | None, folder: Path) -> tuple[Session, Position, dict[str, Any] | None]:
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
        return Session(state, run_step, self._loader, self._evaluate, self._config, folder), position, random

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
