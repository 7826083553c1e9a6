"""The benchmark over whole zoos: a row for every model, also for one that ends its process."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.zoo_coverage.__main__ import main
from benchmarks.zoo_coverage.measure import trained_like
from benchmarks.zoo_coverage.models import builder, find
from benchmarks.zoo_coverage.table import faults, markdown_table, rich_table

ROOT = Path(__file__).parents[2]
GOOD = {"error": None, "exact": True, "extracted": 1e-6, "ir": 1e-6, "macs_ratio": 3.0}


def tiny() -> tuple[nn.Module, dict[str, Tensor]]:
    layers = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.Flatten(2)
    )
    return layers, {"input": torch.randn(1, 3, 8, 8)}


def crashing() -> nn.Module:
    os._exit(3)


def test_a_row_for_a_good_model_and_for_one_that_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
    names = ["test_zoo_coverage:tiny", "test_zoo_coverage:crashing"]
    output, table = tmp_path / "rows.jsonl", tmp_path / "table.md"
    options = ["--output", str(output), "--models", *names]
    assert main([*options, "--no-ir", "--subnets", "1", "--jobs", "2", "--check"]) == 1
    rows = {row["model"]: row for row in map(json.loads, output.read_text().splitlines())}
    good, bad = (rows[name] for name in names)
    assert (good["stage"], good["error"]) == ("done", None)
    assert good["exact"]
    assert good["extracted"] <= 1e-4
    assert good["macs_equal"]
    assert good["macs"] == good["counted_macs"] == 8 * 8 * 9 * (3 * 32 + 32 * 32)
    assert (good["widths"], good["kernels"], good["blocks"], good["subnets"]) == (1, 2, 0, 1)
    assert good["static"]["width"].keys() == {"3"}
    assert "ir" not in good
    assert bad["stage"] == "make"
    assert bad["error"].startswith("Exit: the process ended with code 3")

    before = output.read_text()
    capsys.readouterr()
    assert main([*options, "--resume", "--markdown", str(table)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "1 of 2 models have a fault; with --check that is exit code 1, without it is 0."
    assert output.read_text() == before
    assert "- test_zoo_coverage:crashing: make: Exit: the process ended with code 3" in table.read_text()


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, []),
        ({"exact": False}, ["maximum differs"]),
        ({"extracted": 2e-4}, ["extracted > 0.0001"]),
        ({"extracted": float("nan")}, ["extracted > 0.0001"]),
        ({"ir": 2e-3}, ["IR > 0.001"]),
        ({"macs_ratio": 1.9}, ["ratio < 2"]),
        ({"stage": "build", "error": "ModelError: no"}, ["build: ModelError: no"]),
    ],
)
def test_faults(changed: dict[str, Any], fault: list[str]) -> None:
    assert faults(GOOD | changed) == fault


def test_what_is_not_known_is_a_dash_in_the_tables_and_the_error_is_below() -> None:
    row = {"model": "a", "stage": "build", "error": "ModelError: size [1]", "forward_s": 0.5, "peak_mib": 512}
    line, _, error = markdown_table([row]).splitlines()[-3:]
    assert line.startswith("| a | - | - | 0.50 | - |")
    assert line.endswith("| 0.5 | build failed |")
    assert error == "- a: build: ModelError: size [1]"
    console = Console(width=240, file=io.StringIO(), record=True)
    console.print(rich_table([row]))
    text = console.export_text()
    assert "0 of 1 models without a fault" in text
    assert "a: build: ModelError: size [1]" in text


def test_a_line_of_progress_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    row = {"model": "a:b", "stage": "build", "error": "KeyError: '[/b]' :x:"}
    monkeypatch.setattr("benchmarks.zoo_coverage.__main__._run_one", lambda name, arguments: row)
    assert main(["--models", "a:b"]) == 0
    assert "a:b: build: KeyError: '[/b]' :x:" in capsys.readouterr().err


def test_a_module_that_is_not_found_says_where_it_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_another.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"'no_such.models' must be importable; .* PYTHONPATH"):
        builder("no_such.models:make")()
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_module_at_all'$"):
        builder("needs_another:make")()


def test_names_are_found_in_every_zoo() -> None:
    assert find(["bert", "timm/resnet18", "unet", "a:b"]) == [
        "transformers/bert",
        "timm/resnet18",
        "torchvision-other/unet",
        "a:b",
    ]
    assert {"transformers/bert", "transformers/t5"} < set(find(["transformers", "bert"]))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="no zoo or model 'nosuch'"):
        find(["nosuch"])


def test_what_starts_constant_differs_from_channel_to_channel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.LayerNorm(8))
    weight = model[0].weight.detach().clone()
    with torch.no_grad():
        trained_like(model)
    vectors = [model[1].running_mean, model[1].running_var, model[1].weight, model[1].bias, model[2].weight]
    assert all(len(vector.unique()) == 8 for vector in vectors)
    assert (model[1].running_var > 0).all()
    assert torch.equal(model[0].weight, weight)
