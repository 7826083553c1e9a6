"""Norm statistics from a fixed list of samples."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bootstrapnas_ext.calibration import Calibration
from bootstrapnas_ext.config import BNAdaptationInitArgs
from bootstrapnas_ext.errors import DataError


def make(samples: int, *, seed: int = 0, items: int = 40) -> Calibration:
    data = torch.arange(items, dtype=torch.float32)[:, None] + torch.tensor([[0.0, 100.0]])
    loader = DataLoader(TensorDataset(data, torch.zeros(items)), batch_size=8, shuffle=True)
    return Calibration(BNAdaptationInitArgs(loader), samples, seed)


def test_statistics_are_those_of_the_samples() -> None:
    calibration, norm = make(40), nn.BatchNorm1d(2)
    calibration(norm)
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, torch.tensor([19.5, 119.5]))


def test_samples_are_rounded_up_to_batches() -> None:
    assert [len(batch.args[0]) for batch in make(17).batches] == [8, 8, 8]


def test_the_same_seed_takes_the_same_samples() -> None:
    first, again, other = (make(16, seed=seed).batches[0].args[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_zero_samples_leave_the_module_as_it_was() -> None:
    norm = nn.BatchNorm1d(2)
    make(0)(norm)
    assert norm.running_mean is not None
    assert torch.equal(norm.running_mean, torch.zeros(2))


def test_no_data_is_an_error() -> None:
    calibration = Calibration(BNAdaptationInitArgs([]), 10, 0)
    with pytest.raises(DataError, match="is empty"):
        calibration(nn.BatchNorm1d(2))
