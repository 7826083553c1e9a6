"""What a user sees of a running training: a progress bar or lines, and TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from bootstrapnas_ext.training.records import EpochRecord
from bootstrapnas_ext.training.stages import Stage


class ProgressReporter:
    """
    A bar over all steps with the time left, and a line for each finished epoch; the line only where there is no
    terminal.

    Use it as a context.

    :param console: Where to draw.
    :param stages: All stages of the training.
    :param first_epoch: The epoch to start with, from 0.
    :param steps_per_epoch: Number of steps of an epoch.
    """

    def __init__(self, console: Console, stages: Sequence[Stage], first_epoch: int, steps_per_epoch: int) -> None:
        self._stages = stages
        self._epochs = stages[-1].first_epoch + stages[-1].config.epochs
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            "",
            total=self._epochs * steps_per_epoch,
            completed=first_epoch * steps_per_epoch,
        )

    def __enter__(self) -> ProgressReporter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, epoch: int, stage: int, loss: float) -> None:
        """
        Shows a finished step.

        :param epoch: Its epoch, from 0.
        :param stage: Index of its stage.
        :param loss: Its loss.
        """
        self._progress.update(self._task, advance=1, description=f"{self._title(epoch, stage)}  loss {loss:.4f}")

    def epoch(self, record: EpochRecord) -> None:
        """
        Shows a finished epoch.

        :param record: The epoch.
        """
        self._console.print(
            f"{self._title(record.epoch, record.stage)}  lr {record.learning_rate:.3g}  loss {record.loss:.4f}  "
            f"top-1 of maximum {record.top1_maximum:.2f} %, of minimum {record.top1_minimum:.2f} %",
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )

    def _title(self, epoch: int, stage: int) -> str:
        dimensions = ", ".join(self._stages[stage].config.train_dims or ())
        return f"epoch {epoch + 1}/{self._epochs}  stage {stage + 1}/{len(self._stages)} ({dimensions})"


def write_scalars(writer: SummaryWriter, record: EpochRecord) -> None:
    """
    Writes an epoch's scalars over the number of the epoch.

    :param writer: Where to write.
    :param record: The epoch.
    """
    for tag, value in (
        ("train/loss", record.loss),
        ("train/learning_rate", record.learning_rate),
        ("train/stage", record.stage),
        ("validation/top1_maximum", record.top1_maximum),
        ("validation/top1_minimum", record.top1_minimum),
    ):
        writer.add_scalar(tag, value, record.epoch)
    writer.flush()
