"""The command line: every mistake of the user is one line and exit code 2, and nothing that was there changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samples.classification.command_line  # noqa: F401 - now, since PyTorch may print a warning when it is imported
from samples.classification.main import main
from tests.samples.runs import small_config, write_config

Contents = dict[str, bytes]


class Branching(nn.Module):
    """Takes another way for other images, which no trace can hold."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such way")


class Static(nn.Module):
    """Has nothing elastic: its only layer gives the model's output."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class FewOutputs(nn.Sequential):
    """Does not care how many classes it is asked for."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, 4))


class NoTensor(FewOutputs):
    """Returns its logits in a dictionary."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(x)}


def contents(folder: Path) -> Contents:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the sample, expects a user's mistake, and returns the line that was printed."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1, errors
        return errors

    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_siez": 3, "batch_size": None}, "$.batch_siez: unknown key; did you mean 'batch_size'?"),
        ({"model": "resnet_20"}, "did you mean 'resnet20'?"),
        ({"pretrain": None}, "resnet20 has no weights: give a file with --weights, or let the sample train"),
        ({"weights": "no/such/file.pt"}, "no/such/file.pt; give its path with --weights"),
        ({"weights": "DEFAULT"}, "'DEFAULT' is neither a file nor weights that torchvision has for 'resnet20'"),
        ({"model": f"{__name__}:Branching"}, "RuntimeError: no such way"),
        ({"model": f"{__name__}:Static"}, "Nothing of Static is elastic"),
        (
            {"model": f"{__name__}:FewOutputs", "bootstrapNAS": {}},
            "the model has 4 outputs, but the training data has label=9",
        ),
        (
            {"model": f"{__name__}:NoTensor", "bootstrapNAS": {}},
            "Cross entropy needs a model that returns a tensor of logits",
        ),
        ({"num_classes": 4}, "config.json: $.num_classes must be at least 10"),
        ({"model": "no.such:model"}, "config.json: $.model: 'no.such:model' cannot be imported"),
        ({"ignored_scopes": "layer9"}, "config.json: $.ignored_scopes: must name something in the model"),
        ({"dataset": "folder"}, "holds no images to read"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    config = {key: value for key, value in small_config(**changes).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run = tmp_path / "run"
    assert message in refused("--config", tmp_path / "config.json", "--output-dir", run, "--data", tmp_path / "data")
    assert not run.exists() or not list(run.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distillation": {"source": "maximum", "features": ["layer9"]}}, "features[0] must be the path of a module"),
        ({"distillation": {"source": "maximum", "class_dim": 5}}, "distillation.class_dim must be a dimension of"),
        ({"schedule": {}, "lr_schedule": {"params": {"num_epochs": 1}}}, "`epochs of all stages <= num_epochs` must"),
        (
            {"schedule": {"list_stage_descriptions": [{"train_dims": ["width"], "width_indicator": 1}]}},
            "must open more than the maximum subnet",
        ),
    ],
)
def test_mistakes_of_the_training_are_told_before_pretraining(
    changes: dict[str, Any], message: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    config = small_config()
    config["bootstrapNAS"]["training"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run = tmp_path / "run"
    line = refused("--config", tmp_path / "config.json", "--output-dir", run)
    assert line.startswith(f"error: {tmp_path / 'config.json'}: ")
    assert message in line
    assert not list(run.iterdir()), "the same command works once the config is right"


def test_weights_that_do_not_fit(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "weights.pt")
    config = write_config(tmp_path / "config.json")
    line = refused("--config", config, "--output-dir", tmp_path / "run", "--weights", tmp_path / "weights.pt")
    assert "do not fit CifarResNet: " in line
    assert "2 not in the model (weight, bias)" in line


def test_empty_folder_of_images(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    config = write_config(tmp_path / "config.json", dataset="folder")
    line = refused("--config", config, "--output-dir", tmp_path / "run", "--data", tmp_path / "data")
    assert "train holds no images to read" in line


def test_config_that_is_no_json(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    assert "not JSON" in refused("--config", tmp_path / "config.json", "--output-dir", tmp_path / "run")
    assert "cannot be read" in refused("--config", tmp_path / "none.json", "--output-dir", tmp_path / "run")
    assert "give one with --config" in refused("--output-dir", tmp_path / "run")


def test_output_folder_that_cannot_be_written(tmp_path: Path, refused: Callable[..., str]) -> None:
    config = write_config(tmp_path / "config.json")
    assert "choose a folder that you may write to" in refused("--config", config, "--output-dir", config / "run")
    assert json.loads(config.read_text(encoding="utf-8")) == small_config()


def test_gpu_that_is_not_there(tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = write_config(tmp_path / "config.json")
    assert "use --device cpu" in refused("--config", config, "--output-dir", tmp_path / "run", "--device", "cuda")


def test_finished_run_is_not_overwritten(copied: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    before = contents(copied)
    config = write_config(tmp_path / "config.json")
    assert "is not empty; go on with the run in it by --resume" in refused("--config", config, "--output-dir", copied)
    assert "holds a search already" in refused("--output-dir", copied, "--mode", "search")
    line = refused("--config", write_config(config, batch_size=8), "--output-dir", copied, "--resume")
    assert "$.batch_size must be that of" in line
    assert f"give --weights {copied / 'input_model.pt'} to keep its input model" in line
    assert "--seed must be 3" in refused("--output-dir", copied, "--resume", "--seed", 4)
    assert contents(copied) == before


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("checkpoints/last.pt", "train", "is damaged or not a checkpoint"),
        ("supernet.pt", "search", "is damaged or not a checkpoint"),
        ("input_model.pt", "search", "is damaged, or not a file that torch.save wrote"),
        ("trials.db", "search", "is damaged or not the database of a search"),
        ("trials.db", "export", "is damaged or not the database of a search"),
        ("config.json", "export", "not JSON"),
    ],
)
def test_damaged_files(name: str, mode: str, message: str, copied: Path, refused: Callable[..., str]) -> None:
    path = copied / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = contents(copied)
    assert message in refused("--output-dir", copied, "--mode", mode, "--resume")
    after = contents(copied)
    for changed in ("timing.json", "config.json"):
        before.pop(changed)
        after.pop(changed)
    assert after == before


def test_missing_parts_are_named_with_the_mode_that_makes_them(copied: Path, refused: Callable[..., str]) -> None:
    (copied / "trials.db").unlink()
    assert "There is no trials.db in" in refused("--output-dir", copied, "--mode", "export")
    (copied / "supernet.pt").unlink()
    assert "run --mode train first" in refused("--output-dir", copied, "--mode", "search", "--resume")


def test_supernet_of_another_run(copied: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["bootstrapNAS"]["training"]["elasticity"]["width"] = {"width_multipliers": [1, 0.5]}
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "is of another super-network" in refused("--output-dir", copied, "--mode", "search", "--resume")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "serach"], "invalid choice: 'serach'"),
        (["--seed", "-1"], "must be an integer >= 0, but got '-1'"),
        ([], "the following arguments are required: --output-dir"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--output-dir", "run", *arguments] if arguments else [])
    assert message in capsys.readouterr().err
