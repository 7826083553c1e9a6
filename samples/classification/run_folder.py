"""The folder of a run: what lies where, and what has to be there."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bootstrapnas_ext import processes
from bootstrapnas_ext.algorithms import PLOT, TRIALS
from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.training import BEST
from bootstrapnas_ext.writing import whole_file
from samples.classification.settings import INPUT_MODEL

TRAIN, SEARCH, EXPORT = "train", "search", "export"
MODES = (TRAIN, SEARCH, EXPORT)
SUBNET = "subnet.json"
"""What is known of an exported subnet, beside its files."""


class RunFolder:
    """
    The folder of a run.

    :param path: The folder; need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.input_model = path / INPUT_MODEL
        self.pretraining = path / "pretraining.pt"
        self.supernet = path / "supernet.pt"
        self.trials = path / TRIALS
        self.plot = path / PLOT
        self.subnets = path / "subnets"
        self.summary = path / "summary.json"
        self._best_checkpoint = path / "checkpoints" / BEST
        self._timing = path / "timing.json"

    def check(self, modes: Collection[str], *, resume: bool) -> None:
        """
        Checks that the folder has what the modes need, and nothing that they would overwrite.

        :param modes: Of :data:`MODES`.
        :param resume: Whether an interrupted run goes on.
        :raises CheckpointError: If something is missing, or would be overwritten.
        """
        if TRAIN in modes and EXPORT in modes and SEARCH not in modes:
            msg = f"--mode {TRAIN} {EXPORT} leaves out the search, which finds what to export; add {SEARCH}."
            raise CheckpointError(msg)
        if TRAIN not in modes:
            self.check_trained()
            if SEARCH not in modes:
                _require(self.trials, f"run --mode {SEARCH} first")
            elif self.trials.exists() and not resume:
                msg = f"{self.trials} holds a search already; go on with it by --resume, or move it away for a new one."
                raise CheckpointError(msg)
        elif not resume and self.path.is_dir() and any(self.path.iterdir()):
            msg = f"{self.path} is not empty; go on with the run in it by --resume, or choose another folder."
            raise CheckpointError(msg)

    def check_trained(self) -> None:
        """
        Checks that the folder has a trained super-network.

        :raises CheckpointError: If it has not.
        """
        for path in (self.config, self.input_model, self.supernet):
            _require(path, f"run --mode {TRAIN} first, with --resume if it was interrupted")

    def make(self) -> None:
        """
        Makes the folder, and tries whether it can be written to.

        :raises CheckpointError: If it cannot.
        """
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass

    def keep_best_checkpoint(self) -> None:
        """Makes the best checkpoint of the training the super-network of the run; the first process does."""
        if processes.rank():
            return
        with _writing(self.supernet), whole_file(self.supernet) as partial:
            shutil.copyfile(self._best_checkpoint, partial)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """
        Measures how long a part of the run takes, and adds it to what it took before: an interrupted part may go on.

        Of several processes, the first one does.

        :param name: Of the part.
        """
        if processes.rank():
            yield
            return
        start = time.perf_counter()
        try:
            yield
        finally:
            timing = self.timing()
            write_json(self._timing, {**timing, name: round(timing.get(name, 0.0) + time.perf_counter() - start, 3)})

    def timing(self) -> dict[str, float]:
        """Returns the seconds of each part of the run so far."""
        try:
            timing: dict[str, float] = json.loads(self._timing.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            msg = f"{self._timing} is damaged ({error}); delete it, which loses the times of earlier parts only."
            raise CheckpointError(msg) from error
        return timing


def write_json(path: Path, content: Any) -> None:
    """
    Writes a JSON file; what was there stays whole until the new one is.

    :param path: The file; its folder exists.
    :param content: What JSON can hold.
    :raises CheckpointError: If it cannot be written.
    """
    with _writing(path), whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        msg = f"{path} cannot be written ({error}); choose a folder that you may write to, with space left."
        raise CheckpointError(msg) from error


def _require(path: Path, remedy: str) -> None:
    if not path.is_file():
        msg = f"There is no {path.name} in {path.parent}; {remedy}."
        raise CheckpointError(msg)
