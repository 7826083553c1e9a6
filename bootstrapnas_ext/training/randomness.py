"""Randomness of an epoch as a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded_epoch(loader: Any, seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """
    Makes the order of the data, random augmentation and dropout inside the context depend on seed and epoch alone.

    A training that is resumed at an epoch therefore goes on exactly as one that was not interrupted. The caller's own
    random state is untouched. PyTorch's generators are covered, the workers' too; a data set that draws from ``random``
    or ``numpy.random`` in this process is not.

    .. code-block:: python

        for epoch in range(start, epochs):
            with seeded_epoch(loader, seed=0, epoch=epoch, device=torch.device("cpu")):
                for images, labels in loader:
                    ...

    :param loader: A data loader, or any other iterable that draws from PyTorch's generators.
    :param seed: The seed of the training, not negative.
    :param epoch: The epoch, from 0.
    :param device: The device of the model.
    """
    value = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    sampler: Any = getattr(loader, "sampler", None)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(value)
        for owner in (loader, sampler):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(value)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        yield
