"""Top-1 accuracy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bootstrapnas_ext.errors import DataError, ModelError
from bootstrapnas_ext.evaluation import top1_accuracy

LOGITS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])


def test_accuracy_is_the_share_of_right_samples_not_of_batches() -> None:
    targets = torch.tensor([0, 1, 2, 0])
    batches = [(LOGITS[:3], targets[:3]), (LOGITS[3:], targets[3:])]
    assert top1_accuracy(nn.Identity(), batches) == 75.0


def test_any_loader_will_do() -> None:
    loader = DataLoader(TensorDataset(LOGITS, torch.tensor([0, 0, 0, 2])), batch_size=3)
    assert top1_accuracy(nn.Identity(), loader) == 50.0
    assert top1_accuracy(nn.Identity(), iter(loader)) == 50.0


def test_inputs_may_have_any_structure() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    targets = torch.tensor([0, 1, 2, 2])
    assert top1_accuracy(Sum(), [((LOGITS, LOGITS), targets)]) == 100.0
    assert top1_accuracy(Sum(), [({"b": LOGITS, "a": LOGITS}, targets)]) == 100.0


def test_model_runs_in_evaluation_mode_and_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(1.0), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert top1_accuracy(model, [(LOGITS, torch.tensor([0, 1, 2, 2]))]) == 100.0
    assert all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("loader", [[], [(LOGITS[:0], torch.empty(0, dtype=torch.int64))]])
def test_no_sample_is_an_error(loader: list[tuple[Tensor, Tensor]]) -> None:
    with pytest.raises(DataError, match="is empty"):
        top1_accuracy(nn.Identity(), loader)


@pytest.mark.parametrize("label", [3, -1])
def test_label_without_an_output_is_an_error(label: int) -> None:
    with pytest.raises(DataError, match=rf"`0 <= label < 3` must hold, .* label={label};"):
        top1_accuracy(nn.Identity(), [(LOGITS[:2], torch.tensor([0, label]))])


def test_outputs_that_are_no_logits_are_an_error() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ModelError, match=r"but got tuple for \(4,\); wrap .* `model_eval_fn` .* `val_loader=None`"):
        top1_accuracy(Pair(), [(LOGITS, torch.zeros(4, dtype=torch.int64))])


@pytest.mark.parametrize("shape", [(4, 3), (2,)])
def test_targets_that_do_not_fit_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"but got \(4, 3\) for "):
        top1_accuracy(nn.Identity(), [(LOGITS, torch.zeros(shape, dtype=torch.int64))])
