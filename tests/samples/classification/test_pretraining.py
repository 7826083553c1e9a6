"""Training of the input model: it learns, the same seed gives the same weights, and a diverging loss stops it."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bootstrapnas_ext.errors import CheckpointError, TrainingError
from samples.classification.pretraining import create_optimizer, pretrain
from samples.classification.settings import OptimizerConfig, PretrainConfig


def loader() -> Any:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 16, shuffle=True, generator=torch.Generator())


class Interrupted:
    """A loader of which ctrl-C ends an epoch in its midst."""

    def __init__(self, epoch: int) -> None:
        self.left = epoch
        self.loader = loader()
        self.generator = self.loader.generator

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(self.loader):
            if self.left == 0 and index == 2:
                raise KeyboardInterrupt
            yield batch
        self.left -= 1


def train(
    model: nn.Module,
    seed: int = 0,
    epochs: int = 8,
    checkpoint: Path | None = None,
    data: Any = None,
    **optimizer: Any,
) -> str:
    output = io.StringIO()
    pretrain(
        model,
        data or loader(),
        loader(),
        PretrainConfig(epochs),
        OptimizerConfig(**optimizer),
        seed=seed,
        bf16=False,
        device=torch.device("cpu"),
        console=Console(file=output),
        checkpoint=checkpoint,
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


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_interrupted_training_ends_with_the_weights_of_one_that_was_not(kind: Any, tmp_path: Path) -> None:
    whole = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    stopped, resumed = copy.deepcopy(whole), copy.deepcopy(whole)
    train(whole, epochs=4, type=kind)
    path = tmp_path / "pretraining.pt"
    with pytest.raises(KeyboardInterrupt):
        train(stopped, epochs=4, checkpoint=path, data=Interrupted(2), type=kind)
    lines = train(resumed, epochs=4, checkpoint=path, type=kind).splitlines()
    assert [line.split()[3] for line in lines] == ["3/4", "4/4"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first, second = nn.Linear(4, 2), nn.Linear(4, 2)
    path = tmp_path / "pretraining.pt"
    train(first, epochs=1, checkpoint=path)
    assert train(second, epochs=1, checkpoint=path) == ""
    assert torch.equal(first.weight, second.weight)
    assert not second.training


def test_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "pretraining.pt"
    train(nn.Linear(4, 2), epochs=1, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"pretraining\.pt is damaged, or of another model; delete it"):
        train(nn.Linear(4, 3), epochs=1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"pretraining\.pt is damaged"):
        train(nn.Linear(4, 2), epochs=1, checkpoint=path)


def test_diverging_loss_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"must be finite, but it is (nan|inf) in epoch \d; lower"):
        train(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2)), base_lr=1e12)
