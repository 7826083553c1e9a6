"""Evaluation mode for a while."""

from __future__ import annotations

import pytest
from torch import nn

from bootstrapnas_ext.modes import evaluation_mode


def test_every_part_gets_its_own_mode_back() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()))
    module[1][0].eval()
    with evaluation_mode(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == [True, True, True, False, True]


def test_modes_come_back_after_an_error() -> None:
    module = nn.Dropout()
    with pytest.raises(KeyError, match="any"), evaluation_mode(module):
        raise KeyError("any")
    assert module.training
