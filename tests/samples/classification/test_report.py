"""The table of results: figures relative to the input model, within 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from bootstrapnas_ext import Cost
from bootstrapnas_ext.evaluation import LatencyRecord
from samples.classification.report import Figures, results_table, versions


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
