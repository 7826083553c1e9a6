"""The table of results: figures relative to the input model, within 80 columns."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from bootstrapnas_ext import Cost
from bootstrapnas_ext.config import LatencyConfig
from bootstrapnas_ext.evaluation import LatencyRecord
from bootstrapnas_ext.search import OBJECTIVES, Selection, Trial, select
from bootstrapnas_ext.space import Subnet
from samples.classification.report import (
    Figures,
    benchmark_command,
    results_table,
    short,
    verdict,
    versions,
)


def figures(name: str, top1: float, macs: int, parameters: int, latency_ms: float) -> Figures:
    latency = LatencyRecord(latency_ms, latency_ms, latency_ms, 10, 2, "latency", "f32", "a CPU", "1")
    return Figures(name, top1, Cost(macs, parameters, parameters), latency)


MODELS = [
    figures("input_model", 99.331, 40_551_040, 269_722, 0.5),
    figures("lowest_latency_ms", 98.2, 1_055_040, 850, 0.125),
]


def test_table_fits_a_small_terminal_and_compares() -> None:
    output = io.StringIO()
    Console(file=output, width=80).print(results_table(MODELS))
    rows = [line.split() for line in output.getvalue().splitlines()]
    assert ["input_model", "99.33", "40.6M", "270k", "0.500", "ms", "1.00x"] in rows
    assert ["lowest_latency_ms", "98.20", "(-1.13)", "1.06M", "(3%)", "850", "(0%)", "0.125", "ms", "4.00x"] in rows


@pytest.mark.parametrize(("satisfied", "shown"), [(True, "lowest_latency_ms"), (False, "lowest_latency_ms*")])
def test_table_marks_subnets_outside_the_bounds(satisfied: bool, shown: str) -> None:
    output = io.StringIO()
    trial = Trial(0, Subnet({"width:conv": 8}), {"accuracy": 90.0, "macs": 8.0})
    table = results_table(MODELS, Selection({MODELS[1].name: trial}, satisfied, "").labels)
    Console(file=output, width=80).print(table)
    names = [line.split()[0] for line in output.getvalue().splitlines() if " ms " in line]
    assert names == ["input_model", shown]


@pytest.mark.parametrize("ref_acc", [90.0, 99.0])
def test_verdict_says_what_to_do_where_nothing_keeps_to_the_bounds(ref_acc: float) -> None:
    trials = [Trial(0, Subnet({"width:conv": 8}), {"accuracy": 90.0, "macs": 8.0})]
    selection = select(trials, [OBJECTIVES.get("accuracy"), OBJECTIVES.get("macs")], acc_delta=1, ref_acc=ref_acc)
    if ref_acc == 90.0:
        assert verdict(selection) == selection.reason
    else:
        assert verdict(selection).startswith("* None of 1 trials keeps to accuracy >= 98; the nearest is trial 0")
        for remedy in ("more epochs", "`num_evals`", "`acc_delta`", "`constraints`"):
            assert remedy in verdict(selection)


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (LatencyConfig(), "-hint latency -api sync -infer_precision f32"),
        (
            LatencyConfig(num_threads=3, inference_precision="bf16"),
            "-hint none -nthreads 3 -nstreams 1 -api sync -infer_precision bf16",
        ),
        (
            LatencyConfig(num_threads=3, performance_hint="throughput"),
            "-hint none -nthreads 3 -api sync -infer_precision f32",
        ),
    ],
)
def test_benchmark_command_has_the_settings_of_the_latency(latency: LatencyConfig, expected: str) -> None:
    command = benchmark_command(Path("a run/model.xml"), latency, "-data_shape", "[1,3,8,8]")
    assert command == f"benchmark_app -m 'a run/model.xml' -d CPU {expected} -data_shape '[1,3,8,8]'"
    assert "a run/model.xml" in shlex.split(command)


def test_short_numbers() -> None:
    assert [short(value) for value in (850, 45_312, 1_055_040, 4_089_184_256)] == ["850", "45.3k", "1.06M", "4.09G"]


def test_figures_as_json() -> None:
    assert MODELS[1].as_dict() == {
        "name": "lowest_latency_ms",
        "top1": 98.2,
        "macs": 1_055_040,
        "parameters": 850,
        "latency_ms": 0.125,
    }


def test_versions_are_those_of_the_packages() -> None:
    assert {"python", "torch", "nncf", "openvino", "bootstrapnas_ext"} <= versions().keys()
