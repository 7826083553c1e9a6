"""How important each channel of a weight is; channels are sorted by it before narrow subnets keep the first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bootstrapnas_ext.registry import Registry

IMPORTANCES: Registry[Callable[[Tensor], Tensor]] = Registry("importance")
"""Name to a function of a weight as a matrix ``(channels, items)`` that returns ``(channels,)``, larger is better."""


@IMPORTANCES.register("L1")
def l1_norm(rows: Tensor) -> Tensor:
    """
    Sum of magnitudes of each row: Li et al., 2017, https://arxiv.org/abs/1608.08710.

    :param rows: Shape ``(channels, items)``.
    """
    return rows.abs().sum(dim=1)


@IMPORTANCES.register("L2")
def l2_norm(rows: Tensor) -> Tensor:
    """
    Euclidean length of each row.

    :param rows: Shape ``(channels, items)``.
    """
    return rows.square().sum(dim=1).sqrt()


@IMPORTANCES.register("geometric_median")
def geometric_median_distance(rows: Tensor) -> Tensor:
    """
    Sum of distances to all other rows: a row near the geometric median can be replaced by the others.

    He et al., 2019, https://arxiv.org/abs/1811.00250.

    :param rows: Shape ``(channels, items)``.
    """
    return torch.cdist(rows, rows).sum(dim=1)
