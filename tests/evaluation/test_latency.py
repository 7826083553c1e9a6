"""Latency: what is recorded, and how many inferences run; never how long they take."""

from __future__ import annotations

import json
from typing import Any

import openvino as ov
import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.config import LatencyConfig
from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.evaluation import latency, measure_latencies, measure_latency, measure_workloads, to_workload
from bootstrapnas_ext.export.openvino import core
from bootstrapnas_ext.inputs import ExampleInput

EXAMPLE = ExampleInput((torch.randn(4, 3, 8, 8),))


def small(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, 2))


class Masked(nn.Module):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens.float() * mask


class FakeRequest:
    """Notes whose turn it is; a fake clock advances by its latency."""

    def __init__(self, name: str, latency_ms: float, turns: list[str], clock: list[float]) -> None:
        self._name, self.latency = name, latency_ms
        self._turns, self._clock = turns, clock

    def infer(self) -> None:
        self._turns.append(self._name)
        self._clock[0] += self.latency / 1000


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Measures models of given latencies without OpenVINO; returns the turns and the recorded latencies."""

    def measure(latencies: dict[str, float], config: LatencyConfig) -> tuple[list[str], Any]:
        clock, turns = [0.0], []
        requests = iter([FakeRequest(name, value, turns, clock) for name, value in latencies.items()])
        monkeypatch.setattr(latency, "_compile", lambda *_: None)
        monkeypatch.setattr(latency, "_request", lambda *_: next(requests))
        monkeypatch.setattr(latency, "_record", lambda times, _: times)
        monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
        workloads = dict.fromkeys(latencies, latency.Workload(None, {}))
        return turns, measure_workloads(workloads, config)

    return measure


def test_record_says_what_was_used() -> None:
    config = LatencyConfig(num_threads=1, performance_hint="throughput", inference_precision="f32", iterations=5)
    record = measure_latency(small(), EXAMPLE, config)
    assert 0 < record.min_ms <= record.median_ms <= record.p90_ms
    assert record.iterations == 5
    assert record.num_threads == 1
    assert record.performance_hint == "throughput"
    assert record.inference_precision == "f32"
    assert record.device == core().get_property("CPU", "FULL_DEVICE_NAME")
    assert record.openvino == ov.get_version()
    assert json.loads(json.dumps(record.as_dict()))["median_ms"] == record.median_ms


def test_precision_is_the_one_that_openvino_took() -> None:
    model = to_workload(small(), EXAMPLE)
    for asked in ("f32", "bf16"):
        compiled = core().compile_model(model.model, "CPU", {"INFERENCE_PRECISION_HINT": asked})
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        record = measure_workloads({"m": model}, LatencyConfig(inference_precision=asked, iterations=1))["m"]
        assert record.inference_precision == taken


def test_batch_size_is_one() -> None:
    workload = to_workload(small(), EXAMPLE)
    assert str(workload.model.input(0).partial_shape) == "[1,3,8,8]"
    assert workload.feeds["input"].shape == (1, 3, 8, 8)


def test_inputs_of_any_kind_are_fed() -> None:
    example = ExampleInput((torch.tensor([[1, 2]]),), {"mask": torch.ones(1, 2)})
    assert measure_latency(Masked(), example, LatencyConfig(iterations=1)).iterations == 1


def test_inputs_without_a_batch_keep_their_size() -> None:
    example = ExampleInput((torch.ones(4, 3, 8), torch.ones(8)))
    workload = to_workload(Masked(), example)
    assert [str(port.partial_shape) for port in workload.model.inputs] == ["[1,3,8]", "[8]"]
    assert measure_workloads({"m": workload}, LatencyConfig(iterations=1))["m"].iterations == 1


def test_several_modules_are_measured_by_name() -> None:
    records = measure_latencies({"large": small(8), "small": small()}, EXAMPLE, LatencyConfig(iterations=3))
    assert list(records) == ["large", "small"]
    assert {record.iterations for record in records.values()} == {3}


def test_module_is_left_as_it_was() -> None:
    module = small().train()
    measure_latency(module, EXAMPLE, LatencyConfig(iterations=1))
    assert all(part.training for part in module.modules())


def test_module_that_cannot_be_converted_is_an_error() -> None:
    class NotInOnnx(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    with pytest.raises(ExportError, match="NotInOnnx cannot be exported to ONNX"):
        measure_latency(NotInOnnx(), EXAMPLE)


def test_one_model_runs_warm_up_and_iterations(run) -> None:
    turns, records = run({"a": 1.0}, LatencyConfig(warmup=3, iterations=25, max_seconds=1.0))
    assert len(records["a"]) == 25
    assert len(turns) == 3 + 25


def test_warm_up_ends_after_a_tenth_of_the_time(run) -> None:
    turns, records = run({"a": 20.0}, LatencyConfig(warmup=50, iterations=10, max_seconds=1.0))
    assert len(turns) - len(records["a"]) == 5


def test_models_take_turns_and_warm_up_again_at_each(run) -> None:
    turns, records = run({"a": 1.0, "b": 2.0}, LatencyConfig(warmup=0, iterations=20, max_seconds=1.0))
    assert turns == (["a"] * 3 + ["b"] * 3) * 10
    assert records == {"a": [1.0] * 20, "b": [2.0] * 20}


def test_slow_model_stops_at_the_time_limit(run) -> None:
    _, records = run({"a": 40.0}, LatencyConfig(warmup=10, iterations=1000, max_seconds=1.0))
    assert 25 <= len(records["a"]) <= 35


def test_model_slower_than_the_time_limit_is_measured_once(run) -> None:
    turns, records = run({"a": 5000.0}, LatencyConfig(warmup=10, iterations=1000, max_seconds=1.0))
    assert records["a"] == [5000.0]
    assert len(turns) == 2


def test_fewer_iterations_than_turns(run) -> None:
    turns, records = run({"a": 1.0}, LatencyConfig(warmup=0, iterations=3, max_seconds=1.0))
    assert len(turns) == len(records["a"]) == 3
