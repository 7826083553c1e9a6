"""The code in docs/training.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from bootstrapnas_ext.config.training import DistillationConfig, ScheduleConfig, StageConfig, TrainingConfig
from bootstrapnas_ext.training import STRATEGIES, Distillation, StepLoss, TrainingScheduler
from tests.training.fake_supernet import FakeSupernet, TinyNet, make_data

DOC = Path(__file__).parents[2] / "docs" / "training.md"


def run_snippets() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(code, names)
    return names


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(STRATEGIES, "_entries", dict(STRATEGIES._entries))
    return run_snippets()


@pytest.mark.parametrize("source", [None, "none", "maximum", "input_model"])
@pytest.mark.parametrize(("strategy", "passes"), [("progressive_shrinking", 1), ("sandwich", 4)])
def test_own_loop_trains_through_all_stages(names: dict[str, Any], strategy: str, passes: int, source: Any) -> None:
    supernet = FakeSupernet()
    stages = (StageConfig(train_dims=("kernel",), init_lr=0.05), StageConfig(epochs=2, init_lr=0.05))
    config = TrainingConfig(schedule=ScheduleConfig(stages), strategy=strategy, distillation=DistillationConfig(source))
    scheduler = TrainingScheduler(supernet, config, seed=0, recalibrate=None)
    distillation = Distillation(supernet, TinyNet(), config.distillation, lambda: scheduler.current_step)
    loader = DataLoader(TensorDataset(*make_data(64)), batch_size=16)
    before = {name: value.clone() for name, value in supernet.model.named_parameters()}
    backward = []
    supernet.model.head.bias.register_hook(lambda _: backward.append(supernet.active))
    controller = SimpleNamespace(scheduler=scheduler, loss=StepLoss(scheduler, distillation))
    names["train"](controller, supernet.model, loader, torch.optim.SGD(supernet.parameters(), 0.05), F.cross_entropy)
    assert (scheduler.current_epoch, scheduler.current_step, scheduler.current_stage) == (2, 11, 1)
    assert len(backward) == 12 * passes
    assert len(set(backward)) > 4
    assert all(not torch.equal(value, before[name]) for name, value in supernet.model.named_parameters())


def test_own_strategy_is_found_by_its_name(names: dict[str, Any]) -> None:
    supernet = FakeSupernet()
    config = TrainingConfig(strategy="maximum_and_random", schedule=ScheduleConfig((StageConfig(),)))
    scheduler = TrainingScheduler(supernet, config, seed=0, recalibrate=None)
    scheduler.epoch_step()
    maximum, other = scheduler.step().passes
    assert maximum.subnet == supernet.space.maximum
    assert other.subnet != maximum.subnet
