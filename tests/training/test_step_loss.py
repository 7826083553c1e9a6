"""The loss of a pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bootstrapnas_ext.training import Pass, StepLoss
from tests.training.fake_supernet import SPACE


def step_loss(one: Pass) -> tuple[StepLoss, list[str]]:
    asked: list[str] = []

    def distillation(source: Any) -> torch.Tensor:
        asked.append(source)
        return torch.tensor(10.0)

    scheduler: Any = SimpleNamespace(current_pass=one)
    return StepLoss(scheduler, distillation), asked  # type: ignore[arg-type]


@pytest.mark.parametrize(("task", "distillation"), [(1.0, 1.0), (0.0, 0.25), (0.5, 0.0)])
def test_weights_are_those_of_the_pass(task: float, distillation: float) -> None:
    loss, asked = step_loss(Pass(SPACE.minimum, "maximum", task, distillation))
    assert loss(torch.tensor(3.0)).item() == 3 * task + 10 * distillation
    assert loss().item() == 10 * distillation
    assert asked == ["maximum", "maximum"]
