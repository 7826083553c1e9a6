"""The oracle: active, extracted, ONNX and IR compute the same, for every net, from the super-network to the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from bootstrapnas_ext.deployment import deploy
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import NETS, TORCHVISION, build, randomize_norms, some_subnets

QUICK = ("resnet18", "mobilenet_v3_small")
MODELS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TORCHVISION]


@pytest.mark.parametrize("name", [*NETS, *MODELS])
def test_every_form_of_a_subnet_computes_the_same(name: str, tmp_path: Path) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    assert not supernet.refused

    def recalibrate(module: nn.Module) -> None:
        randomize_norms(module, seed=2)  # statistics of its own, which the files must have and not the super-network's

    for subnet in some_subnets(supernet, 1):
        report = deploy(supernet, subnet, tmp_path, recalibrate=recalibrate).verification
        assert set(report.batch_sizes) >= {1, 3}
        assert set(report.differences) == {"extracted", "onnx", "ir"}
        assert max(difference.max_relative for difference in report.differences.values()) < 1e-4
