"""What a run tells its user: figures on the test part."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bootstrapnas_ext import Cost
from bootstrapnas_ext.config import LatencyConfig
from bootstrapnas_ext.evaluation import LatencyRecord
from bootstrapnas_ext.search import Selection

INPUT_MODEL = "input_model"
_PACKAGES = ("bootstrapnas_ext", "torch", "torchvision", "nncf", "openvino", "onnx", "onnxruntime", "optuna", "numpy")


@dataclass(frozen=True)
class Figures:
    """
    What is reported of a model.

    :param name: :data:`INPUT_MODEL`, or the name of a chosen subnet.
    :param top1: Accuracy on the test part, in percent.
    :param cost: Of one image.
    :param latency: Of one image with OpenVINO on the CPU.
    """

    name: str
    top1: float
    cost: Cost
    latency: LatencyRecord

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures as JSON can hold them."""
        return {
            "name": self.name,
            "top1": self.top1,
            "macs": self.cost.macs,
            "parameters": self.cost.parameters,
            "latency_ms": self.latency.median_ms,
        }


def verdict(selection: Selection) -> str:
    """
    Returns why the subnets were chosen; where they do not keep to the bounds, what the star means and what to do.

    :param selection: Of a search.
    """
    if selection.satisfied:
        return selection.reason
    return (
        f"* {selection.reason} Raise `num_evals`, ask for less with a larger `acc_delta` or wider `constraints`, or "
        "train for more epochs in another folder."
    )


def benchmark_command(model: Path, latency: LatencyConfig, *options: str) -> str:
    """
    Returns the command that measures a model with OpenVINO's own tool as the package does.

    :param model: The IR.
    :param latency: How the package measures.
    :param options: Further options of the tool.
    """
    tuning = ["-hint", latency.performance_hint]
    if latency.num_threads is not None:
        # The tool takes no threads beside a hint. One stream is what the latency hint amounts to.
        streams = ["-nstreams", "1"] if latency.performance_hint == "latency" else []
        tuning = ["-hint", "none", "-nthreads", str(latency.num_threads), *streams]
    precision = ["-infer_precision", latency.inference_precision]
    return shlex.join(["benchmark_app", "-m", str(model), "-d", "CPU", *tuning, "-api", "sync", *precision, *options])


def results_table(figures: Sequence[Figures], names: Mapping[str, str] | None = None) -> Table:
    """
    Returns a table of models.

    :param figures: The input model, which the others are compared with, and the others.
    :param names: Other names to show, such as :attr:`bootstrapnas_ext.search.Selection.labels`.
    """
    names = names or {}
    # Narrow enough for 80 columns.
    table = Table(title="Input model and chosen subnets", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for heading in ("test top-1 (%)", "MACs", "parameters", "latency", "speed-up"):
        table.add_column(heading, justify="right", no_wrap=True)
    first = figures[0]
    for model in figures:
        table.add_row(
            Text(names.get(model.name, model.name)),
            f"{model.top1:.2f}" + ("" if model is first else f" ({model.top1 - first.top1:+.2f})"),
            _with_share(model.cost.macs, first.cost.macs),
            _with_share(model.cost.parameters, first.cost.parameters),
            f"{model.latency.median_ms:.3f} ms",
            f"{first.latency.median_ms / model.latency.median_ms:.2f}x",
        )
    return table


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide the figures."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a folder of sources
            found[package] = "not installed"
    return found


def short(value: int) -> str:
    """
    Returns a number in three digits, for example ``1.06M``.

    :param value: The number.
    """
    factor, unit = next((item for item in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= item[0]), (1, ""))
    return f"{value / factor:.3g}{unit}"


def _with_share(value: int, of: int) -> str:
    return short(value) if value == of else f"{short(value)} ({100 * value / of:.0f}%)"
