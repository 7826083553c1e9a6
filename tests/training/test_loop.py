"""The loop: it trains, validates, reports, saves, and resumes as if it had not stopped."""

from __future__ import annotations

import io
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from bootstrapnas_ext.config import (
    DistillationConfig,
    OptimizationConfig,
    ScheduleConfig,
    StageConfig,
    TrainingConfig,
)
from bootstrapnas_ext.errors import CheckpointError, ConfigError, DataError, DivergenceError, ModelError, TrainingError
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training import (
    STRATEGIES,
    Distillation,
    ExtractedAccuracy,
    Pass,
    Step,
    StepLoss,
    Trainer,
    TrainingResult,
    TrainingScheduler,
    load_checkpoint,
    load_supernet,
    save_checkpoint,
    seeded_epoch,
)
from tests.training.fake_supernet import CLASSES, SPACE, FakeSupernet, TinyNet, extract, make_data, recalibrate

IMAGES, LABELS = make_data(96)
VALIDATION = make_data(96, seed=1)
ADAPT = partial(recalibrate, IMAGES)
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
ADAMW = partial(torch.optim.AdamW, lr=0.01)
STAGES = (
    StageConfig(train_dims=("kernel",), epochs=2, init_lr=0.1),
    StageConfig(train_dims=("kernel", "depth", "width"), epochs=3, init_lr=0.1, reorg_weights=True, bn_adapt=True),
)


class KilledError(BaseException):
    """Stands for the end of the process."""


def top1(module: torch.nn.Module) -> float:
    module.eval()
    with torch.no_grad():
        return 100.0 * float((module(VALIDATION[0]).argmax(dim=1) == VALIDATION[1]).float().mean())


@dataclass
class Run:
    """One training of a fresh fake super-network; every part can be replaced."""

    folder: Path
    stages: Sequence[StageConfig] = STAGES
    seed: int = 0
    strategy: str = "progressive_shrinking"
    distillation: str | None = None
    criterion: Callable[[Any, torch.Tensor], torch.Tensor] = F.cross_entropy
    evaluate: Callable[[Subnet], float] | None = None
    loader: Any = None
    optimizer: Callable[..., torch.optim.Optimizer] = SGD
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    settings: dict[str, Any] = field(default_factory=dict)
    terminal: bool = False
    supernet: FakeSupernet = field(default_factory=FakeSupernet)
    input_model: TinyNet = field(default_factory=TinyNet)
    adapt: Callable[[torch.nn.Module], None] = field(default=ADAPT)
    output: io.StringIO = field(default_factory=io.StringIO)

    def __call__(self, resume: Path | None = None) -> TrainingResult:
        adapt = self.adapt
        distillation = DistillationConfig(self.distillation)
        schedule = ScheduleConfig(tuple(self.stages))
        config = TrainingConfig(
            strategy=self.strategy,
            schedule=schedule,
            distillation=distillation,
            optimization=self.optimization,
            **self.settings,
        )
        scheduler = TrainingScheduler(self.supernet, config, seed=self.seed, recalibrate=adapt)
        distill = Distillation(self.supernet, self.input_model, distillation, lambda: scheduler.current_step)
        loader = self.loader
        if loader is None:
            loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=16, shuffle=True)
        trainer = Trainer(
            self.supernet,
            scheduler,
            loader,
            self.criterion,
            self.optimizer(self.supernet.parameters()),
            loss=StepLoss(scheduler, distill),
            evaluate=self.evaluate or ExtractedAccuracy(partial(extract, self.supernet), adapt, top1),
            config=config,
            description="the config",
        )
        console = Console(file=self.output, force_terminal=self.terminal, width=200)
        return trainer.run(self.folder, self.folder / "log", resume=resume, console=console)


def weights(supernet: FakeSupernet) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in supernet.model.state_dict().items()}


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    differing = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert differing == []


