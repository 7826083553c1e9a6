"""The comparison of training strategies: a row for each, with as many passes, from a config of the sample."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from benchmarks import training_strategies
from benchmarks.training_strategies import NO_TRAINING, main, table
from samples.classification.models import create_model
from tests.samples.runs import write_config


@pytest.fixture(autouse=True)
def _few_subnets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_strategies, "RANDOM_SUBNETS", 2)


def test_each_strategy_has_the_same_passes(tmp_path: Path) -> None:
    config, output = write_config(tmp_path / "config.json", pretrain={"epochs": 1}), tmp_path / "rows.jsonl"
    names = [NO_TRAINING, "random", "sandwich", "fair"]
    rows = main(["--config", str(config), "--output", str(output), "--seeds", "3", "--strategies", *names])
    assert rows == list(map(json.loads, output.read_text().splitlines()))
    assert [(row["strategy"], row["seed"], len(row["random"])) for row in rows] == [(name, 3, 2) for name in names]
    passes = [(row["passes"], row["steps"]) for row in rows]
    assert passes[0] == (0, 0)
    assert passes[1] == (24, 24), "two epochs of 12 batches"
    assert passes[2] == (24, 6)
    assert passes[3] == (24, 6)
    assert rows[0]["minimum"] < 50


def test_table_has_means_and_deviations_over_seeds() -> None:
    rows = [
        {"strategy": "fair", "seed": seed, "maximum": 90.0 + seed, "minimum": 60.0, "random": [70.0, 80.0 + 2 * seed]}
        | {"passes": 8, "steps": 2, "seconds": 3.0}
        for seed in (0, 2)
    ]
    console = Console(width=140, record=True)
    console.print(table(rows))
    (line,) = [line for line in console.export_text().splitlines() if "fair" in line]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == ["fair", "91.00 ± 1.00", "60.00 ± 0.00", "76.00 ± 1.00", "6.00", "8", "2", "3"]


def test_data_may_be_zipped_and_weights_and_epochs_be_given(tmp_path: Path) -> None:
    noise = torch.randint(256, (2, 3, 8, 8, 3), dtype=torch.uint8).numpy()
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for part in ("train", "test"):
            for label in range(2):
                for index in range(3):
                    image = tmp_path / "image.png"
                    Image.fromarray(noise[label, index]).save(image)
                    archive.write(image, f"{part}/{label}/{index}.png")
    torch.save(create_model("resnet20", 2).state_dict(), tmp_path / "weights.pt")
    config = write_config(tmp_path / "config.json", dataset="folder", num_classes=2, batch_size=3, model="resnet32")
    options = ["--config", str(config), "--data", str(tmp_path / "data.zip"), "--weights", str(tmp_path / "weights.pt")]
    options += ["--model", "resnet20", "--epochs", "2", "1", "--seeds", "0", "--source", "input_model"]
    (row,) = main([*options, "--strategies", "random"])
    assert (row["passes"], row["steps"]) == (6, 6)
