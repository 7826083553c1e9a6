"""Latency on the CPU, measured with OpenVINO."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from torch import nn

from bootstrapnas_ext.config import LatencyConfig
from bootstrapnas_ext.export import input_names, to_onnx, to_openvino
from bootstrapnas_ext.export.openvino import DEVICE, core, with_batch
from bootstrapnas_ext.inputs import ExampleInput

#: Turns that each model gets, so that a busy moment of the machine hits a part of every model's inferences and not all
#: of one model's.
ROUNDS = 10


@dataclass(frozen=True)
class LatencyRecord:
    """
    A measured latency of batch size 1, with everything that it depends on; as OpenVINO reports it, not as it was asked.

    :param median_ms: Median of the inferences, in milliseconds.
    :param min_ms: Shortest.
    :param p90_ms: 90th percentile.
    :param iterations: Number of measured inferences.
    :param num_threads: Threads of an inference.
    :param performance_hint: ``latency`` or ``throughput``.
    :param inference_precision: Precision of the arithmetic, for example ``f32`` or ``bf16``.
    :param device: Full name of the processor.
    :param openvino: Version of OpenVINO.
    """

    median_ms: float
    min_ms: float
    p90_ms: float
    iterations: int
    num_threads: int
    performance_hint: str
    inference_precision: str
    device: str
    openvino: str

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True)
class Workload:
    """
    A model in OpenVINO with what it is measured on, for example one that NNCF has quantized.

    :param model: Of static shape.
    :param feeds: Name of each input to its array; names that the model does not have are ignored.
    """

    model: ov.Model
    feeds: Mapping[str, NDArray[Any]]


def measure_latency(module: nn.Module, example: ExampleInput, config: LatencyConfig | None = None) -> LatencyRecord:
    """
    Measures one module; see :func:`measure_latencies`.

    :param module: A plain module on the CPU.
    :param example: What to call it with.
    :param config: How to measure; the defaults if not given.
    """
    return measure_latencies({"module": module}, example, config)["module"]


def measure_latencies(
    modules: Mapping[str, nn.Module],
    example: ExampleInput,
    config: LatencyConfig | None = None,
) -> dict[str, LatencyRecord]:
    """
    Measures modules in turns, which makes their latencies comparable on a machine that does other work too.

    Every module is converted in memory, with batch size 1, and warmed up: by ``config.warmup`` inferences, of which no
    more are started after a tenth of ``config.max_seconds``. The figures are OpenVINO's own, of the inference alone.

    .. code-block:: python

        records = measure_latencies({"input_model": model, "best": extract(supernet, best)}, example)
        records["best"].median_ms

    :param modules: Name to plain module on the CPU.
    :param example: What to call each with; its first sample is used.
    :param config: How to measure; the defaults if not given.
    :return: Name to record.
    :raises ExportError: If a module cannot be converted.
    """
    workloads = {name: to_workload(module, example) for name, module in modules.items()}
    return measure_workloads(workloads, config)


def to_workload(module: nn.Module, example: ExampleInput) -> Workload:
    """
    Converts a module in memory.

    :param module: A plain module on the CPU.
    :param example: What to call it with.
    :raises ExportError: If it cannot be converted.
    """
    tensors = example.with_batch(1).tensors()
    feeds = {name: tensor.numpy() for name, tensor in zip(input_names(module, example), tensors, strict=True)}
    return Workload(with_batch(to_openvino(to_onnx(module, example)), 1), feeds)


def measure_workloads(
    workloads: Mapping[str, Workload], config: LatencyConfig | None = None
) -> dict[str, LatencyRecord]:
    """
    Measures OpenVINO models in turns, as :func:`measure_latencies` does.

    :param workloads: Name to model and inputs.
    :param config: How to measure; the defaults if not given.
    :return: Name to record.
    """
    config = config or LatencyConfig()
    compiled = {name: _compile(workload.model, config) for name, workload in workloads.items()}
    requests = {name: _request(model, workloads[name].feeds) for name, model in compiled.items()}
    times: dict[str, list[float]] = {name: [] for name in workloads}
    turn = config.max_seconds / ROUNDS
    for request in requests.values():
        _infer(request, config.warmup, turn)
    for turns in range(1, ROUNDS + 1):
        for name, request in requests.items():
            due = config.iterations * turns // ROUNDS - len(times[name])
            if due and sum(times[name]) < config.max_seconds * 1000:
                if len(requests) > 1:
                    request.infer()  # brings back into the caches what the other models have displaced
                times[name] += _infer(request, due, turn)
    return {name: _record(times[name], compiled[name]) for name in workloads}


def _compile(model: ov.Model, config: LatencyConfig) -> ov.CompiledModel:
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": config.performance_hint.upper(),
        "INFERENCE_PRECISION_HINT": config.inference_precision,
    }
    if config.num_threads is not None:
        properties["INFERENCE_NUM_THREADS"] = config.num_threads
    return core().compile_model(model, DEVICE, properties)


def _request(compiled: ov.CompiledModel, feeds: Mapping[str, NDArray[Any]]) -> ov.InferRequest:
    request = compiled.create_infer_request()
    for port in compiled.inputs:
        # A port also has the names of operations that were simplified away.
        name = next(name for name in port.get_names() if name in feeds)
        request.set_tensor(port, ov.Tensor(np.ascontiguousarray(feeds[name])))
    return request


def _infer(request: ov.InferRequest, count: int, seconds: float) -> list[float]:
    """Returns the milliseconds of up to ``count`` inferences; at least one, if ``count`` is positive."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < count and (not found or time.perf_counter() < end):
        request.infer()
        found.append(request.latency)
    return found


def _record(times: list[float], compiled: ov.CompiledModel) -> LatencyRecord:
    median, p90 = np.percentile(times, [50, 90])
    return LatencyRecord(
        median_ms=float(median),
        min_ms=min(times),
        p90_ms=float(p90),
        iterations=len(times),
        num_threads=compiled.get_property("INFERENCE_NUM_THREADS"),
        performance_hint=compiled.get_property("PERFORMANCE_HINT").lower(),
        inference_precision=compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
        device=core().get_property(DEVICE, "FULL_DEVICE_NAME"),
        openvino=ov.get_version(),
    )
