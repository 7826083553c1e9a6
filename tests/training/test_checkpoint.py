"""Checkpoints: whole or not there, and safe to read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.training.checkpoint import load_checkpoint, load_supernet, save_checkpoint
from tests.training.fake_supernet import FakeSupernet

CONTENTS = {"tensor": torch.arange(3.0), "list": [{"epoch": 1}], "none": None}


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_reads_what_was_written(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", CONTENTS)
    contents = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(contents.pop("tensor"), CONTENTS["tensor"])
    assert (contents["list"], contents["none"]) == ([{"epoch": 1}], None)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, CONTENTS)

    def fill_the_disk(contents: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be written .*No space left"):
        save_checkpoint(path, {})
    assert torch.equal(load_checkpoint(path)["tensor"], CONTENTS["tensor"])
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be written .*choose another folder"):
        save_checkpoint(tmp_path / "runs" / "last.pt", CONTENTS)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no checkpoint at .*last\.pt"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -10])
def test_damaged_file_is_refused_in_one_line(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, CONTENTS)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged or not a checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("contents", [{"weight": torch.ones(1)}, torch.ones(1), {"format": "other"}])
def test_foreign_file_is_refused(tmp_path: Path, contents: Any) -> None:
    torch.save(contents, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt must be a 'bootstrapnas_ext training checkpoint 3'"):
        load_checkpoint(tmp_path / "weights.pt")


def test_checkpoint_without_a_part_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", {"optimizer": {}})
    with pytest.raises(CheckpointError, match=r"best\.pt is damaged: it has no 'supernet'; put a whole one"):
        load_supernet(FakeSupernet(), tmp_path / "best.pt")


def test_code_in_the_file_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"format": Malicious(trace)}, tmp_path / "last.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Malicious(trace)))
    for name in ("last.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not trace.exists()


def test_supernet_is_loaded_from_its_checkpoint(tmp_path: Path) -> None:
    trained, fresh = FakeSupernet(seed=1), FakeSupernet(seed=2)
    save_checkpoint(tmp_path / "best.pt", {"supernet": trained.state_dict()})
    load_supernet(fresh, tmp_path / "best.pt")
    for name, value in trained.model.state_dict().items():
        assert torch.equal(fresh.model.state_dict()[name], value)


def test_checkpoint_of_another_supernet_is_refused(tmp_path: Path) -> None:
    other = {"structure": "other", "weights": torch.nn.Linear(2, 2).state_dict()}
    save_checkpoint(tmp_path / "best.pt", {"supernet": other})
    with pytest.raises(CheckpointError, match=r"best\.pt: The state is of another super-network") as caught:
        load_supernet(FakeSupernet(), tmp_path / "best.pt")
    assert "\n" not in str(caught.value)
