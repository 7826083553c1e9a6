"""The run folder: nothing is overwritten, and what is missing is named with the mode that makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.training.checkpoint import save_tensors
from samples.classification.run_folder import EXPORT, MODES, SEARCH, TRAIN, RunFolder, write_json


def trained(path: Path) -> RunFolder:
    folder = RunFolder(path)
    for file in (folder.config, folder.input_model, folder.supernet):
        file.write_text("", encoding="utf-8")
    return folder


def test_new_run_needs_an_empty_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path).check(MODES, resume=False)
    RunFolder(tmp_path / "new").check(MODES, resume=False)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is not empty; go on with the run in it by --resume, or choose another"):
        RunFolder(tmp_path).check((TRAIN,), resume=False)
    RunFolder(tmp_path).check(MODES, resume=True)


def test_search_needs_a_trained_supernet_and_no_search(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no config\.json in .*; run --mode train first"):
        RunFolder(tmp_path).check((SEARCH,), resume=False)
    folder = trained(tmp_path)
    folder.check((SEARCH, EXPORT), resume=False)
    folder.trials.touch()
    with pytest.raises(CheckpointError, match=r"trials\.db holds a search already; go on with it by --resume"):
        folder.check((SEARCH,), resume=False)
    folder.check((SEARCH,), resume=True)
    folder.supernet.unlink()
    with pytest.raises(CheckpointError, match=r"There is no supernet\.pt in .*; run --mode train first"):
        folder.check((SEARCH,), resume=True)


def test_export_needs_a_search(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    with pytest.raises(CheckpointError, match=r"There is no trials\.db in .*; run --mode search first"):
        folder.check((EXPORT,), resume=False)
    folder.trials.touch()
    folder.check((EXPORT,), resume=False)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot be written .*; choose a folder that you may write to"):
        RunFolder(tmp_path / "file" / "run").make()


def test_times_add_up(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.timing() == {}
    write_json(tmp_path / "timing.json", {"train": 100})
    with folder.timed("train"):
        pass
    with folder.timed("search"):
        pass
    assert list(folder.timing()) == ["train", "search"]
    assert 100 <= folder.timing()["train"] < 101
    (tmp_path / "timing.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"timing\.json is damaged .*; delete it"):
        folder.timing()


def test_best_checkpoint_becomes_the_supernet(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(CheckpointError, match=r"supernet\.pt cannot be written"):
        folder.keep_best_checkpoint()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"best")
    folder.keep_best_checkpoint()
    assert folder.supernet.read_bytes() == b"best"


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == {"a": [1, 2]}
    save_tensors(tmp_path / "file.pt", {"a": torch.ones(2)})
    assert torch.load(tmp_path / "file.pt", weights_only=True)["a"].tolist() == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.json", "file.pt"]
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_tensors(tmp_path / "missing" / "file.pt", {})


def test_export_without_the_search_in_between_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="leaves out the search"):
        RunFolder(tmp_path).check((TRAIN, EXPORT), resume=False)
