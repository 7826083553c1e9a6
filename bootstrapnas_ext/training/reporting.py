"""What a user sees of a running training: a progress bar or lines, and TensorBoard."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from bootstrapnas_ext import processes
from bootstrapnas_ext.training.records import EpochRecord, StepRecord
from bootstrapnas_ext.training.scheduler import TrainingScheduler


class TrainingLog:
    """
    A bar over all steps with the time left, and a line for each finished epoch; the line only where there is no
    terminal. TensorBoard has all numbers over the steps of training. Of several processes, the first one tells.

    Use it as a context.

    :param console: Where to draw.
    :param folder: The folder of the TensorBoard events; those of later steps, of a training that did not get as far as
        its next checkpoint, do not count any more.
    :param scheduler: At the step after which it begins.
    :param steps_per_epoch: Number of steps of an epoch.
    :param done: How many of the current epoch are done.
    """

    def __init__(
        self, console: Console, folder: Path, scheduler: TrainingScheduler, steps_per_epoch: int, done: int
    ) -> None:
        is_first = processes.rank() == 0
        self._console = console if is_first else Console(quiet=True)
        self._scheduler = scheduler
        self._writer = SummaryWriter(str(folder), purge_step=scheduler.current_step + 2) if is_first else None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        epochs = scheduler.current_epoch + (0 if done else 1)
        self._task = self._progress.add_task(
            self._title(min(epochs, scheduler.total_epochs - 1), scheduler.current_stage),
            total=scheduler.total_epochs * steps_per_epoch,
            completed=epochs * steps_per_epoch + done,
        )

    def __enter__(self) -> TrainingLog:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def config(self, text: str) -> None:
        """
        Keeps the config.

        :param text: The config, in Markdown.
        """
        if self._writer is not None:
            self._writer.add_text("config", text, self._scheduler.current_step + 1)

    def say(self, sentence: str) -> None:
        """
        Shows a sentence.

        :param sentence: About what happened.
        """
        self._console.print(sentence, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def step(self, record: StepRecord, learning_rate: float) -> None:
        """
        Shows a finished step.

        :param record: The step.
        :param learning_rate: Its learning rate.
        """
        title = self._title(self._scheduler.current_epoch, self._scheduler.current_stage)  # short: terminals are narrow
        self._progress.update(self._task, advance=1, description=f"{title}  loss {record.loss:.4f}")
        self._write(
            self._scheduler.current_step + 1,
            {
                "train/loss": record.loss,
                "train/gradient_norm": record.gradient_norm,
                "train/learning_rate": learning_rate,
            },
        )

    def epoch(self, record: EpochRecord) -> None:
        """
        Shows a finished epoch.

        :param record: The epoch.
        """
        dimensions = ", ".join(self._scheduler.stages[record.stage].config.train_dims or ())
        some = f", of random ones {', '.join(f'{top1:.2f}' for top1 in record.top1_random)} %"
        self.say(
            f"{self._title(record.epoch, record.stage)} ({dimensions})  lr {record.learning_rate:.3g}  "
            f"loss {record.loss:.4f}  top-1 of maximum {record.top1_maximum:.2f} %, of minimum "
            f"{record.top1_minimum:.2f} %{some if record.top1_random else ''}"
        )
        validation = {"maximum": record.top1_maximum, "minimum": record.top1_minimum} | {
            f"random_{number}": top1 for number, top1 in enumerate(record.top1_random, 1)
        }
        self._write(
            record.steps,
            {
                "train/epoch": record.epoch + 1,
                "train/stage": record.stage + 1,
                "train/loss_of_epoch": record.loss,
                **{f"validation/top1_{name}": top1 for name, top1 in validation.items()},
            },
        )
        self.flush()

    def flush(self) -> None:
        """Puts what was told so far into the file of events."""
        if self._writer is not None:
            self._writer.flush()

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        if self._writer is not None:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, step)

    def _title(self, epoch: int, stage: int) -> str:
        scheduler = self._scheduler
        return f"epoch {epoch + 1}/{scheduler.total_epochs}  stage {stage + 1}/{len(scheduler.stages)}"
