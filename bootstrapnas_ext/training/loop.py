"""The training loop, for those who have none of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from bootstrapnas_ext.config.training import OptimizationConfig
from bootstrapnas_ext.errors import CheckpointError, TrainingError
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.checkpoint import load_checkpoint, make_folder, restore_supernet, save_checkpoint
from bootstrapnas_ext.training.data_checks import (
    check_labels,
    check_logits,
    count_classes,
    count_steps,
    split_batch,
    stored_labels,
)
from bootstrapnas_ext.training.optimization import channels_last, make_channels_last
from bootstrapnas_ext.training.randomness import seeded_epoch
from bootstrapnas_ext.training.records import EpochRecord, TrainingResult
from bootstrapnas_ext.training.reporting import ProgressReporter, write_scalars
from bootstrapnas_ext.training.scheduler import TrainingScheduler
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet
from bootstrapnas_ext.training.weight_average import WeightAverage

#: File names within the folder of checkpoints.
LAST = "last.pt"
BEST = "best.pt"
#: The label that ``F.cross_entropy`` leaves out.
_IGNORED = -100


class Trainer:
    """
    Trains a super-network through the stages of its scheduler.

    After each epoch it recalibrates the maximum's norm statistics in the super-network, measures the maximum and the
    smallest subnet of the last stage, and writes ``last.pt`` and, at a new best :attr:`EpochRecord.score`, ``best.pt``.
    Everything random within an epoch depends on the scheduler's seed and the epoch alone.

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
    :param optimization: How weights are changed. With a moving average, that is what is measured after each epoch and
        written to ``best.pt``, while training goes on with the weights themselves; where a stage reorganizes channels,
        it begins anew.
    :param estimate: A subnet to how large its loss is, for the strategy "attentive", such as a predictor fitted before;
        if not given, the loss on the batch of the step.
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
        optimization: OptimizationConfig,
        estimate: Callable[[Subnet], float] | None = None,
    ) -> None:
        self._supernet = supernet
        self._scheduler = scheduler
        self._loader = loader
        self._criterion = criterion
        self._optimizer = optimizer
        self._loss = loss
        self._evaluate = evaluate
        self._optimization = optimization
        self._estimate = estimate
        self._average: WeightAverage | None = None
        self._device = next(supernet.parameters()).device
        # Not isinstance: a child may read outputs in its own way.
        self._is_cross_entropy = type(criterion) is nn.CrossEntropyLoss or criterion is F.cross_entropy
        self._classes: int | None = None
        self._history: list[EpochRecord] = []

    def run(self, checkpoint_dir: Path, log_dir: Path, *, resume: Path | None, console: Console) -> TrainingResult:
        """
        Trains until the last epoch of the last stage. The maximum subnet is active afterwards.

        Without ``resume`` it starts at the first epoch, also after another run.

        :param checkpoint_dir: The folder of ``last.pt`` and ``best.pt``.
        :param log_dir: The folder of the TensorBoard events.
        :param resume: The ``last.pt`` of an interrupted training to go on with, or ``None`` to start.
        :param console: Where progress is shown.
        :return: The record of all epochs.
        :raises DataError: If the loader is empty or a label is out of range.
        :raises ModelError: If the cross entropy cannot read what the model returns.
        :raises CheckpointError: If there is a ``last.pt`` already that this is not to resume, a checkpoint cannot be
            written, or the one to resume from does not fit.
        :raises TrainingError: If a loss is not finite.
        """
        if resume is None and (checkpoint_dir / LAST).exists():
            msg = (
                f"{checkpoint_dir / LAST} holds a training already; resume it (`resume=True`, --resume), or choose "
                "another folder."
            )
            raise CheckpointError(msg)
        self._supernet.set_active(self._supernet.space.maximum)
        steps = math.ceil(self._check_data() / self._optimization.gradient_accumulation)
        for folder in (checkpoint_dir, log_dir):
            make_folder(folder)
        if self._optimization.channels_last:
            make_channels_last(self._supernet.model)
        if self._optimization.ema_decay is not None:
            self._average = WeightAverage(self._supernet.parameters(), self._optimization.ema_decay)
        self._scheduler.reset()
        self._scheduler.attach(self._optimizer, steps)
        self._history = []
        if resume is not None:
            self._resume(resume)
        first_epoch = len(self._history)
        was_training = self._supernet.model.training
        with (
            ProgressReporter(console, self._scheduler.stages, first_epoch, steps) as progress,
            SummaryWriter(str(log_dir), purge_step=first_epoch) as writer,
        ):
            for epoch in range(first_epoch, self._scheduler.total_epochs):
                with seeded_epoch(self._loader, self._scheduler.seed, epoch, self._device):
                    record = self._run_epoch(epoch, progress)
                self._history.append(record)
                self._save(checkpoint_dir)
                progress.epoch(record)
                write_scalars(writer, record)
        self._supernet.model.train(was_training)
        return TrainingResult(tuple(self._history))

    def _check_data(self) -> int:
        steps = count_steps(self._loader)
        with seeded_epoch(self._loader, self._scheduler.seed, 0, self._device):
            inputs, targets = split_batch(next(iter(self._loader)))
            if self._is_cross_entropy:
                sample = inputs.with_batch(1).to(self._device)
                self._classes = count_classes(self._supernet.model, sample, targets)
        labels = stored_labels(getattr(self._loader, "dataset", None))
        if labels is not None:
            self._check_labels(labels)
        return steps

    def _check_labels(self, labels: torch.Tensor) -> None:
        if self._classes is not None:
            check_labels(labels, self._classes, getattr(self._criterion, "ignore_index", _IGNORED))

    def _run_epoch(self, epoch: int, progress: ProgressReporter) -> EpochRecord:
        self._scheduler.epoch_step()
        stage = self._scheduler.stages[self._scheduler.current_stage]
        if self._average is not None and stage.config.reorg_weights and epoch == stage.first_epoch:
            self._average.restart()  # the channels of its values have moved
        self._supernet.model.train()
        losses = []
        for batches in _groups(self._loader, self._optimization.gradient_accumulation):
            losses.append(self._run_step([self._prepared(batch) for batch in batches]))
            progress.step(epoch, self._scheduler.current_stage, losses[-1])
        self._supernet.set_active(self._supernet.space.maximum)
        with self._averaged():
            self._scheduler.adapt_batchnorm()
            return EpochRecord(
                epoch=epoch,
                stage=self._scheduler.current_stage,
                loss=sum(losses) / len(losses),
                learning_rate=self._optimizer.param_groups[0]["lr"],
                top1_maximum=self._evaluate(self._supernet.space.maximum),
                top1_minimum=self._evaluate(self._scheduler.stages[-1].space.minimum),
            )

    def _averaged(self) -> AbstractContextManager[None]:
        """A context in which the weights are what is measured and kept as the best."""
        return nullcontext() if self._average is None else self._average.applied()

    def _prepared(self, batch: Any) -> tuple[ExampleInput, torch.Tensor]:
        inputs, targets = split_batch(batch)
        self._check_labels(targets)
        inputs = inputs.to(self._device)
        if self._optimization.channels_last:
            inputs = inputs.map(channels_last)
        return inputs, targets.to(self._device)

    def _run_step(self, batches: list[tuple[ExampleInput, torch.Tensor]]) -> float:
        passes = self._scheduler.step(estimate=self._estimate or partial(self._batch_loss, *batches[0]))
        self._optimizer.zero_grad()
        total = 0.0
        for inputs, targets in batches:
            for subnet in passes:
                loss = self._loss_of(inputs, targets, self._loss) / len(batches)
                value = loss.item()
                if not math.isfinite(value):
                    raise self._divergence(value, subnet)
                torch.autograd.backward(loss)
                total += value
        if self._optimization.gradient_clipping is not None:
            nn.utils.clip_grad_norm_(self._supernet.parameters(), self._optimization.gradient_clipping)
        self._optimizer.step()
        if self._average is not None:
            self._average.update()
        return total

    def _loss_of(
        self, inputs: ExampleInput, targets: torch.Tensor, complete: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._optimization.bf16):
            outputs = self._supernet.model(*inputs.args, **inputs.kwargs)
            if self._is_cross_entropy:
                check_logits(outputs)  # again, since a model may return more in training than in evaluation mode
            return complete(self._criterion(outputs, targets))

    def _batch_loss(self, inputs: ExampleInput, targets: torch.Tensor, subnet: Subnet) -> float:
        with torch.no_grad(), self._supernet.activate(subnet):
            return self._loss_of(inputs, targets, lambda loss: loss).item()

    def _divergence(self, value: float, subnet: Subnet) -> TrainingError:
        scheduler = self._scheduler
        return TrainingError(
            f"The loss must be finite, but it is {value} in step {scheduler.current_step + 1} (epoch "
            f"{scheduler.current_epoch + 1} of {scheduler.total_epochs}, stage {scheduler.current_stage + 1} of "
            f"{len(scheduler.stages)}, learning rate {self._optimizer.param_groups[0]['lr']:.3g}) of the subnet "
            f"{dict(subnet)}; check the data or lower the learning rate."
        )

    def _save(self, folder: Path) -> None:
        # The best first: a training killed between the two repeats this epoch and writes both again.
        if TrainingResult(tuple(self._history)).best is self._history[-1]:
            with self._averaged():
                save_checkpoint(folder / BEST, self._contents())
        save_checkpoint(folder / LAST, self._contents())

    def _contents(self) -> dict[str, Any]:
        return {
            "supernet": self._supernet.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.get_state(),
            "scheduler": self._scheduler.get_state(),
            "history": [asdict(record) for record in self._history],
        }

    def _resume(self, path: Path) -> None:
        contents = load_checkpoint(path, ("scheduler", "supernet", "optimizer", "average", "history"))
        try:
            history = [EpochRecord(**record) for record in contents["history"]]
        except TypeError as error:
            msg = f"The history of {path} is damaged ({error}); use another checkpoint, or start without resuming."
            raise CheckpointError(msg) from error
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


def _groups(loader: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yields the batches of a loader in lists of that size; the last one may be shorter."""
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group
