"""Steps as a strategy gets them, without a scheduler."""

from __future__ import annotations

from typing import Any

from bootstrapnas_ext.config import DistillationConfig, TrainingConfig
from bootstrapnas_ext.space import SearchSpace
from bootstrapnas_ext.training import Step
from tests.training.fake_supernet import SPACE


def step_of(
    index: int = 0, space: SearchSpace = SPACE, *, source: Any = None, sample_rate: int = 1, seed: int = 0, **more: Any
) -> Step:
    """Returns a step whose MACs are the sum of a subnet's values; ``more`` are other keys of it or of its config."""
    functions = {name: more.pop(name) for name in ("macs", "estimate") if name in more}
    config = TrainingConfig(distillation=DistillationConfig(source), **more)
    whole = {"macs": lambda subnet: sum(subnet.values()), "estimate": lambda subnet: 0.0, **functions}
    return Step(index, space, SPACE, seed, sample_rate, config, **whole)
