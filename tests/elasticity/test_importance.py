"""Importance of channels, compared to values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from bootstrapnas_ext.elasticity.importance import IMPORTANCES

ROWS = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("L1", [7.0, 0.0, 2.0]),
        ("L2", [5.0, 0.0, math.sqrt(2)]),
        ("geometric_median", [5 + math.sqrt(29), 5 + math.sqrt(2), math.sqrt(29) + math.sqrt(2)]),
    ],
)
def test_values(name: str, expected: list[float]) -> None:
    assert torch.allclose(IMPORTANCES.get(name)(ROWS), torch.tensor(expected))
