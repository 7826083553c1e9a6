"""Training in several processes, as ``torchrun`` starts them: what they have to agree on.

Where ``torch.distributed`` is not initialized there is one process, and every function here returns at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from bootstrapnas_ext.errors import BootstrapNASError


def count() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def add_up(tensor: torch.Tensor) -> None:
    """
    Puts the sum over all processes into a tensor.

    :param tensor: On any device; of the same shape in all processes.
    """
    if count() > 1:
        total = tensor.to(_device())
        dist.all_reduce(total)
        tensor.copy_(total)


def mean(value: float) -> float:
    """
    Returns the mean over all processes; not finite if one of them is not.

    :param value: Of this process.
    """
    if count() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    add_up(total)
    return total.item() / count()


def any_of(*flags: bool) -> tuple[bool, ...]:
    """
    Returns for each of some flags whether it is set in any process.

    :param flags: Of this process.
    """
    if count() == 1:
        return flags
    votes = torch.tensor([float(flag) for flag in flags])
    add_up(votes)
    return tuple(vote > 0 for vote in votes.tolist())


def gather(value: Any) -> list[Any]:
    """
    Returns what each process has, in the order of their numbers.

    :param value: Of this process; the processes exchange it by ``pickle``.
    """
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def wait_for_all() -> None:
    """Returns when all processes are here."""
    if count() > 1:
        dist.barrier()


@contextmanager
def first_before_others() -> Iterator[None]:
    """
    A context that the first process goes through before the others do.

    :raises BootstrapNASError: In all of them, if the first one fails with it.
    """
    if rank():
        _raise_if_any(None)
        yield
        return
    try:
        yield
    except BootstrapNASError as error:
        _raise_if_any(error)
    _raise_if_any(None)


def _raise_if_any(error: BootstrapNASError | None) -> None:
    for found in gather(error):
        if found is not None:
            raise found


def _device() -> torch.device:
    """Returns where the backend needs tensors to be."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
