"""One subnet, from the super-network to verified files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bootstrapnas_ext import ExampleInput, Supernet
from bootstrapnas_ext.deployment import deploy
from bootstrapnas_ext.errors import ExportError


@pytest.fixture
def supernet() -> Supernet:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 4))
    return Supernet(model, ExampleInput((torch.randn(1, 3, 4, 4),)))


def test_every_step_is_verified(supernet: Supernet, tmp_path: Path) -> None:
    deployed = deploy(supernet, supernet.space.minimum, tmp_path, ("onnx", "ir", "torch"))
    assert {path.name for path in deployed.files} == {"model.onnx", "model.xml", "model.bin", "model.pt2"}
    assert set(deployed.verification.differences) == {"extracted", "onnx", "ir", "torch"}
    assert max(d.max_relative for d in deployed.verification.differences.values()) < 1e-4
    assert sum(p.numel() for p in deployed.module.parameters()) == supernet.cost(supernet.space.minimum).parameters
    assert supernet.active == supernet.space.maximum


def test_an_extraction_that_differs_is_found(
    supernet: Supernet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = deploy.__globals__["extract"]

    def broken(*args: object) -> nn.Module:
        module = honest(*args)
        with torch.no_grad():
            module[0].weight[0].add_(1)
        return module

    monkeypatch.setitem(deploy.__globals__, "extract", broken)
    with pytest.raises(ExportError, match="of extracted got"):
        deploy(supernet, supernet.space.minimum, tmp_path)
    assert not list(tmp_path.iterdir())
