"""Data loaders, and what else is for the initialization of a compressed model, by NNCF 2's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from bootstrapnas_ext import config
from bootstrapnas_ext.config.nncf_config import first_of_batch
from bootstrapnas_ext.errors import DataError


class PTInitializingDataLoader:
    """
    A data loader that knows which part of a batch the model takes; a subclass says which.

    :param data_loader: Yields batches.
    """

    def __init__(self, data_loader: Any) -> None:
        self._data_loader = data_loader

    @property
    def batch_size(self) -> int:
        """Samples in a batch."""
        return int(self._data_loader.batch_size)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._data_loader)

    def __len__(self) -> int:
        return len(self._data_loader)

    def get_inputs(self, dataloader_output: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """
        Returns the positional and keyword arguments with which the model is called.

        :param dataloader_output: A batch.
        """
        raise NotImplementedError

    def get_target(self, dataloader_output: Any) -> Any:
        """
        Returns what the criterion compares the outputs with.

        :param dataloader_output: A batch.
        """
        raise NotImplementedError


class DefaultInitializingDataLoader(PTInitializingDataLoader):
    """A data loader of ``(inputs, targets)``."""

    def get_inputs(self, dataloader_output: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (dataloader_output[0],), {}

    def get_target(self, dataloader_output: Any) -> Any:
        return dataloader_output[1]


def default_criterion_fn(outputs: Any, target: Any, criterion: Callable[[Any, Any], Tensor]) -> Tensor:
    """
    Returns the loss of what a model returned.

    :param outputs: Of the model.
    :param target: What they are compared with.
    :param criterion: Compares them.
    """
    return criterion(outputs, target)


def wrap_dataloader_for_init(data_loader: Any) -> PTInitializingDataLoader:
    """
    Returns a data loader that knows what the model takes.

    :param data_loader: Yields ``(inputs, targets)``, or is such a loader already.
    :raises DataError: If its batches are something else, so that a class of one's own must say.
    """
    if isinstance(data_loader, PTInitializingDataLoader):
        return data_loader
    batch = next(iter(data_loader), None)
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        msg = (
            f"A batch must be a pair of inputs and targets, but got {type(batch).__name__}; give a subclass of "
            "`PTInitializingDataLoader` whose `get_inputs` says what the model takes."
        )
        raise DataError(msg)
    return DefaultInitializingDataLoader(data_loader)


class BNAdaptationInitArgs(config.BNAdaptationInitArgs):
    """
    Where BatchNorm recalibration takes its samples from.

    :param data_loader: Yields batches; a :class:`PTInitializingDataLoader` says which part the model takes.
    :param device: Where they go; to the model's device if not given.
    """

    def __init__(self, data_loader: Iterable[Any], device: str | None = None) -> None:
        super().__init__(data_loader, device, getattr(data_loader, "get_inputs", first_of_batch))
