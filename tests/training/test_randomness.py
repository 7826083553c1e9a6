"""The randomness of an epoch depends on seed and epoch alone."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, TensorDataset

from bootstrapnas_ext.training.randomness import seeded_epoch

CPU = torch.device("cpu")
DATA = TensorDataset(torch.arange(40))


def draw(loader: DataLoader[tuple[torch.Tensor, ...]], seed: int, epoch: int) -> list[float]:
    with seeded_epoch(loader, seed, epoch, CPU):
        order = [int(value) for (batch,) in loader for value in batch]
        return [*order, torch.rand(()).item()]


def test_same_seed_and_epoch_give_the_same_order_and_noise() -> None:
    loaders = (
        lambda: DataLoader(DATA, batch_size=8, shuffle=True),
        lambda: DataLoader(DATA, batch_size=8, shuffle=True, generator=torch.Generator()),
        lambda: DataLoader(DATA, batch_size=8, sampler=RandomSampler(DATA, generator=torch.Generator())),
        lambda: DataLoader(DATA, batch_size=8, sampler=DistributedSampler(DATA, num_replicas=1, rank=0)),
    )
    for make in loaders:
        loader = make()
        first = draw(loader, 0, 1)
        torch.rand(7)
        list(loader)
        assert draw(loader, 0, 1) == first == draw(make(), 0, 1)
        assert draw(loader, 0, 2)[:-1] != first[:-1]


def test_seed_changes_the_order() -> None:
    loader = DataLoader(DATA, batch_size=8, shuffle=True)
    assert draw(loader, 0, 1) != draw(loader, 1, 1) != draw(loader, 1, 0)


def test_random_state_of_the_caller_is_untouched() -> None:
    before = torch.get_rng_state()
    draw(DataLoader(DATA, shuffle=True), 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_any_iterable_will_do() -> None:
    with seeded_epoch([1, 2], 0, 0, CPU):
        first = torch.rand(())
    with seeded_epoch([1, 2], 0, 0, CPU):
        assert torch.equal(torch.rand(()), first)
