"""The scheduler: stages, subnets, learning rate and state."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from bootstrapnas_ext.config.training import DistillationConfig, ScheduleConfig, StageConfig, TrainingConfig
from bootstrapnas_ext.errors import CheckpointError, ConfigError, RegistryError, TrainingError
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.scheduler import TrainingScheduler
from bootstrapnas_ext.training.strategies import STRATEGIES, Pass, Step
from tests.training.fake_supernet import SPACE, FakeSupernet, make_data

STAGES = (
    StageConfig(train_dims=("kernel",), init_lr=0.8),
    StageConfig(train_dims=("kernel", "depth", "width"), epochs=2, width_indicator=2, init_lr=0.4),
)


def config_of(*stages: StageConfig, strategy: str = "progressive_shrinking") -> TrainingConfig:
    return TrainingConfig(strategy=strategy, schedule=ScheduleConfig(stages))


def scheduler_of(supernet: FakeSupernet, *stages: StageConfig, seed: int = 0) -> TrainingScheduler:
    return TrainingScheduler(supernet, config_of(*stages), seed=seed, recalibrate=None)


def run(scheduler: TrainingScheduler, epochs: int, steps: int = 6) -> list[tuple[Subnet, ...]]:
    subnets = []
    for _ in range(epochs):
        scheduler.epoch_step()
        subnets += [tuple(one.subnet for one in scheduler.step().passes) for _ in range(steps)]
    return subnets


def maximum_and_minimum(step: Step) -> tuple[Pass, ...]:
    return Pass(step.space.maximum, task_weight=4.0), Pass(step.space.minimum, "input_model", distillation_weight=3.0)


def test_epochs_move_through_the_stages() -> None:
    scheduler = scheduler_of(FakeSupernet(), *STAGES)
    assert (scheduler.total_epochs, scheduler.current_epoch, scheduler.current_step) == (3, -1, -1)
    seen = []
    for _ in range(4):
        scheduler.epoch_step()
        seen.append(scheduler.current_stage)
    assert seen == [0, 1, 1, 1]


def test_steps_activate_subnets_of_the_stage_only() -> None:
    supernet = FakeSupernet()
    subnets = run(scheduler_of(supernet, *STAGES), epochs=3, steps=40)
    assert supernet.activated == [step[0] for step in subnets]
    first, later = supernet.activated[:40], supernet.activated[40:]
    assert {tuple(subnet.values()) for subnet in first} == {(3, 2, 16), (1, 2, 16)}
    assert {subnet["width:stem"] for subnet in later} == {16, 12}
    assert {subnet["depth:body"] for subnet in later} == {2, 1, 0}


def test_strategy_of_several_subnets_activates_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES._entries, "maximum_and_minimum", maximum_and_minimum)
    supernet = FakeSupernet()
    config = config_of(STAGES[1], strategy="maximum_and_minimum")
    scheduler = TrainingScheduler(supernet, config, seed=0, recalibrate=None)
    ((first, second),) = run(scheduler, epochs=1, steps=1)
    assert (first, second) == (SPACE.maximum, scheduler.stages[0].space.minimum)
    assert supernet.active == SPACE.maximum


def test_going_through_a_step_activates_each_subnet_and_makes_its_pass_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(STRATEGIES._entries, "maximum_and_minimum", maximum_and_minimum)
    supernet = FakeSupernet()
    config = config_of(STAGES[1], strategy="maximum_and_minimum")
    scheduler = TrainingScheduler(supernet, config, seed=0, recalibrate=None)
    scheduler.epoch_step()
    passes = scheduler.step()
    minimum = scheduler.stages[0].space.minimum
    expected = [Pass(SPACE.maximum, "none", 4.0), Pass(minimum, "input_model", 1.0, 3.0)]
    for _ in range(2):  # as with several batches a step
        assert len(passes) == 2
        seen = [(subnet, supernet.active, scheduler.current_pass) for subnet in passes]
        assert seen == [(one.subnet, one.subnet, one) for one in expected]


def test_pass_before_the_first_step_learns_as_the_config_says() -> None:
    supernet = FakeSupernet()
    supernet.set_active(SPACE.minimum)
    config = TrainingConfig(distillation=DistillationConfig("input_model"))
    scheduler = TrainingScheduler(supernet, config, seed=0, recalibrate=None)
    assert scheduler.current_pass == Pass(SPACE.minimum, "input_model")
    scheduler.epoch_step()
    scheduler.step()
    scheduler.reset()
    supernet.set_active(SPACE.minimum)
    assert scheduler.current_pass == Pass(SPACE.minimum, "input_model")


def test_a_stage_may_have_a_strategy_of_its_own() -> None:
    supernet = FakeSupernet()
    scheduler = scheduler_of(supernet, STAGES[0], replace(STAGES[1], strategy="sandwich"))
    subnets = run(scheduler, epochs=3)
    assert [len(step) for step in subnets] == 6 * [1] + 12 * [4]
    assert all(step[:2] == (SPACE.maximum, scheduler.stages[1].space.minimum) for step in subnets[6:])


def test_comparing_strategy_gets_the_estimate_of_the_step() -> None:
    scheduler = scheduler_of(FakeSupernet(), replace(STAGES[1], strategy="attentive"))
    scheduler.epoch_step()
    asked: list[Subnet] = []
    scheduler.step(estimate=lambda subnet: float(asked.append(subnet) or len(asked)))
    assert len(asked) == 6
    with pytest.raises(
        TrainingError, match=r"compares subnets by their losses, .* `scheduler\.step\(estimate=\.\.\.\)`"
    ):
        scheduler.step()


def test_unknown_strategy_is_refused() -> None:
    config = config_of(STAGES[0], strategy="progresive_shrinking")
    with pytest.raises(RegistryError, match="Did you mean 'progressive_shrinking'"):
        TrainingScheduler(FakeSupernet(), config, seed=0, recalibrate=None)


def test_step_before_an_epoch_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"`epoch_step\(\)` must be called at the start of every epoch"):
        scheduler_of(FakeSupernet(), *STAGES).step()


def test_seed_decides_the_subnets() -> None:
    runs = [run(scheduler_of(FakeSupernet(), *STAGES, seed=seed), epochs=3) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_learning_rate_follows_the_stages_step_by_step() -> None:
    supernet = FakeSupernet()
    scheduler = scheduler_of(supernet, *STAGES)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=9.0)
    scheduler.attach(optimizer, steps_per_epoch=2)
    rates = []
    for _ in range(3):
        scheduler.epoch_step()
        for _ in range(2):
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    cosine = [0.4, 0.4 * 0.8535534, 0.2, 0.4 * 0.1464466]
    assert rates == pytest.approx([0.8, 0.4, *cosine])


def test_more_steps_than_announced_stay_in_the_epoch() -> None:
    supernet = FakeSupernet()
    scheduler = scheduler_of(supernet, STAGES[1])
    optimizer = torch.optim.SGD(supernet.parameters(), lr=9.0)
    scheduler.attach(optimizer, steps_per_epoch=2)
    run(scheduler, epochs=1, steps=5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2), "half of two epochs, not more"


def test_reorganizes_once_at_the_start_of_its_stage_with_the_maximum_active() -> None:
    supernet = FakeSupernet()
    images, _ = make_data()
    before = supernet.model.eval()(images)
    stages = (STAGES[0], StageConfig(train_dims=("kernel", "width"), epochs=2, reorg_weights=True))
    scheduler = scheduler_of(supernet, *stages)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=1.0, momentum=0.9)
    optimizer.state[supernet.model.stem.weight]["momentum_buffer"] = torch.ones_like(supernet.model.stem.weight)
    scheduler.attach(optimizer, steps_per_epoch=1)
    run(scheduler, epochs=1)
    assert supernet.reorganized == []
    assert len(optimizer.state) == 1
    run(scheduler, epochs=2)
    assert supernet.reorganized == [SPACE.maximum]
    assert len(optimizer.state) == 0, "the momenta belong to other channels now"
    supernet.set_active(SPACE.maximum)
    torch.testing.assert_close(supernet.model(images), before)


def test_adapts_norm_statistics_at_the_start_of_its_stage() -> None:
    supernet = FakeSupernet()
    seen: list[tuple[nn.Module, Subnet]] = []
    stages = (STAGES[0], StageConfig(epochs=2, bn_adapt=True))
    scheduler = TrainingScheduler(
        supernet, config_of(*stages), seed=0, recalibrate=lambda module: seen.append((module, supernet.active))
    )
    run(scheduler, epochs=1)
    assert seen == []
    run(scheduler, epochs=2)
    assert seen == [(supernet.model, SPACE.maximum)]


def test_bn_adapt_without_data_is_refused_before_the_first_step() -> None:
    scheduler = scheduler_of(FakeSupernet(), STAGES[0], StageConfig(bn_adapt=True))
    with pytest.raises(ConfigError, match=r"`bn_adapt` needs data .* call `register_default_init_args`"):
        scheduler.epoch_step()


def test_state_continues_with_the_same_subnets_and_learning_rate() -> None:
    whole = run(scheduler_of(FakeSupernet(), *STAGES), epochs=3)
    first = scheduler_of(FakeSupernet(), *STAGES)
    run(first, epochs=2)
    second = scheduler_of(FakeSupernet(), *STAGES)
    second.load_state(json.loads(json.dumps(first.get_state())))
    assert run(second, epochs=1) == whole[12:]


def test_state_within_a_stage_does_not_enter_it_again() -> None:
    stages = (StageConfig(epochs=2, reorg_weights=True), StageConfig(reorg_weights=True))
    first = scheduler_of(FakeSupernet(), *stages)
    run(first, epochs=1)
    supernet = FakeSupernet()
    second = scheduler_of(supernet, *stages)
    second.load_state(first.get_state())
    run(second, epochs=1)
    assert supernet.reorganized == []
    run(second, epochs=1)
    assert len(supernet.reorganized) == 1


def test_state_before_the_first_epoch_enters_the_first_stage() -> None:
    stages = (StageConfig(reorg_weights=True),)
    supernet = FakeSupernet()
    scheduler = scheduler_of(supernet, *stages)
    scheduler.load_state(scheduler_of(FakeSupernet(), *stages).get_state())
    scheduler.epoch_step()
    assert len(supernet.reorganized) == 1


def test_reset_goes_back_to_the_start_and_to_the_optimizers_own_rate() -> None:
    supernet = FakeSupernet()
    scheduler = scheduler_of(supernet, StageConfig(epochs=2, reorg_weights=True))
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.6)
    scheduler.attach(optimizer, steps_per_epoch=3)
    first = run(scheduler, epochs=2, steps=3)
    assert optimizer.param_groups[0]["lr"] < 0.1
    scheduler.reset()
    assert (scheduler.current_epoch, scheduler.current_step) == (-1, -1)
    assert optimizer.param_groups[0]["lr"] == 0.6
    assert run(scheduler, epochs=2, steps=3) == first
    assert len(supernet.reorganized) == 2


@pytest.mark.parametrize("key", ["current_epoch", "current_step", "depends_on"])
def test_something_else_than_a_state_is_refused(key: str) -> None:
    scheduler = scheduler_of(FakeSupernet(), *STAGES)
    state = scheduler.get_state()
    del state[key]
    with pytest.raises(CheckpointError, match=f"state has no '{key}'; give what"):
        scheduler.load_state(state)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (lambda: scheduler_of(FakeSupernet(), *STAGES, seed=5), "the same seed, but it has 5 and this training 0"),
        (lambda: scheduler_of(FakeSupernet(), STAGES[0]), "the same stages, but it has"),
        (
            lambda: scheduler_of(FakeSupernet(), replace(STAGES[0], epochs=9), *STAGES[1:]),
            r"the same stages\[0\]\.epochs, but it has 9 and this training \d;",
        ),
    ],
)
def test_state_of_another_training_is_refused(other: Callable[[], TrainingScheduler], match: str) -> None:
    scheduler = scheduler_of(FakeSupernet(), *STAGES)
    with pytest.raises(CheckpointError, match=match):
        scheduler.load_state(other().get_state())
    assert scheduler.current_epoch == -1
