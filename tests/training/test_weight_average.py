"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bootstrapnas_ext.training import WeightAverage


def parameter(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value, 2 * value]))


def test_average_is_applied_for_a_while() -> None:
    weight = parameter(1.0)
    average = WeightAverage([weight], decay=0.75)
    for value in (5.0, 9.0):
        with torch.no_grad():
            weight.copy_(torch.tensor([value, 2 * value]))
        average.update()
    with average.applied():
        torch.testing.assert_close(weight.detach(), torch.tensor([3.75, 7.5]))
    torch.testing.assert_close(weight.detach(), torch.tensor([9.0, 18.0]))


def test_weights_come_back_after_an_error() -> None:
    weight = parameter(1.0)
    average = WeightAverage([weight], decay=0.5)
    with torch.no_grad():
        weight.mul_(3.0)
    with pytest.raises(ValueError, match="inside"), average.applied():
        raise ValueError("inside")
    torch.testing.assert_close(weight.detach(), torch.tensor([3.0, 6.0]))


def test_restart_forgets() -> None:
    weight = parameter(1.0)
    average = WeightAverage([weight], decay=0.5)
    with torch.no_grad():
        weight.mul_(3.0)
    average.restart()
    with average.applied():
        torch.testing.assert_close(weight.detach(), torch.tensor([3.0, 6.0]))


def test_state_is_restored() -> None:
    average, other = (WeightAverage([parameter(value)], decay=0.5) for value in (1.0, 5.0))
    other.load_state([value.clone() for value in average.get_state()])
    assert torch.equal(other.get_state()[0], average.get_state()[0])


def test_state_of_other_parameters_is_refused() -> None:
    average = WeightAverage([parameter(1.0)], decay=0.5)
    for values in ([], [torch.zeros(3)]):
        with pytest.raises(ValueError, match="the average must be of 1 parameters of the same shapes"):
            average.load_state(values)
