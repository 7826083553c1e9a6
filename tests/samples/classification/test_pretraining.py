"""Training of the input model: it learns, the same seed gives the same weights, and a diverging loss stops it."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bootstrapnas_ext.errors import TrainingError
from samples.classification.pretraining import create_optimizer, pretrain
from samples.classification.settings import OptimizerConfig, PretrainConfig


def loader() -> Any:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 16, shuffle=True, generator=torch.Generator())


def train(model: nn.Module, seed: int = 0, epochs: int = 8, **optimizer: Any) -> str:
    output = io.StringIO()
    pretrain(
        model,
        loader(),
        loader(),
        PretrainConfig(epochs),
        OptimizerConfig(**optimizer),
        seed=seed,
        bf16=False,
        device=torch.device("cpu"),
        console=Console(file=output),
    )
    return output.getvalue()


def test_optimizer_spares_what_its_keys_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    config = OptimizerConfig(weight_decay=0.1, no_decay_keys="1.weight#bias", base_lr=0.3)
    optimizer = create_optimizer(model.named_parameters(), config)
    assert [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [(0.1, 1), (0, 3)]
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_optimizer_spares_norms_and_biases_on_request() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    config = OptimizerConfig(weight_decay=0.1, no_decay_keys="2.weight", decay_norms_and_biases=False)
    optimizer = create_optimizer(model.named_parameters(), config)
    groups = [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    assert groups == [(0.1, 1), (0.0, 4), (0.0, 1)]


@pytest.mark.parametrize(
    ("kind", "expected"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_kinds_of_optimizers(kind: Any, expected: type) -> None:
    optimizer = create_optimizer(nn.Linear(2, 2).named_parameters(), OptimizerConfig(type=kind))
    assert type(optimizer) is expected


def test_model_learns_and_progress_is_shown() -> None:
    model = nn.Linear(4, 2)
    lines = train(model, base_lr=0.5).splitlines()
    assert len(lines) == 8
    assert lines[-1].startswith("input model: epoch 8/8  loss 0.")
    assert float(lines[-1].split()[-2]) > 90
    assert not model.training


def test_same_seed_gives_the_same_weights() -> None:
    first = nn.Sequential(nn.Dropout(), nn.Linear(4, 2))
    second, third = copy.deepcopy(first), copy.deepcopy(first)
    train(first, epochs=2)
    torch.rand(7)
    train(second, epochs=2)
    train(third, epochs=2, seed=1)
    assert torch.equal(first[1].weight, second[1].weight)
    assert not torch.equal(first[1].weight, third[1].weight)


def test_diverging_loss_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"must be finite, but it is (nan|inf) in epoch \d; lower"):
        train(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2)), base_lr=1e12)
