"""Recalibration of norm statistics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.errors import DataError
from bootstrapnas_ext.evaluation import recalibrate_batchnorm


def batches(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, 4, 4, generator=generator) * size + size for size in sizes]


def test_statistics_are_the_mean_over_batches_whatever_they_were() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(50.0)
    norm.running_var.fill_(7.0)
    data = batches(8, 8, 8)
    recalibrate_batchnorm(norm, data)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in data])
    variances = torch.stack([batch.var((0, 2, 3)) for batch in data])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    torch.testing.assert_close(norm.running_var, variances.mean(0))


def test_smaller_batch_counts_less() -> None:
    norm = nn.BatchNorm2d(3)
    data = batches(6, 2)
    recalibrate_batchnorm(norm, data)
    torch.testing.assert_close(norm.running_mean, torch.cat(data).mean((0, 2, 3)))


def test_order_does_not_matter() -> None:
    one, two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    data = batches(2, 4, 6)
    recalibrate_batchnorm(one, data)
    recalibrate_batchnorm(two, data[::-1])
    torch.testing.assert_close(one.running_mean, two.running_mean)
    torch.testing.assert_close(one.running_var, two.running_var)


def test_norm_that_is_used_twice_sees_both_uses() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(input=x + 10)

    module = Twice()
    (data,) = batches(4)
    recalibrate_batchnorm(module, [data])
    torch.testing.assert_close(module.norm.running_mean, data.mean((0, 2, 3)) + 5)


def test_only_norms_train_meanwhile_and_everything_is_left_as_it_was() -> None:
    seen: list[list[bool]] = []

    class Watched(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            seen.append([part.training for part in self])
            return super().forward(x)

    module = Watched(nn.Dropout(), nn.BatchNorm2d(3, momentum=0.3), nn.GroupNorm(1, 3), nn.BatchNorm2d(3)).train()
    module[3].eval()
    module[3].momentum = None
    recalibrate_batchnorm(module, batches(4))
    assert seen == [[False, True, False, True]]
    assert [part.training for part in module] == [True, True, True, False]
    assert module[1].momentum == 0.3
    assert module[3].momentum is None
    assert not module[1]._forward_pre_hooks


def test_same_batches_give_the_same_statistics_despite_dropout() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    found = []
    for _ in range(2):
        recalibrate_batchnorm(module, batches(4, 4))
        found.append(module[2].running_var.clone())
    assert torch.equal(*found)


def test_weights_do_not_change() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = [parameter.clone() for parameter in module.parameters()]
    recalibrate_batchnorm(module, batches(4))
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in module.parameters())


def test_modes_and_momentum_come_back_after_an_error() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Dropout())
    with pytest.raises(ValueError, match="expected 4D input"):
        recalibrate_batchnorm(module, [torch.ones(4, 3)])
    assert [part.training for part in module] == [True, True]
    assert module[0].momentum == 0.3
    assert not module[0]._forward_pre_hooks


@pytest.mark.parametrize("module", [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(3, track_running_stats=False)])
def test_without_running_statistics_nothing_runs(module: nn.Module) -> None:
    def fail() -> Tensor:
        raise AssertionError

    recalibrate_batchnorm(module, (fail() for _ in range(1)))


def test_batches_of_one_sample_are_left_out() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    data = batches(4, 1)
    recalibrate_batchnorm(module, data)
    torch.testing.assert_close(module[1].running_mean, data[0].mean((0, 2, 3)))


def test_norms_that_do_not_run_are_left_as_they_are() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return x

    module = Skips()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recalibrate_batchnorm(module, batches(4))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("data", [[], batches(1, 1)])
def test_no_batch_is_an_error(data: list[Tensor]) -> None:
    with pytest.raises(DataError, match="at least one batch of two samples or more"):
        recalibrate_batchnorm(nn.BatchNorm2d(3), data)


def test_norms_that_no_batch_reaches_are_left_alone() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return x

    module = Skipping()
    recalibrate_batchnorm(module, batches(4))
    assert torch.equal(module.norm.running_mean, torch.zeros(3))
