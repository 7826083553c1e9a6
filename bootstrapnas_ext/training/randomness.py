"""Randomness of an epoch as a function of the seed and the epoch alone, and what is needed to go on in its midst."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
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
    workers too; a generator of a data set's own is not. Of several processes, each has random numbers of its own.

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
    sampler: Any = getattr(loader, "sampler", None)
    before = get_random_state(device)
    try:
        torch.manual_seed(value)
        np.random.seed(value)
        random.seed(value)
        for owner in (loader, sampler):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(value)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        yield
    finally:
        set_random_state(before, device)


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
