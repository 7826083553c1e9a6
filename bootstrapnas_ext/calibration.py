"""A fixed list of training samples from which every subnet gets norm statistics of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from bootstrapnas_ext.config import BNAdaptationInitArgs
from bootstrapnas_ext.errors import DataError
from bootstrapnas_ext.evaluation import recalibrate_batchnorm
from bootstrapnas_ext.inputs import ExampleInput, as_input
from bootstrapnas_ext.training import seeded_epoch


@dataclass(frozen=True)
class Calibration:
    """
    Recalibrates norm statistics, always from the same samples.

    :param source: Where samples come from.
    :param samples: How many, rounded up to whole batches; with 0 nothing is recalibrated.
    :param seed: Of the loader's order and augmentation.
    :param all_processes: Whether each of several processes takes its part of the samples and all together recalibrate,
        which they must all do then. A part is what the loader's sampler leaves to a process.
    """

    source: BNAdaptationInitArgs
    samples: int
    seed: int
    all_processes: bool = False

    def __call__(self, module: nn.Module) -> None:
        """
        Recalibrates a module in place.

        :param module: A plain module, or the model of a super-network.
        :raises DataError: If the loader gives nothing.
        """
        if self.samples:
            device = self.source.device or next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
            batches = (batch.to(device) for batch in self.batches)
            recalibrate_batchnorm(module, batches, all_processes=self.all_processes)

    @cached_property
    def batches(self) -> tuple[ExampleInput, ...]:
        """The samples, as calls of the model."""
        loader: Any = self.source.data_loader
        found: list[ExampleInput] = []
        parts = getattr(getattr(loader, "sampler", None), "num_replicas", 1) if self.all_processes else 1
        missing = math.ceil(self.samples / parts)
        with seeded_epoch(loader, self.seed, 0, torch.device("cpu")):
            for batch in loader:
                if missing <= 0:
                    break
                args, kwargs = self.source.wrap(batch)
                found.append(as_input(args[0]) if len(args) == 1 and not kwargs else ExampleInput(args, kwargs))
                missing -= found[-1].tensors()[0].shape[0]
        if not found:
            raise DataError("The data to recalibrate BatchNorm with is empty; give at least one batch.")
        return tuple(found)
