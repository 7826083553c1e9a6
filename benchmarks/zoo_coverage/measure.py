"""What one model shows: a row that grows stage by stage, so that a crash leaves what is known."""

from __future__ import annotations

import math
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.zoo_coverage.models import builder
from bootstrapnas_ext import ExampleInput, Subnet, Supernet, _nncf, extract
from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.config.elasticity import WidthConfig
from bootstrapnas_ext.export import Backend, input_names, save_ir, to_onnx, to_openvino, verification_inputs, verify
from bootstrapnas_ext.export.openvino import DEVICE, core
from bootstrapnas_ext.export.runners import ir_runner
from bootstrapnas_ext.inputs import as_input

Row = dict[str, Any]
CONFIG = ElasticityConfig(width=WidthConfig(width_multipliers=(1, 0.75, 0.5, 0.25)))
LARGE = 200_000_000
"""Models of more parameters are large."""


@dataclass(frozen=True)
class Effort:
    """
    How much is compared.

    :param subnets: Random subnets, besides the minimum, that are extracted.
    :param ir_subnets: The same for OpenVINO IR; ``None`` for no IR at all.
    :param large_subnets: At most so many of both for a large model.
    :param threads: Of PyTorch and OpenVINO.
    """

    subnets: int
    ir_subnets: int | None
    large_subnets: int
    threads: int


