"""Which tensors lie in the same memory."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Span(NamedTuple):
    """The bytes of a memory between the first and the last item of a tensor; none if it has no such memory."""

    memory: int | None
    start: int
    end: int


def span_of(tensor: torch.Tensor) -> Span:
    """
    Returns where a tensor lies.

    :param tensor: Any tensor.
    """
    memory = memory_of(tensor)
    if memory is None or not tensor.numel():
        return Span(None, 0, 0)
    last = sum((size - 1) * int(step) for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    start, size = int(tensor.storage_offset()), tensor.element_size()
    return Span(memory, start * size, (start + last + 1) * size)


def overlap(one: Span, two: Span) -> bool:
    """
    Returns whether two spans of the same memory have bytes in common.

    :param one: A span.
    :param two: Another.
    """
    return one.start < two.end and two.start < one.end


def memory_of(tensor: torch.Tensor) -> int | None:
    """
    Returns what tensors have in common that share memory; ``None`` for one that has no memory of the usual kind.

    :param tensor: Any tensor.
    """
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else None


def version_of(tensor: torch.Tensor) -> int | None:
    """
    Returns how often a tensor has been written into, which its views share; ``None`` for one that does not count it.

    :param tensor: Any tensor.
    """
    return None if tensor.is_inference() else tensor._version
