"""Export of any subnet of a run, by every way to name one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from bootstrapnas_ext.export.openvino import core
from bootstrapnas_ext.search import read_search
from tools.export import main


@pytest.fixture
def export(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exports into ``out``; returns the exit code and what was printed."""

    def run(subnet: object, *arguments: object) -> tuple[int, str]:
        options = ("--run", finished, "--subnet", subnet, "--output-dir", tmp_path / "out", *arguments)
        code = main([str(option) for option in options])
        output = capsys.readouterr()
        return code, output.out if code == 0 else output.err

    return run


def test_best_is_what_the_run_exported(export: Callable[..., tuple[int, str]], finished: Path, tmp_path: Path) -> None:
    code, output = export("best", "--format", "onnx", "ir", "torch")
    assert code == 0
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"model.onnx", "model.xml", "model.bin", "model.pt2", "subnet.json"}
    for part in ("Verification", "extracted", "onnx", "ir", "torch", f"benchmark_app -m {tmp_path / 'out/model.xml'}"):
        assert part in output
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype("float32")
    files = [finished / "subnets" / "best" / "model.onnx", tmp_path / "out" / "model.onnx"]
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in files]
    first, second = (session.run(None, {session.get_inputs()[0].name: x})[0] for session in sessions)
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(first, program(torch.from_numpy(x)).detach().numpy(), atol=1e-3)


def test_maximum_and_minimum_in_a_dynamic_ir(export: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    sizes = []
    for subnet in ("max", "min"):
        code, output = export(subnet, "--format", "ir", "--ir-batch", "dynamic")
        assert code == 0
        assert "-data_shape '[1,3,8,8]'" in output
        sizes.append((tmp_path / "out" / "model.bin").stat().st_size)
    assert core().read_model(tmp_path / "out" / "model.xml").input(0).partial_shape[0].is_dynamic
    assert sizes[0] > 10 * sizes[1]


def test_trial_and_file(export: Callable[..., tuple[int, str]], finished: Path, tmp_path: Path) -> None:
    trial = read_search(finished / "trials.db").trials[7]
    (tmp_path / "own.json").write_text(json.dumps(dict(trial.subnet)), encoding="utf-8")
    (tmp_path / "record.json").write_text(json.dumps({"choices": dict(trial.subnet), "trial": 7}), encoding="utf-8")
    weights = []
    for subnet in (7, tmp_path / "own.json", tmp_path / "record.json"):
        code, _ = export(subnet, "--format", "ir", "--ir-batch", 4)
        assert code == 0
        weights.append((tmp_path / "out" / "model.bin").read_bytes())
    assert weights[0] == weights[1] == weights[2]
    assert core().read_model(tmp_path / "out" / "model.xml").input(0).shape[0] == 4


def test_record_beside_a_torch_program(export: Callable[..., tuple[int, str]], finished: Path, tmp_path: Path) -> None:
    trial = read_search(finished / "trials.db").trials[7]
    code, output = export(7, "--format", "torch")
    assert code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.pt2", "subnet.json"}
    record = json.loads((tmp_path / "out" / "subnet.json").read_text(encoding="utf-8"))
    of_the_run = json.loads((finished / "subnets" / "best" / "subnet.json").read_text(encoding="utf-8"))
    assert record.keys() == of_the_run.keys() - {"name", "top1", "macs", "parameters", "latency_ms", "latency"}
    assert record["trial"] == 7
    assert record["choices"] == dict(trial.subnet)
    assert record["measurements"] == dict(trial.values)
    assert record["cost"].keys() == of_the_run["cost"].keys()
    assert record["cost"]["macs"] == trial.values["macs"]
    assert record["verification"]["differences"].keys() == {"extracted", "torch"}
    accuracy = f"{trial.values['accuracy']:.2f} % validation accuracy"
    assert re.search(rf"^Exporting trial 7: {accuracy}, \S+ MACs, \d+ % of the maximum$", output, re.MULTILINE)


def test_record_of_the_best_is_that_of_the_run_without_the_test_part(
    export: Callable[..., tuple[int, str]], finished: Path, tmp_path: Path
) -> None:
    of_the_run = json.loads((finished / "subnets" / "best" / "subnet.json").read_text(encoding="utf-8"))
    code, output = export("best")
    assert code == 0
    assert f"Exporting best, trial {of_the_run['trial']}: " in output
    record = json.loads((tmp_path / "out" / "subnet.json").read_text(encoding="utf-8"))
    assert record == {key: of_the_run[key] for key in record}


def test_subnet_that_no_trial_has_measured(
    export: Callable[..., tuple[int, str]], finished: Path, tmp_path: Path
) -> None:
    trials = read_search(finished / "trials.db").trials
    maximum, minimum = (dict(trial.subnet) for trial in trials[:2])
    mixtures = ({**maximum, name: minimum[name]} for name in maximum)
    choices = next(mixture for mixture in mixtures if all(mixture != dict(trial.subnet) for trial in trials))
    (tmp_path / "own.json").write_text(json.dumps(choices), encoding="utf-8")
    code, output = export(tmp_path / "own.json", "--format", "ir")
    assert code == 0
    assert "own.json, which the search has not measured: " in output
    record = json.loads((tmp_path / "out" / "subnet.json").read_text(encoding="utf-8"))
    assert record.keys() == {"choices", "cost", "verification"}
    assert record["choices"] == choices


def test_maximum_of_a_run_without_a_search(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "trials.db").unlink()
    arguments = ["--run", str(run), "--subnet", "max", "--format", "ir", "--output-dir", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "MACs, 100 % of the maximum" in capsys.readouterr().out
    assert "trial" not in json.loads((tmp_path / "out" / "subnet.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("subnet", "message"),
    [
        ("fastest", "or one of the chosen subnets best, most_accurate, but got 'fastest'"),
        ("40", "--subnet must be a trial from 0 to 39, but got 40"),
        ("none.json", "The subnet file none.json cannot be read"),
    ],
)
def test_unknown_subnets(subnet: str, message: str, export: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, errors = export(subnet)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "must hold an object with the value of each choice"),
        ("{", "cannot be read"),
        ('{"width:features.0": 3}', "is not a subnet of this run: The subnet names the choice 'width:features.0'"),
        ('{"choices": {}}', "is not a subnet of this run: The subnet has no value for the choice"),
    ],
)
def test_files_of_something_else(
    content: str, message: str, export: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "subnet.json").write_text(content, encoding="utf-8")
    code, errors = export(tmp_path / "subnet.json")
    assert code == 2
    assert message in errors


def test_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(tmp_path), "--subnet", "max", "--output-dir", str(tmp_path / "out")]) == 2
    assert "There is no config.json in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_batch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--run", "run", "--subnet", "max", "--output-dir", "out", "--ir-batch", "0"])
    assert "must be an integer >= 1 or 'dynamic', but got '0'" in capsys.readouterr().err