def break_at(call: int) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """Returns the cross entropy, which is killed at that call."""
    calls = 0

    def criterion(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            msg = "killed"
            raise KilledError(msg)
        return F.cross_entropy(outputs, targets)

    return criterion


@pytest.mark.parametrize(
    ("strategy", "distillation"),
    [
        ("progressive_shrinking", None),
        ("progressive_shrinking", "maximum"),
        ("random", None),
        ("fair", None),
        ("sandwich", None),
        ("attentive", None),
    ],
)
def test_training_makes_small_subnets_work(tmp_path: Path, strategy: str, distillation: str | None) -> None:
    stages = (
        StageConfig(train_dims=("kernel",), epochs=2, init_lr=0.05),
        StageConfig(epochs=8, init_lr=0.05, reorg_weights=True),
    )
    run = Run(tmp_path, stages, strategy=strategy, distillation=distillation, supernet=FakeSupernet(seed=2))
    adapt = partial(recalibrate, IMAGES)
    untrained = ExtractedAccuracy(partial(extract, run.supernet), adapt, top1)(SPACE.minimum)
    result = run()
    assert [record.epoch for record in result.history] == list(range(10))
    assert [record.stage for record in result.history] == [0, 0] + 8 * [1]
    assert untrained < 70
    assert result.history[-1].top1_maximum > 85
    assert result.history[-1].top1_minimum > 85
    assert run.supernet.active == SPACE.maximum


def test_minimum_is_that_of_the_last_stage(tmp_path: Path) -> None:
    seen = []
    stages = (StageConfig(train_dims=("kernel",)), StageConfig(train_dims=("kernel", "width"), width_indicator=3))
    run = Run(tmp_path, stages=stages, evaluate=lambda subnet: float(seen.append(subnet) or 0))
    run.settings = {"num_validation_subnets": 0}
    run()
    minimum = Subnet({"kernel:stem": 1, "depth:body": 2, "width:stem": 8})
    assert seen == [SPACE.maximum, minimum, SPACE.maximum, minimum]


def test_the_same_random_subnets_of_the_last_stage_are_validated_after_each_epoch(tmp_path: Path) -> None:
    seen: list[Subnet] = []
    stages = (StageConfig(train_dims=("kernel",)), StageConfig(train_dims=("kernel", "width")))
    run = Run(tmp_path, stages=stages, evaluate=lambda subnet: seen.append(subnet) or float(len(seen)))
    run.settings = {"num_validation_subnets": 6}
    result = run()
    first, second = seen[2:8], seen[10:]
    assert first == second
    assert len(set(first)) > 2
    assert {subnet["depth:body"] for subnet in first} == {2}
    assert result.history[0].top1_random == (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


def test_best_checkpoint_is_the_best_epoch_and_last_the_last(tmp_path: Path) -> None:
    scores = {0: (50.0, 20.0), 1: (90.0, 10.0), 2: (70.0, 60.0), 3: (80.0, 50.0), 4: (99.0, 11.0)}
    answers = iter([value for pair in scores.values() for value in pair])
    snapshots: list[dict[str, torch.Tensor]] = []
    run = Run(tmp_path, settings={"num_validation_subnets": 0})

    def evaluate(subnet: Subnet) -> float:
        if subnet == SPACE.maximum:
            snapshots.append(weights(run.supernet))
        return next(answers)

    run.evaluate = evaluate
    result = run()
    assert result.best.epoch == 2, "65 is the highest mean; epoch 3 only equals it"
    for name, epoch in (("best.pt", 2), ("last.pt", 4)):
        supernet = FakeSupernet(seed=9)
        load_supernet(supernet, tmp_path / name)
        assert_same_weights(weights(supernet), snapshots[epoch])


def test_checkpoint_statistics_are_those_of_the_maximum(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run()
    expected = extract(run.supernet, SPACE.maximum, partial(recalibrate, IMAGES))
    torch.testing.assert_close(run.supernet.model.norm.running_mean, expected.norm.running_mean)
    torch.testing.assert_close(run.supernet.model.norm.running_var, expected.norm.running_var)


@pytest.mark.parametrize("minutes", [1e-9, 10.0], ids=["each step", "each epoch"])
@pytest.mark.parametrize("call", [8, 14, 20, 25])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW])
@pytest.mark.parametrize(
    ("strategy", "calls", "optimization"),
    [
        ("progressive_shrinking", 1, OptimizationConfig()),
        ("sandwich", 4, OptimizationConfig(gradient_accumulation=2, gradient_clipping=0.5)),
        ("attentive", 10, OptimizationConfig(ema_decay=0.9, channels_last=True)),
    ],
)
def test_resumed_training_ends_as_one_that_was_not_interrupted(
    tmp_path: Path,
    minutes: float,
    call: int,
    optimizer: Callable[..., torch.optim.Optimizer],
    strategy: str,
    calls: int,
    optimization: OptimizationConfig,
) -> None:
    make = partial(Run, distillation="maximum", optimizer=optimizer, strategy=strategy, optimization=optimization)
    whole = make(tmp_path / "whole")
    expected = whole()

    make.keywords["settings"] = {"checkpoint_minutes": minutes}
    killed = make(tmp_path / "killed")
    killed.criterion = break_at(call * calls)
    with pytest.raises(KilledError, match="killed"):
        killed()
    torch.rand(3)
    resumed = make(killed.folder, supernet=FakeSupernet(seed=7))
    assert resumed(resume=killed.folder / "last.pt") == expected
    assert_same_weights(weights(resumed.supernet), weights(whole.supernet))
    first, second = (load_checkpoint(run.folder / "best.pt") for run in (whole, resumed))
    assert_same_weights(first["supernet"]["weights"], second["supernet"]["weights"])


class Noisy(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images with noise from every global generator."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(()) + random.random() + np.random.rand()
        return IMAGES[index] + 0.1 * noise, LABELS[index]


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_in_the_midst_of_an_epoch_random_numbers_go_on(tmp_path: Path, workers: int) -> None:
    def drop(model: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (F.dropout(args[0], 0.3, model.training),)

    def make(name: str, call: int = 0, seed: int = 0) -> Run:
        run = Run(tmp_path / name, STAGES[:1], settings={"checkpoint_minutes": 1e-9}, supernet=FakeSupernet(seed))
        run.loader = DataLoader(Noisy(), batch_size=16, shuffle=True, num_workers=workers)
        run.supernet.model.register_forward_pre_hook(drop)
        run.criterion = break_at(call)
        return run

    whole = make("whole")
    expected = whole()
    killed = make("killed", call=9)
    with pytest.raises(KilledError, match="killed"):
        killed()
    for generator in (torch.rand, np.random.rand, lambda _: random.random()):
        generator(3)
    assert load_checkpoint(killed.folder / "last.pt")["position"]["steps"] == 2
    resumed = make("killed", seed=7)
    assert resumed(resume=killed.folder / "last.pt") == expected
    assert_same_weights(weights(resumed.supernet), weights(whole.supernet))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("call", [1, 5, 6, 7, 29])
def test_a_signal_ends_the_training_after_its_step_is_saved(tmp_path: Path, number: signal.Signals, call: int) -> None:
    whole = Run(tmp_path / "whole")
    expected = whole()
    calls = 0

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(number)
        return F.cross_entropy(outputs, targets)

    def ends(*_: Any) -> None:
        raise KilledError

    run = Run(tmp_path / "stopped", criterion=criterion)
    before = signal.signal(number, ends)
    try:
        with pytest.raises(KilledError):
            run()
        assert signal.getsignal(number) is ends
    finally:
        signal.signal(number, before)
    assert calls == call
    assert load_checkpoint(run.folder / "last.pt")["scheduler"]["current_step"] == call - 1
    assert f"{number.name}: stopped, and saved" in run.output.getvalue()
    resumed = Run(run.folder, supernet=FakeSupernet(seed=7))
    assert resumed(resume=run.folder / "last.pt") == expected
    assert_same_weights(weights(resumed.supernet), weights(whole.supernet))


def test_a_second_signal_acts_at_once(tmp_path: Path) -> None:
    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(outputs, targets)

    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, criterion=criterion)()
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("size", [8, 24])
def test_other_batches_are_refused_in_the_midst_of_an_epoch(tmp_path: Path, size: int) -> None:
    killed = Run(tmp_path, criterion=break_at(3), settings={"checkpoint_minutes": 1e-9})
    with pytest.raises(KilledError, match="killed"):
        killed()
    other = Run(tmp_path, loader=DataLoader(TensorDataset(IMAGES, LABELS), batch_size=size, shuffle=True))
    with pytest.raises(CheckpointError, match=rf"of 6 steps in 1 processes, but here an epoch has {96 // size} steps"):
        other(resume=tmp_path / "last.pt")


def test_resuming_a_finished_training_changes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    expected = run()
    again = Run(tmp_path, supernet=FakeSupernet(seed=3))
    assert again(resume=tmp_path / "last.pt") == expected
    assert_same_weights(weights(again.supernet), weights(run.supernet))


def test_seed_decides_the_weights(tmp_path: Path) -> None:
    runs = [Run(tmp_path / str(index), seed=seed) for index, seed in enumerate((0, 0, 1))]
    for index, run in enumerate(runs):
        torch.manual_seed(index)
        run()
    first, second, third = (weights(run.supernet) for run in runs)
    assert_same_weights(first, second)
    assert not torch.equal(first["stem.weight"], third["stem.weight"])


def test_each_epoch_has_an_order_of_its_own(tmp_path: Path) -> None:
    orders: list[tuple[int, ...]] = []

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        orders.append(tuple(targets.tolist()))
        return F.cross_entropy(outputs, targets)

    Run(tmp_path, criterion=criterion)()
    assert len(set(orders)) == len(orders) == 30


def test_random_state_of_the_caller_is_untouched(tmp_path: Path) -> None:
    run = Run(tmp_path)
    before = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_of_all_subnets_of_a_step_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def maximum_and_minimum(step: Step) -> tuple[Pass, ...]:
        return step.learns(step.space.maximum), step.learns(step.space.minimum)

    monkeypatch.setitem(STRATEGIES._entries, "maximum_and_minimum", maximum_and_minimum)
    run = Run(tmp_path, stages=(StageConfig(init_lr=0.5, epochs_lr=1),), strategy="maximum_and_minimum")
    run.loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=96)
    run.optimizer = partial(torch.optim.SGD, lr=0.5)
    expected = FakeSupernet()
    expected.model.train()
    for subnet in (SPACE.maximum, SPACE.minimum):
        expected.set_active(subnet)
        F.cross_entropy(expected.model(IMAGES), LABELS).backward()
    run()
    for mine, parameter in zip(run.supernet.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter - 0.5 * parameter.grad)


def test_loss_of_distillation_is_added(tmp_path: Path) -> None:
    one_epoch = (StageConfig(init_lr=1e-9),)
    plain, distilled = (Run(tmp_path / source, one_epoch, distillation=source) for source in ("none", "input_model"))
    assert distilled().history[0].loss > plain().history[0].loss + 1e-3


def test_bf16_runs_the_forward_pass_in_bfloat16(tmp_path: Path) -> None:
    seen = set()

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.add(outputs.dtype)
        return F.cross_entropy(outputs, targets)

    run = Run(tmp_path, optimization=OptimizationConfig(bf16=True), criterion=criterion)
    assert run().history[-1].top1_maximum > 80
    assert seen == {torch.bfloat16}
    assert run.supernet.model.stem.weight.dtype == torch.float32


def test_batches_of_a_step_count_as_one_batch(tmp_path: Path) -> None:
    def train(size: int, **optimization: Any) -> list[torch.Tensor]:
        run = Run(tmp_path / str(size), (StageConfig(epochs=2, init_lr=0.05),), strategy="fair")
        run.optimization = OptimizationConfig(**optimization)
        run.loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=size)
        model = run.supernet.model.eval()
        model.train = lambda mode=True: model  # type: ignore[method-assign]  # statistics depend on the size of a batch
        run()
        return list(run.supernet.parameters())

    for one, other in zip(train(16, gradient_accumulation=3), train(48), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_last_step_of_an_epoch_may_have_fewer_batches(tmp_path: Path) -> None:
    steps: list[int] = []
    run = Run(tmp_path, (StageConfig(init_lr=0.05),), optimization=OptimizationConfig(gradient_accumulation=4))
    run.optimizer = lambda parameters: count_steps_of(SGD(parameters), steps)
    run()
    assert len(steps) == 2, "6 batches are 4 and 2"


def count_steps_of(optimizer: torch.optim.Optimizer, steps: list[int]) -> torch.optim.Optimizer:
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    return optimizer


@pytest.mark.parametrize("limit", [0.01, 1000.0])
def test_gradients_are_clipped_together(tmp_path: Path, limit: float) -> None:
    run = Run(tmp_path, (StageConfig(init_lr=1e-9),), optimization=OptimizationConfig(gradient_clipping=limit))
    norms: list[float] = []

    def note(*_: Any) -> None:
        gradients = [p.grad.flatten() for p in run.supernet.parameters() if p.grad is not None]
        norms.append(torch.cat(gradients).norm().item())

    def make(parameters: Any) -> torch.optim.Optimizer:
        optimizer = SGD(parameters)
        optimizer.register_step_pre_hook(note)
        return optimizer

    run.optimizer = make
    run()
    assert (max(norms) == pytest.approx(limit, rel=1e-3)) if limit < 1 else (0.1 < max(norms) < 100)


def test_channels_last_gives_the_same_weights(tmp_path: Path) -> None:
    layouts = set()

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        layouts.add(last.supernet.model.stem.weight.is_contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(outputs, targets)

    plain, last = Run(tmp_path / "plain"), Run(tmp_path / "last", criterion=criterion)
    last.optimization = OptimizationConfig(channels_last=True)
    seen: list[bool] = []

    def note(model: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            seen.append(args[0].is_contiguous(memory_format=torch.channels_last))

    last.supernet.model.register_forward_pre_hook(note)
    plain()
    last()
    assert layouts == {True}
    assert set(seen) == {True}
    for mine, other in zip(plain.supernet.parameters(), last.supernet.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_average_of_the_weights_is_measured_and_kept_as_the_best(tmp_path: Path) -> None:
    decay, measured, after_steps = 0.8, [], []
    run = Run(tmp_path, (StageConfig(epochs=2, init_lr=0.1),), optimization=OptimizationConfig(ema_decay=decay))

    def evaluate(subnet: Subnet) -> float:
        measured.append(run.supernet.model.head.bias.detach().clone())
        return float(len(measured))

    def make(parameters: Any) -> torch.optim.Optimizer:
        optimizer = SGD(parameters)
        optimizer.register_step_post_hook(lambda *_: after_steps.append(run.supernet.model.head.bias.detach().clone()))
        return optimizer

    run.evaluate, run.optimizer = evaluate, make
    average = run.supernet.model.head.bias.detach().clone()
    run()
    for value in after_steps:
        average = decay * average + (1 - decay) * value
    torch.testing.assert_close(measured[-1], average)
    torch.testing.assert_close(load_checkpoint(tmp_path / "best.pt")["supernet"]["weights"]["head.bias"], average)
    last = load_checkpoint(tmp_path / "last.pt")["supernet"]["weights"]["head.bias"]
    assert torch.equal(last, after_steps[-1])
    assert torch.equal(run.supernet.model.head.bias, last), "training would go on with the weights themselves"


def test_average_begins_anew_where_channels_move(tmp_path: Path) -> None:
    run = Run(tmp_path, optimization=OptimizationConfig(ema_decay=0.999999))
    seen: list[torch.Tensor] = []
    run.evaluate = lambda subnet: float(seen.append(run.supernet.model.stem.weight.detach().clone()) or 0)
    run.settings = {"num_validation_subnets": 0}
    own = run.supernet.reorganize
    run.supernet.reorganize = lambda: (own(), moved.append(run.supernet.model.stem.weight.detach().clone()))  # type: ignore[method-assign]
    moved: list[torch.Tensor] = []
    run()
    assert not torch.allclose(seen[2], moved[0])
    torch.testing.assert_close(seen[4], moved[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen[-1], moved[0], rtol=1e-3, atol=1e-3)


def test_average_of_another_model_is_refused(tmp_path: Path) -> None:
    optimization = OptimizationConfig(ema_decay=0.9)
    Run(tmp_path, STAGES[:1], optimization=optimization)()
    contents = load_checkpoint(tmp_path / "last.pt")
    save_checkpoint(tmp_path / "last.pt", {**contents, "average": contents["average"][1:]})
    with pytest.raises(CheckpointError, match=r"average must be of \d+ parameters of the same shapes"):
        Run(tmp_path, STAGES[:1], optimization=optimization)(resume=tmp_path / "last.pt")


def test_without_a_terminal_there_is_a_line_an_epoch(tmp_path: Path) -> None:
    run = Run(tmp_path, evaluate=lambda subnet: 75.0)
    run()
    lines = run.output.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("epoch 3/5  stage 2/2 (kernel, depth, width)  lr 0.0")
    assert lines[2].endswith("top-1 of maximum 75.00 %, of minimum 75.00 %, of random ones 75.00, 75.00 %")


def test_scalars_are_written_once_also_after_a_resume(tmp_path: Path) -> None:
    run = Run(tmp_path, criterion=break_at(20))
    with pytest.raises(KilledError, match="killed"):
        run()
    result = Run(tmp_path)(resume=tmp_path / "last.pt")
    events = EventAccumulator(str(tmp_path / "log"), size_guidance={"scalars": 0}).Reload()
    of_epochs = {
        "train/loss_of_epoch": [record.loss for record in result.history],
        "train/epoch": [record.epoch + 1 for record in result.history],
        "train/stage": [record.stage + 1 for record in result.history],
        "validation/top1_maximum": [record.top1_maximum for record in result.history],
        "validation/top1_minimum": [record.top1_minimum for record in result.history],
        "validation/top1_random_1": [record.top1_random[0] for record in result.history],
        "validation/top1_random_2": [record.top1_random[1] for record in result.history],
    }
    of_steps = {"train/loss", "train/gradient_norm", "train/learning_rate"}
    assert set(events.Tags()["scalars"]) == of_steps | set(of_epochs)
    for tag, values in of_epochs.items():
        assert [scalar.step for scalar in events.Scalars(tag)] == [6, 12, 18, 24, 30]
        assert [scalar.value for scalar in events.Scalars(tag)] == pytest.approx(values)
    for tag in of_steps:
        assert [scalar.step for scalar in events.Scalars(tag)] == list(range(1, 31))
    losses = [scalar.value for scalar in events.Scalars("train/loss")]
    assert sum(losses[:6]) / 6 == pytest.approx(result.history[0].loss)
    assert b"the config" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_names_step_and_subnet(tmp_path: Path, value: float) -> None:
    calls = 0

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(outputs, targets) * (value if calls == 15 else 1.0)

    run = Run(tmp_path, criterion=criterion)
    match = (
        rf"Step 15 \(epoch 3 of 5, stage 2 of 2, learning rate 0\.\d+\) must have a finite loss, but got {value} with "
        r"the subnet .*'width:stem'.* Check the data.* The last good checkpoint is .*last\.pt"
    )
    with pytest.raises(DivergenceError, match=match):
        run()
    assert len(load_checkpoint(tmp_path / "last.pt")["position"]["history"]) == 2
    for parameter in run.supernet.parameters():
        assert bool(parameter.isfinite().all())


def test_a_gradient_that_is_not_finite_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    calls = 0

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = F.cross_entropy(outputs, targets)
        return loss + (outputs * 0).sum().sqrt() if calls == 4 else loss  # the slope of a root at 0

    run = Run(tmp_path, criterion=criterion)
    with pytest.raises(DivergenceError, match=r"Step 4 .* finite gradient norm, but got nan .* There is no checkpoint"):
        run()
    for parameter in run.supernet.parameters():
        assert bool(parameter.isfinite().all())


@pytest.mark.parametrize(("minutes", "back_to"), [(1e-9, 14), (10.0, 12)])
def test_after_a_divergence_training_goes_on_from_the_last_checkpoint_at_half_the_rate(
    tmp_path: Path, minutes: float, back_to: int
) -> None:
    rates: list[float] = []
    run = Run(tmp_path, settings={"on_divergence": "restore", "checkpoint_minutes": minutes})

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rates.append(optimizers[0].param_groups[0]["lr"])
        return F.cross_entropy(outputs, targets) * (float("nan") if len(rates) == 15 else 1.0)

    optimizers: list[torch.optim.Optimizer] = []
    run.optimizer = lambda parameters: optimizers.append(SGD(parameters)) or optimizers[0]
    run.criterion = criterion
    result = run()
    assert len(rates) == 31 + (14 - back_to)
    assert rates[15] == pytest.approx(rates[back_to] / 2)
    assert result.history[-1].steps == 30
    assert f"Going back to step {back_to}, the last checkpoint, and on at 0.5 of" in run.output.getvalue()
    assert load_checkpoint(tmp_path / "last.pt")["scheduler"]["rate_factor"] == 0.5
    steps = [scalar.step for scalar in EventAccumulator(str(tmp_path / "log")).Reload().Scalars("train/loss")]
    assert steps == list(range(1, 31))


def test_a_divergence_before_the_first_checkpoint_goes_back_to_the_start(tmp_path: Path) -> None:
    calls = 0

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(outputs, targets) * (float("inf") if calls == 3 else 1.0)

    run = Run(tmp_path, STAGES[:1], criterion=criterion, settings={"on_divergence": "restore"})
    assert run().history[-1].steps == 12
    assert calls == 3 + 12


def test_a_training_that_always_diverges_gives_up(tmp_path: Path) -> None:
    run = Run(tmp_path, settings={"on_divergence": "restore"})
    run.criterion = lambda outputs, targets: F.cross_entropy(outputs, targets) * float("nan")
    with pytest.raises(DivergenceError, match=r"Step 1 .* went back 10 times already, to 0\.00098 .* checkpoint is"):
        run()
    assert run.output.getvalue().count("Going back to the start") == 10


def test_a_subnet_that_breaks_in_the_loss_names_itself(tmp_path: Path) -> None:
    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if run.supernet.active["width:stem"] == 4:
            msg = "four is too few"
            raise ValueError(msg)
        return F.cross_entropy(outputs, targets)

    run = Run(tmp_path, criterion=criterion)
    with pytest.raises(TrainingError, match=r"it fails with ValueError: four is too few.*'width:stem': 4}") as info:
        run()
    assert isinstance(info.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("criterion", "found"),
    [
        (lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"), r"a tensor of shape \(\d+,\);"),
        (lambda outputs, targets: F.cross_entropy(outputs.detach(), targets), "does not come from the model's outputs"),
        (lambda outputs, targets: 0.5, "float;"),
        (lambda outputs, targets: None, "NoneType;"),
    ],
)
def test_what_is_no_loss_is_the_fault_of_the_criterion(tmp_path: Path, criterion: Any, found: str) -> None:
    with pytest.raises(TrainingError, match=rf"The criterion must return a loss, .* but it returned .*{found}"):
        Run(tmp_path, criterion=criterion)()


def test_going_back_in_a_folder_that_was_resumed_from_another(tmp_path: Path) -> None:
    Run(tmp_path / "one", STAGES[:1])()
    calls = 0

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(outputs, targets) * (float("nan") if calls == 2 else 1.0)

    killed = Run(tmp_path / "one", criterion=break_at(15), settings={"checkpoint_minutes": 1e-9})
    (tmp_path / "one" / "last.pt").unlink()
    with pytest.raises(KilledError, match="killed"):
        killed()
    run = Run(tmp_path / "two", criterion=criterion, settings={"on_divergence": "restore"})
    assert run(resume=tmp_path / "one" / "last.pt").history[-1].steps == 30
    assert calls == 2 + 16
    assert "Going back to step 14" in run.output.getvalue()


class Shuffled(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Gives images from a buffer that is drawn from at random."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        buffer: list[int] = []
        for index in [*range(len(IMAGES)), *[-1] * 20]:
            buffer += [index] if index >= 0 else []
            if len(buffer) == 20 or index < 0:
                chosen = buffer.pop(int(torch.randint(len(buffer), ())))
                yield IMAGES[chosen], LABELS[chosen]
                if not buffer:
                    return


def with_batch_sampler() -> DataLoader[Any]:
    sampler = RandomSampler(range(96), generator=torch.Generator())
    return DataLoader(TensorDataset(IMAGES, LABELS), batch_sampler=BatchSampler(sampler, 16, drop_last=False))


@pytest.mark.parametrize(
    "make_loader",
    [
        lambda: DataLoader(TensorDataset(IMAGES, LABELS), 16, shuffle=True, generator=torch.Generator()),
        lambda: DataLoader(Shuffled(), 16),
        with_batch_sampler,
    ],
)
@pytest.mark.parametrize("call", [9, 13, 16])
def test_resume_is_exact_with_any_loader(tmp_path: Path, make_loader: Callable[[], Any], call: int) -> None:
    def make(name: str, seed: int = 0) -> Run:
        run = Run(tmp_path / name, settings={"checkpoint_minutes": 1e-9}, supernet=FakeSupernet(seed))
        run.loader = make_loader()
        run.supernet.model.register_forward_pre_hook(lambda model, args: (F.dropout(args[0], 0.2, model.training),))
        run.adapt = partial(adapt_from, run.loader)
        return run

    whole = make("whole")
    expected = whole()
    killed = make("killed")
    killed.criterion = break_at(call)
    with pytest.raises(KilledError, match="killed"):
        killed()
    resumed = make("killed", seed=7)
    assert resumed(resume=killed.folder / "last.pt") == expected
    assert_same_weights(weights(resumed.supernet), weights(whole.supernet))


def adapt_from(loader: Any, module: torch.nn.Module) -> None:
    """Recalibrates with a batch of the training loader itself, as a calibration does."""
    with seeded_epoch(loader, 0, 0, torch.device("cpu")):
        images, _ = next(iter(loader))
    recalibrate(images, module)


def test_a_loader_that_can_be_gone_through_only_once_is_refused(tmp_path: Path) -> None:
    class Once:
        def __init__(self) -> None:
            self._batches = iter([(IMAGES[:16], LABELS[:16])] * 3)

        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[Any]:
            return self._batches

    with pytest.raises(DataError, match="gave no batch in an epoch"):
        Run(tmp_path, loader=Once())()


def test_a_signal_in_the_validation_ends_the_training_and_validation_is_done_again(tmp_path: Path) -> None:
    expected = Run(tmp_path / "whole", STAGES[:1], optimization=OptimizationConfig(ema_decay=0.9))()
    run = Run(tmp_path / "stopped", STAGES[:1], optimization=OptimizationConfig(ema_decay=0.9))
    own = ExtractedAccuracy(partial(extract, run.supernet), partial(recalibrate, IMAGES), top1)

    def evaluate(subnet: Subnet) -> float:
        if subnet == SPACE.maximum:
            signal.raise_signal(signal.SIGINT)
            msg = "a worker of the loader has ended"
            raise RuntimeError(msg)
        return own(subnet)

    run.evaluate = evaluate
    with pytest.raises(KeyboardInterrupt):
        run()
    contents = load_checkpoint(run.folder / "last.pt")
    assert (contents["position"]["steps"], contents["position"]["history"]) == (6, [])
    resumed = Run(run.folder, STAGES[:1], optimization=OptimizationConfig(ema_decay=0.9), supernet=FakeSupernet(seed=7))
    assert resumed(resume=run.folder / "last.pt") == expected


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(outputs, targets)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert Run(tmp_path, STAGES[:1], criterion=criterion)().history[-1].steps == 12
    finally:
        signal.signal(signal.SIGINT, before)


def refused(run: Run, error: type[Exception], match: str) -> None:
    """Checks that the run fails before the first step and leaves no file."""
    before = weights(run.supernet)
    with pytest.raises(error, match=match):
        run()
    assert_same_weights(weights(run.supernet), before)
    assert not run.folder.exists()


def test_empty_loader_is_refused(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(IMAGES[:3], LABELS[:3]), batch_size=16, drop_last=True)
    refused(Run(tmp_path / "run", loader=loader), DataError, "has no batch: the dataset has 3 samples")


def test_labels_out_of_range_are_refused_wherever_they_are(tmp_path: Path) -> None:
    labels = torch.cat([LABELS[:-1], torch.tensor([CLASSES])])
    loader = DataLoader(TensorDataset(IMAGES, labels), batch_size=16)
    refused(Run(tmp_path / "run", loader=loader), DataError, "has label=3")


def test_labels_that_only_batches_tell_are_checked_as_they_come(tmp_path: Path) -> None:
    loader = [(IMAGES[:8], LABELS[:8]), (IMAGES[:8], torch.full((8,), CLASSES))]
    with pytest.raises(DataError, match="has label=3"):
        Run(tmp_path, loader=loader)()


def test_labels_that_cross_entropy_leaves_out_are_none(tmp_path: Path) -> None:
    labels = LABELS.clone()
    labels[0] = -100
    loader = DataLoader(TensorDataset(IMAGES, labels), batch_size=16)
    assert len(Run(tmp_path, STAGES[:1], loader=loader)().history) == 2


def test_what_labels_mean_to_a_criterion_of_ones_own_is_not_guessed(tmp_path: Path) -> None:
    class FromOne(torch.nn.CrossEntropyLoss):
        """Counts classes from 1."""

        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return super().forward(outputs, targets - 1)

    loader = DataLoader(TensorDataset(IMAGES, LABELS + 1), batch_size=16)
    assert len(Run(tmp_path, STAGES[:1], loader=loader, criterion=FromOne())().history) == 2


def test_a_model_that_returns_more_in_training_is_told_what_to_do(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.supernet.model.register_forward_hook(lambda model, _, output: (output, output) if model.training else output)
    with pytest.raises(ModelError, match="it returns tuple; wrap the model so that it returns its logits"):
        run()


def test_stage_of_a_missing_dimension_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", stages=(StageConfig(train_dims=("heads",)),))
    refused(run, ConfigError, "but got 'heads'")


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = Run(tmp_path / "file" / "run")
    refused(run, CheckpointError, "cannot be made .*choose another one")


def test_folder_that_is_not_writable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever runs the tests may write everywhere
    with pytest.raises(CheckpointError, match="is not writable; change its permissions"):
        Run(tmp_path)()
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    Run(tmp_path)()
    other = Run(tmp_path)
    other.optimizer = lambda parameters: torch.optim.SGD([{"params": [p]} for p in parameters], lr=0.1)
    with pytest.raises(CheckpointError, match="The optimizer does not fit"):
        other(resume=tmp_path / "last.pt")


def test_checkpoint_of_another_seed_is_refused(tmp_path: Path) -> None:
    Run(tmp_path)()
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(CheckpointError, match="the same seed, but it has 0 and this training 4"):
        Run(tmp_path, seed=4)(resume=tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_bytes() == before


def test_on_a_terminal_there_is_a_bar_with_the_loss(tmp_path: Path) -> None:
    run = Run(tmp_path, terminal=True, evaluate=lambda subnet: 75.0)
    run()
    output = run.output.getvalue()
    assert "30/30" in output, "a step is one of 5 epochs of 6"
    assert "epoch 1/5  stage 1/2" in output
    assert "epoch 5/5  stage 2/2  loss" in output
    assert "epoch 5/5  stage 2/2 (kernel, depth, width)  lr" in output
    assert "top-1 of maximum 75.00 %, of minimum 75.00 %" in output


def test_finished_training_is_not_overwritten(tmp_path: Path) -> None:
    Run(tmp_path, stages=STAGES[:1])()
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(
        CheckpointError, match=r"last\.pt holds a training already; resume it .*or choose another folder"
    ):
        Run(tmp_path, stages=STAGES[:1])()
    assert (tmp_path / "last.pt").read_bytes() == before


@pytest.mark.parametrize(
    "key", ["scheduler", "supernet", "optimizer", "average", "position", "random", "steps_per_epoch"]
)
def test_checkpoint_without_a_part_is_refused(tmp_path: Path, key: str) -> None:
    Run(tmp_path, stages=STAGES[:1])()
    contents = load_checkpoint(tmp_path / "last.pt")
    del contents[key]
    save_checkpoint(tmp_path / "last.pt", contents)
    with pytest.raises(CheckpointError, match=rf"last\.pt is damaged: it has no '{key}'"):
        Run(tmp_path, stages=STAGES[:1])(resume=tmp_path / "last.pt")


def test_checkpoint_with_another_history_is_refused(tmp_path: Path) -> None:
    Run(tmp_path, stages=STAGES[:1])()
    position = {"history": [{"epoch": 0}], "steps": 0, "loss": 0.0}
    save_checkpoint(tmp_path / "last.pt", {**load_checkpoint(tmp_path / "last.pt"), "position": position})
    with pytest.raises(CheckpointError, match=r"The history of .*last\.pt is damaged"):
        Run(tmp_path, stages=STAGES[:1])(resume=tmp_path / "last.pt")
