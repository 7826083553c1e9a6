"""The sample from end to end, in processes of its own, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bootstrapnas_ext.config import LatencyConfig
from bootstrapnas_ext.export.openvino import core
from bootstrapnas_ext.search import read_search
from samples.classification import exporting
from samples.classification.main import main
from samples.classification.models import create_model
from samples.classification.report import benchmark_command
from tests.samples.runs import ROOT, count_trials, finish, start, write_config


def test_folder_of_a_run(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "checkpoints",
        "config.json",
        "input_model.pt",
        "search_progression.png",
        "subnets",
        "summary.json",
        "supernet.pt",
        "tensorboard",
        "timing.json",
        "trials.db",
    }
    for name in ("best", "most_accurate"):
        files = {path.name for path in (finished / "subnets" / name).iterdir()}
        assert files == {"model.bin", "model.onnx", "model.xml", "subnet.json"}
    assert (finished / "search_progression.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert config["bootstrapNAS"]["search"]["seed"] == 3
    assert Path(config["dataset_dir"]).is_absolute()


def test_training_in_two_processes(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.json", log_dir=str(tmp_path / "log"))
    run = tmp_path / "run"
    command = [
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(ROOT / "samples/classification/main.py"),
    ]
    process = subprocess.run(
        [sys.executable, "-m", *command, "--config", config, "--output-dir", run, "--mode", "train"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("epoch 2/2") == 2, "of the input model and of the super-network, once each"
    names = {path.name for path in run.iterdir()}
    assert names == {"checkpoints", "config.json", "input_model.pt", "supernet.pt", "tensorboard", "timing.json"}
    history = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["position"]["history"]
    assert history[-1]["steps"] == 2 * 6, "an epoch of 719 images has 6 batches of 64 in each of two processes"


def test_summary(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    record = read_search(finished / "trials.db")
    for model in (summary["input_model"], *summary["subnets"]):
        assert {"name", "top1", "macs", "parameters", "latency_ms"} <= model.keys()
        assert 0 <= model["top1"] <= 100
        assert model["latency_ms"] > 0
    assert [model["name"] for model in summary["subnets"]] == ["best", "most_accurate"]
    for model in summary["subnets"]:
        assert model["satisfied"] is True
        assert model["macs"] == record.trials[model["trial"]].values["macs"]
        assert 2 * model["macs"] <= summary["input_model"]["macs"]
    assert summary["input_model"]["parameters"] == 269_722
    assert 0 < len(summary["pareto"]) < len(record.trials) == 40
    assert {"build", "train", "search", "export"} <= summary["timing_s"].keys()
    assert summary["seed"] == 3
    assert summary["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_record_of_a_subnet(finished: Path) -> None:
    record = read_search(finished / "trials.db")
    subnet = json.loads((finished / "subnets" / "best" / "subnet.json").read_text(encoding="utf-8"))
    trial = record.trials[subnet["trial"]]
    assert subnet["choices"] == dict(trial.subnet)
    assert subnet["measurements"] == dict(trial.values)
    assert subnet["latency"]["inference_precision"] == "f32"
    for difference in subnet["verification"]["differences"].values():
        assert difference["max_relative"] <= difference["tolerance"]
    assert subnet["verification"]["differences"].keys() == {"extracted", "onnx", "ir"}


def test_what_a_user_sees(finished: Path, finished_output: str) -> None:
    for part in (
        "input model: epoch 2/2",
        "Super-network of",
        "epoch 2/2  stage 2/2 (depth, width)",
        "search 40/40",
        "Input model and chosen subnets",
        f"All trials in a picture: {finished / 'search_progression.png'}",
        f"To measure it: benchmark_app -m {finished / 'subnets' / 'best' / 'model.xml'} -d CPU -hint latency",
    ):
        assert part in finished_output


def test_reported_accuracy_is_that_of_the_exported_model_on_the_test_part(finished: Path) -> None:

    from samples.classification.datasets import Loaders
    from samples.classification.settings import read_config, settings_of

    subnet = json.loads((finished / "subnets" / "best" / "subnet.json").read_text(encoding="utf-8"))
    model = core().read_model(finished / "subnets" / "best" / "model.xml")
    loader = Loaders(settings_of(read_config(finished / "config.json"))).test
    images, targets = loader.dataset.tensors
    model.reshape([len(images), 3, 8, 8])
    outputs = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images.numpy())[0]
    assert 100 * float(np.mean(outputs.argmax(axis=1) == targets.numpy())) == pytest.approx(subnet["top1"], abs=0.2)


@pytest.mark.parametrize("threads", [None, 1])
def test_printed_benchmark_command_measures_as_the_run_did(
    threads: int | None, finished: Path, finished_output: str
) -> None:
    subnet = json.loads((finished / "subnets" / "best" / "subnet.json").read_text(encoding="utf-8"))
    printed = re.findall(r"^To measure it: (.*)$", finished_output, re.MULTILINE)[0]
    if threads is not None:
        printed = benchmark_command(finished / "subnets" / "best" / "model.xml", LatencyConfig(num_threads=threads))
    tool, *arguments = shlex.split(printed)
    command = [str(Path(sys.executable).with_name(tool)), *arguments, "-t", "1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Median" in run.stdout
    assert f"INFERENCE_NUM_THREADS: {threads or subnet['latency']['num_threads']}\n" in run.stdout
    assert "INFERENCE_PRECISION_HINT: <Type: 'float32'>" in run.stdout
    assert "NUM_STREAMS: 1" in run.stdout


def test_killed_search_ends_with_the_trials_of_one_that_was_not(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("--config", write_config(tmp_path / "config.json"), "--output-dir", run, "--seed", 3)
    while process.poll() is None and count_trials(run) < 10:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 10 <= count_trials(run) < 40
    finish(start("--output-dir", run, "--resume"))
    # Other numbers of the training would be enough to make others of these.
    assert read_search(run / "trials.db") == read_search(finished / "trials.db")
    assert (run / "subnets" / "best" / "model.xml").is_file()


def test_interrupted_pretraining_goes_on(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = ("--config", write_config(tmp_path / "config.json"), "--output-dir", run, "--seed", 3)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it, and so
    process = start(*arguments)  # would it
    signal.signal(signal.SIGINT, before)
    while process.poll() is None and not (run / "pretraining.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "Interrupted. Add --resume to the same command to go on."
    assert main([*map(str, arguments), "--mode", "train", "--resume"]) == 0
    output = capsys.readouterr().out
    assert "input model: epoch 1/2" not in output
    assert "done already" not in output
    assert f"Written: {run / 'supernet.pt'}, the trained super-network\nNext: python " in output
    assert output.endswith(f"--output-dir {run} --mode search export\n")
    weights, others = (torch.load(folder / "input_model.pt", weights_only=True) for folder in (run, finished))
    assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())
    assert not (run / "pretraining.pt").exists()


def test_parts_one_by_one(copied: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "trials.db").unlink()
    (copied / "summary.json").unlink()
    assert main(["--output-dir", str(copied), "--mode", "search"]) == 0
    assert not (copied / "summary.json").exists()
    *_, written, following = capsys.readouterr().out.splitlines()
    assert written == f"Written: {copied / 'trials.db'}, all trials, and {copied / 'search_progression.png'}"
    assert re.fullmatch(rf"Next: python .*classification/main\.py --output-dir {copied} --mode export", following)
    assert len(read_search(copied / "trials.db").trials) == 40
    (copied / "search_progression.png").unlink()
    assert main(["--output-dir", str(copied), "--mode", "export"]) == 0
    assert (copied / "summary.json").exists()
    assert (copied / "search_progression.png").exists()
    capsys.readouterr()
    assert main(["--output-dir", str(copied), "--resume"]) == 0
    output = capsys.readouterr().out
    assert f"input model: done already, {copied / 'input_model.pt'}\n" in output
    assert f"training: done already, {copied / 'supernet.pt'}\n" in output
    assert f"search: done already, 40 trials in {copied / 'trials.db'}\n" in output
    assert (copied / "supernet.pt").read_bytes() == (finished / "supernet.pt").read_bytes()


def test_nothing_is_called_best_without_a_mark_where_nothing_keeps_to_the_bounds(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["bootstrapNAS"]["search"]["constraints"] = {"macs": {"max": 1}}
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    drawn: list[str] = []
    monkeypatch.setattr(exporting, "plot_search_progression", lambda record, chosen, path: drawn.extend(chosen))
    assert main(["--output-dir", str(copied), "--mode", "export"]) == 0
    output = capsys.readouterr().out
    assert drawn == ["best*"]
    assert re.search(r"^ best\* ", output, re.MULTILINE)
    assert "\n* None of 40 trials keeps to" in output
    assert "`num_evals`" in output
    summary = json.loads((copied / "summary.json").read_text(encoding="utf-8"))
    assert [(model["name"], model["satisfied"]) for model in summary["subnets"]] == [("best", False)]
    assert (copied / "subnets" / "best" / "model.xml").is_file()


def test_command_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    arguments = shlex.split(re.findall(r"^python samples/classification/main\.py (.*--data.*)$", text, re.MULTILINE)[0])
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 8)):
        for shade, name in ((60, "dark"), (180, "light")):
            (tmp_path / options["--data"] / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(shade - 40, shade + 40, (8, 8, 3)).astype("uint8")
                Image.fromarray(pixels).save(tmp_path / options["--data"] / part / name / f"{index}.png")
    torch.save(create_model("resnet20", 2).state_dict(), tmp_path / options["--weights"])
    config = write_config(tmp_path / options["--config"], dataset="folder", num_classes=2)
    content = json.loads(config.read_text(encoding="utf-8"))
    del content["pretrain"]
    content["bootstrapNAS"]["search"] |= {"num_evals": 4, "population": 2, "acc_delta": 100}
    config.write_text(json.dumps(content), encoding="utf-8")
    assert main(arguments) == 0
    assert (tmp_path / options["--output-dir"] / "subnets" / "best" / "model.xml").is_file()
