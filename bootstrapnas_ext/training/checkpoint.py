"""Checkpoints: written at once or not at all, read without running code from the file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet
from bootstrapnas_ext.writing import whole_file

#: Stands in every checkpoint; a change of its contents changes the number.
FORMAT = "bootstrapnas_ext training checkpoint 3"
#: What to do about one that cannot be used.
ANOTHER = "put a whole one in its place, such as the `best.pt` of the same training, or start anew in another folder"


def save_checkpoint(path: Path, contents: dict[str, Any]) -> None:
    """
    Writes a checkpoint. What was at the path stays whole until the new one is.

    :param path: The file; its folder exists.
    :param contents: Tensors and plain values in dictionaries, lists and tuples.
    :raises CheckpointError: If the file cannot be written.
    """
    save_tensors(path, {"format": FORMAT, **contents})


def save_tensors(path: Path, contents: Any) -> None:
    """
    Writes a file that ``torch.load`` reads. What was at the path stays whole until the new one is.

    :param path: The file; its folder exists.
    :param contents: Tensors and plain values.
    :raises CheckpointError: If the file cannot be written.
    """
    try:
        with whole_file(path) as partial, partial.open("wb") as file:
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        msg = f"{path} cannot be written ({error}); free space or choose another folder."
        raise CheckpointError(msg) from error


def make_folder(folder: Path) -> None:
    """
    Makes the folder of a run.

    :param folder: It may be there already.
    :raises CheckpointError: If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The folder {folder} cannot be made ({error}); choose another one."
        raise CheckpointError(msg) from error
    if not os.access(folder, os.W_OK):
        msg = f"The folder {folder} is not writable; change its permissions or choose another one."
        raise CheckpointError(msg)


def load_checkpoint(path: Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """
    Reads a checkpoint that :func:`save_checkpoint` wrote, with all tensors on the CPU.

    :param path: The file.
    :param keys: What it must hold.
    :raises CheckpointError: If the file is missing, damaged or something else.
    """
    if not path.is_file():
        msg = f"There is no checkpoint at {path}; check the path, or start without resuming."
        raise CheckpointError(msg)
    try:
        contents: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load documents no errors of its own: they depend on which bytes are damaged
        msg = f"The checkpoint {path} is damaged or not a checkpoint; {ANOTHER}."
        raise CheckpointError(msg) from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        msg = f"{path} must be a {FORMAT!r}, but it is something else; give the `last.pt` or `best.pt` of a training."
        raise CheckpointError(msg)
    if missing := [key for key in keys if key not in contents]:
        msg = f"The checkpoint {path} is damaged: it has no {missing[0]!r}; {ANOTHER}."
        raise CheckpointError(msg)
    return contents


def load_supernet(supernet: TrainableSupernet, path: str | Path) -> None:
    """
    Loads the super-network of a checkpoint, for example the best one after training.

    :param supernet: A super-network of the same structure.
    :param path: A checkpoint of :class:`bootstrapnas_ext.training.Trainer`.
    :raises CheckpointError: If the checkpoint is missing, damaged or of another super-network.
    """
    restore_supernet(supernet, load_checkpoint(Path(path), ("supernet",)), Path(path))


def restore_supernet(supernet: TrainableSupernet, contents: Mapping[str, Any], path: Path) -> None:
    """
    Loads the super-network of a checkpoint that was read already.

    :param supernet: A super-network of the same structure.
    :param contents: The checkpoint.
    :param path: Where it was read from, for the error message.
    :raises CheckpointError: If it is of another super-network.
    """
    try:
        supernet.load_state_dict(contents["supernet"])
    except CheckpointError as error:
        msg = f"{path}: {error}"
        raise CheckpointError(msg) from error
