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
from bootstrapnas_ext.training import STRATEGIES, TrainingScheduler, create_distillation
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


@pytest.mark.parametrize("source", ["none", "maximum", "input_model"])
def test_own_loop_trains_through_all_stages(names: dict[str, Any], source: str) -> None:
    supernet = FakeSupernet()
    stages = (StageConfig(train_dims=("kernel",), init_lr=0.05), StageConfig(epochs=2, init_lr=0.05))
    config = TrainingConfig(schedule=ScheduleConfig(stages))
    scheduler = TrainingScheduler(supernet, config, seed=0, recalibrate=None)
    loss = create_distillation(DistillationConfig(source), supernet, TinyNet())
    loader = DataLoader(TensorDataset(*make_data(64)), batch_size=16)
    before = {name: value.clone() for name, value in supernet.model.named_parameters()}
    controller = SimpleNamespace(scheduler=scheduler, loss=loss)
    names["train"](controller, supernet.model, loader, torch.optim.SGD(supernet.parameters(), 0.05), F.cross_entropy)
    assert (scheduler.current_epoch, scheduler.current_step, scheduler.current_stage) == (2, 11, 1)
    assert len(set(supernet.activated)) > 4
    assert all(not torch.equal(value, before[name]) for name, value in supernet.model.named_parameters())


def test_own_strategy_is_found_by_its_name(names: dict[str, Any]) -> None:
    supernet = FakeSupernet()
    config = TrainingConfig(strategy="maximum_and_random", schedule=ScheduleConfig((StageConfig(),)))
    scheduler = TrainingScheduler(supernet, config, seed=0, recalibrate=None)
    scheduler.epoch_step()
    maximum, other = scheduler.step()
    assert maximum == supernet.space.maximum
    assert other != maximum
