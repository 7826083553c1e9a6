"""Settings: the shipped configs are right, wrong ones are told, and a run keeps its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bootstrapnas_ext import NNCFConfig
from bootstrapnas_ext.config import BootstrapNASConfig, rules
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.training import STRATEGIES
from samples.classification.models import create_model
from samples.classification.settings import effective_config, read_config, settings_of
from tests.samples.runs import SAMPLE, small_config, write_config

CONFIGS = sorted((SAMPLE / "configs").glob("*.json"))


def effective(stored: Path, config: Path | None = None, **given: Any) -> NNCFConfig:
    return effective_config(config, stored, **{"weights": None, "data": None, "seed": None, **given})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs(path: Path) -> None:
    config = read_config(path)
    settings = settings_of(config)
    create_model(settings.model, settings.num_classes)
    assert settings.image_shape[0] == 3
    assert len(BootstrapNASConfig.from_nncf(config).training.stages) > 1


def test_published_config_is_understood() -> None:
    path = Path(__file__).parents[4] / "shared" / "reference" / "nncf2_configs" / "resnet50_cifar10_supernet.json"
    if not path.is_file():
        pytest.skip(f"there is no published config at {path}")
    with pytest.warns(UserWarning, match="is the older name of `min_width`"):
        config = read_config(path)
    settings = settings_of(config)
    assert (settings.optimizer.base_lr, settings.optimizer.no_decay_keys) == (2.5e-4, "bn#bias")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": "resnet20"}, r"\$\.modle: unknown key; did you mean 'model'\?"),
        ({"dataset": "cifar11"}, r"\$\.dataset: must be one of .*; did you mean 'cifar1"),
        ({"num_classes": 0}, r"\$\.num_classes: must be an integer >= 1, but got 0"),
        ({"batch_size": 1}, r"\$\.batch_size: must be an integer >= 2, but got 1"),
        ({"optimizer": {"base_rl": 1}}, r"\$\.optimizer\.base_rl: unknown key, .* did you mean 'base_lr'"),
        ({"optimizer": {"momentum": 0}}, r"\$\.optimizer\.nesterov: needs `momentum > 0`"),
        ({"pretrain": {}}, r"\$\.pretrain: must have the keys \['epochs'\]"),
        ({"pretrain": {"epochs": 2, "warmup_epochs": 2}}, r"`warmup_epochs < epochs` must hold, but got \(warmup_ep"),
        ({"input_info": {"sample_size": [1, 4, 8, 8]}}, r"\$\.input_info: must be one tensor of 1 or 3 channels"),
        ({"input_info": {"sample_size": [3, 8, 8]}}, r"\$\.input_info: must be one tensor of 1 or 3 channels"),
        ({"normalize": {"mean": [0.5], "std": [1, 1, 1]}}, r"\$\.normalize\.mean: must have one number for each of"),
        ({"normalize": {"mean": [0, 0, 0], "std": [0, 1, 1]}}, r"\$\.normalize\.std\[0\]: must be a number > 0"),
    ],
)
def test_wrong_values_are_told(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = small_config()
    if "modle" in changes:
        del config["model"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_config(path)


@pytest.mark.parametrize(
    ("changes", "optimization", "message"),
    [
        ({"mixed_precision": True}, {"bf16": False}, r"json: \$\.mixed_precision: must not be given together with an"),
        ({"optimizer": {"label_smoothing": 0.1}}, {"label_smoothing": 0.2}, r"which is 0\.2, .*, but got 0\.1; remove"),
    ],
)
def test_setting_of_both_models_is_given_once(
    changes: dict[str, Any], optimization: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = small_config(**changes)
    config["bootstrapNAS"]["training"]["optimization"] = optimization
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_config(path)
    del config["bootstrapNAS"]["training"]["optimization"]
    path.write_text(json.dumps(config), encoding="utf-8")
    both = read_config(path)
    assert both["bootstrapNAS"]["training"]["optimization"].keys() == optimization.keys()
    path.write_text(json.dumps(both), encoding="utf-8")
    assert read_config(path) == both, "equal ones are no mistake"


def test_strategy_that_the_module_of_the_model_registers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = """
from bootstrapnas_ext.training import STRATEGIES

@STRATEGIES.register("own_strategy_of_a_test")
def own(step):
    return (step.learns(step.space.maximum),)

def net(num_classes):
    ...
"""
    (tmp_path / "own_module_of_a_test.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    config = small_config(model="own_module_of_a_test:net")
    config["bootstrapNAS"]["training"]["strategy"] = "own_strategy_of_a_test"
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(STRATEGIES, "_entries", dict(STRATEGIES._entries))
    try:
        assert read_config(path)["bootstrapNAS"]["training"]["strategy"] == "own_strategy_of_a_test"
    finally:
        rules.STRATEGIES.discard("own_strategy_of_a_test")


def test_block_of_the_search_is_needed(tmp_path: Path) -> None:
    path = write_config(tmp_path / "config.json")
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["bootstrapNAS"]
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json: \$: 'bootstrapNAS' is missing; give it"):
        read_config(path)


def test_command_line_wins_and_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_config(tmp_path / "config.json", weights="own.pt", dataset_dir="here")
    config = effective(tmp_path / "run.json", path)
    assert (config["weights"], config["dataset_dir"]) == (str(tmp_path / "own.pt"), str(tmp_path / "here"))
    config = effective(tmp_path / "run.json", path, weights=Path("w"), data=Path("there"), seed=5)
    assert (config["weights"], config["dataset_dir"]) == (str(tmp_path / "w"), str(tmp_path / "there"))
    assert settings_of(config).seed == 5


def test_names_of_torchvision_weights_stay(tmp_path: Path) -> None:
    path = write_config(tmp_path / "config.json", weights="IMAGENET1K_V2")
    config = effective(tmp_path / "run.json", path)
    assert config["weights"] == "IMAGENET1K_V2"
    assert settings_of(config).weights_file is None


def test_a_run_keeps_its_config(tmp_path: Path) -> None:
    given, stored = write_config(tmp_path / "config.json"), tmp_path / "run.json"
    first = effective(stored, given, data=tmp_path, seed=5)
    stored.write_text(json.dumps(first), encoding="utf-8")
    assert effective(stored) == effective(stored, given) == effective(stored, given, seed=5) == first

    config = json.loads(given.read_text(encoding="utf-8"))
    config["bootstrapNAS"]["search"]["num_evals"] = 77
    given.write_text(json.dumps(config), encoding="utf-8")
    later = effective(stored, given, data=tmp_path / "moved")
    assert settings_of(later).seed == 5
    assert later["bootstrapNAS"]["search"]["num_evals"] == 77
    assert later["dataset_dir"] == str(tmp_path / "moved")


def test_another_config_is_refused(tmp_path: Path) -> None:
    stored = write_config(tmp_path / "run.json")
    other = write_config(tmp_path / "config.json", batch_size=16)
    with pytest.raises(ConfigError, match=r"config\.json: \$\.batch_size must be that of .*run\.json, since"):
        effective(stored, other)
    with pytest.raises(ConfigError, match=r"--seed must be 0, with which the run in .* began, but got 4"):
        effective(stored, seed=4)


def test_a_new_run_needs_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no run in .* yet, so a config is needed; give one with --config"):
        effective(tmp_path / "run.json")
