"""One subnet, from the super-network to verified files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext import ExampleInput, Supernet
from bootstrapnas_ext.deployment import deploy
from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export import FORMATS


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


class BakedView(nn.Module):
    """A number of features in the code beside a batch size from a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 64, 3, padding=1), nn.Linear(1024, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).view(x.size(0), 1024))


class LooseBlock(nn.Module):
    """A residual connection in the code, and a flattening that keeps the batch and guesses the features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branch = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.branch(x))
        return self.fc(x.view(x.size(0), -1))


@pytest.mark.parametrize("model", [BakedView, LooseBlock])
def test_subnets_that_are_graphs_run_in_all_formats(model: type[nn.Module], tmp_path: Path) -> None:
    supernet = Supernet(model().eval(), ExampleInput((torch.randn(1, 3, 4, 4),)))
    deployed = deploy(supernet, supernet.space.minimum, tmp_path, tuple(FORMATS))
    assert isinstance(deployed.module, torch.fx.GraphModule)
    assert max(d.max_relative for d in deployed.verification.differences.values()) < 1e-4


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


def test_a_tensor_alone_is_an_example_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
    supernet = Supernet(model, torch.randn(1, 3, 8, 8))
    assert supernet.example.args[0].shape == (1, 3, 8, 8)
