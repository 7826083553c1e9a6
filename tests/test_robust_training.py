"""Trainings that are killed, and trainings in two processes: each in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process for each call, and ends those that a failure has left."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
        command = [sys.executable, "-m", *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def result_of(process: subprocess.Popen[bytes], folder: Path, rank: int = 0) -> Any:
    assert process.wait(timeout=240) == 0
    return json.loads((folder / f"result_{rank}.json").read_text(encoding="utf-8"))


def test_a_killed_training_goes_on_as_if_it_had_not_been_killed(tmp_path: Path, start: Start) -> None:
    whole = start("tests.run_training", tmp_path / "whole")
    folder = tmp_path / "killed"
    deaths = (
        (signal.SIGKILL, ["--kill-at", "39"]),
        (signal.SIGKILL, ["--kill-while-saving", "4"]),
        (signal.SIGTERM, ["--end-group-at", "6"]),
    )
    for number, death in deaths:
        assert start("tests.run_training", folder, *death).wait(timeout=240) == -number
        assert not (folder / "result_0.json").exists()
    resumed = result_of(start("tests.run_training", folder), folder)
    expected = result_of(whole, tmp_path / "whole")
    assert resumed == expected
    assert [record["steps"] for record in resumed["history"]] == [6, 12, 18]


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path, start: Start) -> None:
    one = start("tests.run_training", tmp_path / "one", ALONE="no")
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.run_training")
    two = start(*launcher, tmp_path / "two", ALONE="no")
    first, second = (result_of(two, tmp_path / "two", rank) for rank in range(2))
    expected = result_of(one, tmp_path / "one")
    assert first["weights"] == second["weights"]
    assert first["history"] == second["history"]
    for mine, other in zip(first["history"], expected["history"], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
        for name in ("top1_maximum", "top1_minimum"):
            assert mine[name] == pytest.approx(other[name], abs=1.1)  # one image at the border
    for name, values in expected["weights"].items():
        assert flat(first["weights"][name]) == pytest.approx(flat(values), rel=1e-3, abs=1e-4)
    assert first["statistics"] == second["statistics"]
    assert first["top1"] == second["top1"]
    assert flat(first["statistics"][0]) == pytest.approx(flat(expected["statistics"][0]), rel=1e-4)
    assert {path.name for path in (tmp_path / "two" / "checkpoints").iterdir()} == {"last.pt", "best.pt"}
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1


def flat(values: Any) -> list[float]:
    return [values] if not isinstance(values, list) else [number for value in values for number in flat(value)]
