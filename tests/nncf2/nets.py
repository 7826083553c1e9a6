"""A small net with a chain of blocks, depthwise convolutions and a classifier, and NNCF configs for it."""

from __future__ import annotations

from typing import Any

import nncf
import nncf.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.zoo import randomize_norms

SHAPE = [1, 3, 16, 16]


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.blocks = nn.Sequential(Block(32), Block(32))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.conv(x))).mean((2, 3)))


class Encoder(nn.Module):
    """Transformer layers, whose attention has a stand-in in a super-network."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(1))


def net(seed: int = 0) -> Net:
    """Returns the net with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = Net().eval()
    randomize_norms(model)
    return model


def images(count: int = 2) -> Tensor:
    """Returns random images."""
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(1))


def config(shape: list[int] = SHAPE, **keys: Any) -> nncf.NNCFConfig:
    """Returns NNCF's config of some keys, with data."""
    made = nncf.NNCFConfig.from_dict({"input_info": {"sample_size": shape}, **keys})
    data = TensorDataset(torch.randn(32, *shape[1:]), torch.arange(32) % 4)
    return nncf.torch.register_default_init_args(made, DataLoader(data, batch_size=8))


def create(model: nn.Module, settings: nncf.NNCFConfig, **options: Any) -> tuple[Any, Any]:
    """Calls NNCF's own function."""
    return nncf.torch.create_compressed_model(model, settings, dump_graphs=False, **options)
