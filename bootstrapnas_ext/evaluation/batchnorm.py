"""Norm statistics of a subnet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from bootstrapnas_ext import processes
from bootstrapnas_ext.errors import DataError
from bootstrapnas_ext.inputs import as_input
from bootstrapnas_ext.modes import evaluation_mode
from bootstrapnas_ext.statistics import active_statistics, keeps_statistics


def recalibrate_batchnorm(module: nn.Module, batches: Iterable[Any], *, all_processes: bool = False) -> None:
    """
    Computes the running statistics of all batch norms anew, as the mean over some batches.

    Every subnet needs its own before it is evaluated: "post-statistics of batch normalization" in Yu and Huang,
    *Universally Slimmable Networks and Improved Training Techniques*, ICCV 2019. As there, it is the plain mean over
    batches and not a moving average, so neither their order nor the old statistics matter. Batches of different sizes,
    as the last one of a loader, count by their elements.

    Only norms with running statistics are in training mode meanwhile; dropout and everything else stays in evaluation
    mode, so the same batches give the same statistics. Without such norms nothing happens.

    .. code-block:: python

        batches = [images for images, _ in itertools.islice(loader, 16)]
        recalibrate_batchnorm(extract(supernet, subnet), batches)

    :param module: A plain module, changed in place, or the model of a super-network, whose active subnet gets them;
        modes and momentum of all parts are left as they were.
    :param batches: Inputs as in :func:`bootstrapnas_ext.inputs.as_input`, on the module's device. Batches of one
        sample are left out, because a norm after global pooling has no variance there.
    :param all_processes: Whether to take the mean over the batches of all processes, which must all call this.
    :raises DataError: If there is no batch of two samples or more.
    """
    momenta = {part: part.momentum for part in module.modules() if keeps_statistics(part)}
    if not momenta:
        return
    elements: Counter[nn.Module] = Counter()
    is_any_batch = False  # norms of blocks that are left out see none

    def weigh(norm: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        # A moving average whose momentum is the newest batch's share of all elements is their mean. The first share is
        # 1, so that the old statistics are gone.
        count = next(iter((*args, *kwargs.values()))).numel()
        elements[norm] += count
        norm.momentum = count / elements[norm]

    handles = [norm.register_forward_pre_hook(weigh, with_kwargs=True) for norm in momenta]
    try:
        with evaluation_mode(module), torch.no_grad():
            for norm in momenta:
                norm.train()
            for batch in batches:
                example = as_input(batch)
                if example.tensors()[0].shape[0] > 1:
                    module(*example.args, **example.kwargs)
                    is_any_batch = True
            if all_processes:
                with active_statistics(module):
                    for norm in momenta:
                        _average_over_processes(norm, elements[norm])
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    if not is_any_batch:
        raise DataError("Norm statistics need at least one batch of two samples or more, but got none.")


def has_norm_statistics(module: nn.Module) -> bool:
    """
    Returns whether any part of a module keeps running statistics.

    :param module: Any module.
    """
    return any(keeps_statistics(part) for part in module.modules())


@torch.no_grad()
def _average_over_processes(norm: Any, elements: int) -> None:
    """Takes the mean over all processes, weighted by how many elements each has seen."""
    for statistic in (norm.running_mean, norm.running_var):
        packed = torch.cat((statistic.double() * elements, statistic.new_full((1,), elements, dtype=torch.float64)))
        processes.add_up(packed)
        if packed[-1]:
            statistic.copy_(packed[:-1] / packed[-1])
