"""Randomness of an epoch as a function of the seed and the epoch alone, and what is needed to go on in its midst."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch

from bootstrapnas_ext import processes


@contextmanager
def seeded_epoch(loader: Any, seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """
    Makes the order of the data, random augmentation and dropout inside the context depend on seed and epoch alone.

    A training that is resumed at an epoch therefore goes on exactly as one that was not interrupted. The caller's own
    random state is untouched. The generators of PyTorch, NumPy and ``random`` are covered, those of the loader's
    workers too; a generator of a data set's own is not, nor are workers that live longer than an epoch
    (``persistent_workers``). Of several processes, each has random numbers of its own.

    .. code-block:: python

        for epoch in range(start, epochs):
            with seeded_epoch(loader, seed=0, epoch=epoch, device=torch.device("cpu")):
                for images, labels in loader:
                    ...

    :param loader: A data loader, or any other iterable that draws from these generators.
    :param seed: The seed of the training, not negative.
    :param epoch: The epoch, from 0.
    :param device: The device of the model.
    """
    rank = processes.rank()
    value = int(np.random.SeedSequence([seed, epoch, rank] if rank else [seed, epoch]).generate_state(1)[0])
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    before = get_random_state(device)
    try:
        torch.manual_seed(value)
        np.random.seed(value)
        random.seed(value)
        for part in parts:
            if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                generator.manual_seed(value)
            if (set_epoch := getattr(part, "set_epoch", None)) is not None:
                set_epoch(epoch)
        yield
    finally:
        set_random_state(before, device)


def batches_of_epoch(loader: Iterable[Any], size: int, device: torch.device) -> Iterator[list[Any]]:
    """
    Returns the batches of a loader in lists, the last of which may be shorter.

    The data draws from random numbers of its own, which begin as those of the call: whatever the model draws meanwhile,
    the data stays the same.

    :param loader: Gives batches.
    :param size: Number of batches in a list.
    :param device: The device of the model.
    """
    return _batches(loader, size, device, get_random_state(device))


def _batches(loader: Iterable[Any], size: int, device: torch.device, random: dict[str, Any]) -> Iterator[list[Any]]:
    batches: Iterator[Any] | None = None
    while True:
        outside = get_random_state(device)
        set_random_state(random, device)
        try:
            batches = iter(loader) if batches is None else batches
            group = list(islice(batches, size))
            random = get_random_state(device)
        finally:
            set_random_state(outside, device)
        if not group:
            return
        yield group


def get_random_state(device: torch.device) -> dict[str, Any]:
    """
    Returns the states of the global generators of PyTorch, NumPy and ``random``: tensors and plain values.

    :param device: The device of the model, whose generator counts too.
    """
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """
    Gives the global generators the states that :func:`get_random_state` returned.

    :param state: The states.
    :param device: The device of the model.
    """
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