def measure(name: str, effort: Effort, emit: Callable[[Row], None]) -> None:
    """
    Measures a model.

    :param name: As :func:`benchmarks.zoo_coverage.models.builder` takes it.
    :param effort: How much is compared.
    :param emit: Gets the row at the start of each stage and at the end. Its ``stage`` is "done", or what failed.
    """
    row: Row = {"model": name, "error": None}

    def enter(stage: str) -> None:
        # Linux gives KiB.
        row.update(stage=stage, peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        emit(row)

    try:
        with torch.no_grad():
            _fill(row, enter, effort)
        enter("done")
    except Exception as error:  # a model may raise anything
        line = next(iter(str(error).strip().splitlines()), "")
        row["error"] = f"{type(error).__name__}: {line}"
        enter(row["stage"])


def _fill(row: Row, enter: Callable[[str], None], effort: Effort) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(effort.threads)
    core().set_property(DEVICE, {"INFERENCE_NUM_THREADS": effort.threads})
    enter("make")
    model, given = builder(row["model"])()
    model, example = trained_like(model.eval()), as_input(given)
    row["model_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    large = row["model_parameters"] > LARGE
    row["subnets"] = min(effort.subnets, effort.large_subnets) if large else effort.subnets
    row["ir_subnets"] = effort.ir_subnets and min(effort.ir_subnets, row["subnets"])

    enter("forward")
    before = _call(model, example)
    start = time.perf_counter()
    _call(model, example)
    row["forward_s"] = round(time.perf_counter() - start, 3)
    counted = counted_macs(model, example)

    enter("build")
    start = time.perf_counter()
    with _timed(_nncf, "trace") as traces, _timed(Supernet, "_settle") as checks:
        supernet = Supernet(model, example, CONFIG)
    build = time.perf_counter() - start
    row["build_s"] = round(build, 2)
    row["trace_s"] = round(sum(traces), 2)
    row["check_s"] = round(sum(checks), 2)
    row["analysis_s"] = round(build - sum(traces) - sum(checks), 2)

    enter("maximum")
    row["exact"] = equal(before, _call(model, example))
    row |= shape_of(supernet)
    row["counted_macs"] = counted
    row["macs_equal"] = counted == row["macs"]

    rng = np.random.default_rng(0)
    subnets = [supernet.space.minimum, *(supernet.sample(rng) for _ in range(row["subnets"]))]
    inputs = verification_inputs(example, seed=0, batch_sizes=(2,))
    enter("extract")
    row["extracted"] = max(difference(supernet, subnet, extract(supernet, subnet), inputs) for subnet in subnets)
    if row["ir_subnets"] is not None:
        enter("ir")
        row["ir"] = max(ir_difference(supernet, subnet, inputs) for subnet in subnets[: 1 + row["ir_subnets"]])


@contextmanager
def _timed(owner: Any, name: str) -> Iterator[list[float]]:
    """Yields how many seconds each call of a function took, of those inside the ``with`` block."""
    seconds: list[float] = []
    function = getattr(owner, name)

    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    with mock.patch.object(owner, name, timed):
        yield seconds


def trained_like(model: nn.Module) -> nn.Module:
    """Gives norms statistics, and random items to what starts constant, where no channel differs from another."""
    generator = torch.Generator().manual_seed(1)

    def positive(tensor: Tensor) -> Tensor:
        return torch.rand(tensor.shape, generator=generator) + 0.5

    def centred(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator) * 0.3

    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(centred(buffer))
        elif name.endswith("running_var"):
            buffer.copy_(positive(buffer))
    for parameter in model.parameters():
        first = float(parameter.flatten()[0]) if parameter.numel() else 0.0
        if parameter.is_floating_point() and bool((parameter == first).all()):
            # Scales, also those that start near zero, and shifts.
            parameter.copy_(positive(parameter) if first else centred(parameter))
    return model


def counted_macs(model: nn.Module, example: ExampleInput) -> int:
    """Returns half of PyTorch's own count of operations; attention is counted by its matrix products."""
    fast = torch.backends.mha.get_fastpath_enabled()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.backends.mha.set_fastpath_enabled(False)
    # The counter follows gradients from module to module, and fails on a parameter that is a module's input.
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            _call(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for parameter in trained:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops()) // 2


def shape_of(supernet: Supernet) -> Row:
    """Returns what is elastic and what that saves."""
    choices = supernet.space.choices
    counts = Counter(choice.dimension for choice in choices)
    largest, smallest = supernet.cost(supernet.space.maximum), supernet.cost(supernet.space.minimum)
    all_blocks = {choice.name: choice.values[0] for choice in choices if choice.dimension == "depth"}
    full_depth = supernet.cost({**supernet.space.minimum, **all_blocks})
    return {
        "operations": len(supernet.graph.ops),
        "widths": counts["width"],
        "kernels": counts["kernel"],
        "blocks": sum(choice.values[0] for choice in choices if choice.dimension == "depth"),
        "log10_subnets": round(math.log10(supernet.space.size), 1),
        "macs": largest.macs,
        "min_macs": smallest.macs,
        "macs_ratio": round(largest.macs / max(smallest.macs, 1), 2),
        "full_depth_macs_ratio": round(largest.macs / max(full_depth.macs, 1), 2),
        "weights": largest.weights,
        "min_weights": smallest.weights,
        "weights_ratio": round(largest.weights / max(smallest.weights, 1), 2),
        "static": supernet.static_layers(),
        "refused": supernet.refused,
    }


def equal(one: list[Tensor], two: list[Tensor]) -> bool:
    return len(one) == len(two) and all(map(torch.equal, one, two))


def difference(
    supernet: Supernet, subnet: Subnet, other: Callable[..., Any], inputs: tuple[ExampleInput, ...]
) -> float:
    """Returns the largest difference of anything from the active subnet, relative to the largest output."""
    with supernet.activate(subnet):
        report = verify(supernet.model, {"other": Backend(other, tolerance=math.inf)}, inputs)
    return report.differences["other"].max_relative


def ir_difference(supernet: Supernet, subnet: Subnet, inputs: tuple[ExampleInput, ...]) -> float:
    """Returns the same for the IR file of the extracted module."""
    module = extract(supernet, subnet)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        save_ir(to_openvino(to_onnx(module, supernet.example)), path)
        return difference(supernet, subnet, ir_runner(path, input_names(module, supernet.example)), inputs)


def _call(model: nn.Module, example: ExampleInput) -> list[Tensor]:
    fresh = example.map(torch.clone)  # the model may change its input in place
    outputs = model(*fresh.args, **fresh.kwargs)
    return [leaf.clone() for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
