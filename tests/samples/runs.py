"""A small run of the classification sample, which several test files look at."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "classification"


def small_config(**changes: Any) -> dict[str, Any]:
    """Returns the quickstart's config with fewer epochs, evaluations and pixels."""
    config = json.loads((SAMPLE / "configs" / "digits.json").read_text(encoding="utf-8"))
    config |= {"input_info": {"sample_size": [1, 3, 8, 8]}, "batch_size": 64, "pretrain": {"epochs": 2}}
    training, search = config["bootstrapNAS"]["training"], config["bootstrapNAS"]["search"]
    training["schedule"]["list_stage_descriptions"] = [
        {"train_dims": ["depth"], "init_lr": 0.02},
        {"train_dims": ["depth", "width"], "init_lr": 0.02, "reorg_weights": True},
    ]
    for block in (training, search):
        block["batchnorm_adaptation"] = {"num_bn_adaptation_samples": 64}
    search |= {"num_evals": 40, "population": 8, "acc_delta": 50}
    return config | changes


def write_config(path: Path, **changes: Any) -> Path:
    """Writes the small config and returns its path."""
    path.write_text(json.dumps(small_config(**changes)), encoding="utf-8")
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    """Starts the sample in a process of its own."""
    command = [sys.executable, str(SAMPLE / "main.py"), *map(str, arguments)]
    # One thread, as in the tests' own process: more would wait for each other on a machine that is busy.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for a process, checks that it was successful, and returns what it printed."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def count_trials(run: Path) -> int:
    """Returns how many trials a running search has stored."""
    try:
        with closing(sqlite3.connect(f"file:{run / 'trials.db'}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or being written
        return 0


@cache
def finished_run(base: Path) -> tuple[Path, str]:
    """Returns the folder of a finished run and what it printed; made once in a test session, in its folder."""
    folder = base / "sample"
    folder.mkdir()
    run = folder / "run"
    output = finish(start("--config", write_config(folder / "config.json"), "--output-dir", run, "--seed", 3))
    return run, output
