"""What can be measured of a candidate, and objectives from outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bootstrapnas_ext.config import LatencyConfig
from bootstrapnas_ext.cost import Cost
from bootstrapnas_ext.errors import RegistryError
from bootstrapnas_ext.evaluation.measures import MEASURES, Candidate, Context, Found, measure_candidate, objective
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.search import OBJECTIVES

CONTEXT = Context(
    accuracy=lambda module: 50.0 + len(list(module.parameters())),
    example=ExampleInput((torch.zeros(1, 3),)),
    latency=LatencyConfig(num_threads=1, warmup=1, iterations=3),
)


def candidate(made: list[nn.Module]) -> Candidate:
    def make() -> nn.Module:
        made.append(nn.Linear(3, 2))
        return made[-1]

    return Candidate(make, Cost(macs=6, parameters=8, weights=6), CONTEXT)


def test_the_module_is_made_once_and_only_if_needed() -> None:
    made: list[nn.Module] = []
    subject = candidate(made)
    assert measure_candidate(subject, ["macs", "parameters", "macs"]).values == {"macs": 6.0, "parameters": 8.0}
    assert made == []
    found = measure_candidate(subject, ["accuracy", "latency_ms"])
    assert len(made) == 1
    assert not made[0].training
    assert found.values["accuracy"] == 52.0
    assert found.values["latency_ms"] > 0
    assert found.attributes["latency_ms"]["inference_precision"] == "f32"
    assert found.attributes["latency_ms"]["num_threads"] == 1


def test_an_objective_from_outside_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (OBJECTIVES, MEASURES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @objective("layers", unit="", direction="minimize")
    def layers(subject: Candidate) -> Found:
        return float(len(list(subject.module.modules()))), {"note": "counted"}

    found = measure_candidate(candidate([]), ["layers"])
    assert (found.values, found.attributes) == ({"layers": 1.0}, {"layers": {"note": "counted"}})
    assert OBJECTIVES.get("layers").direction == "minimize"
    with pytest.raises(RegistryError, match="registered already"):
        objective("layers", unit="", direction="minimize")(layers)


def test_an_unknown_objective_is_an_error() -> None:
    with pytest.raises(RegistryError, match="Did you mean 'latency_ms'"):
        measure_candidate(candidate([]), ["latency"])


def test_latency_leaves_the_module_on_its_device() -> None:
    class Elsewhere(nn.Linear):
        """As if its device were another one; a module on `meta` cannot come back from there."""

        def cpu(self) -> nn.Linear:
            return nn.Linear(3, 2)

    module = Elsewhere(3, 2, device="meta")
    subject = Candidate(lambda: module, Cost(macs=6, parameters=8, weights=6), CONTEXT)
    assert measure_candidate(subject, ["latency_ms"]).values["latency_ms"] > 0
    assert subject.module is module
    assert module.weight.device.type == "meta"
