"""Training and search from a config, end to end on a small net."""

from __future__ import annotations

import io
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bootstrapnas_ext import (
    BootstrapNASController,
    EpochBasedTrainingAlgorithm,
    NNCFConfig,
    SearchAlgorithm,
    create_compressed_model,
    register_default_init_args,
)
from bootstrapnas_ext.algorithms import PLOT, TRIALS
from bootstrapnas_ext.errors import BootstrapNASError, CheckpointError, ConfigError, DataError, ModelError
from tests.run_training import data

QUIET = Console(file=io.StringIO())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).amax((2, 3)))


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    images, labels = data(160)
    train = DataLoader(TensorDataset(images[:96], labels[:96]), batch_size=32, shuffle=True)
    return train, DataLoader(TensorDataset(images[96:], labels[96:]), batch_size=64)


def make(
    eval_fn: Any = None, training: dict[str, Any] | None = None, model: nn.Module | None = None, **search: Any
) -> tuple[BootstrapNASController, NNCFConfig]:
    torch.manual_seed(0)
    config = NNCFConfig.from_dict(
        {
            "input_info": {"sample_size": [1, 1, 8, 8]},
            "bootstrapNAS": {
                "training": {
                    "schedule": {"list_stage_descriptions": [{"epochs": 2, "init_lr": 0.05, "reorg_weights": True}]},
                    "elasticity": {"available_elasticity_dims": ["width"]},
                    **(training or {}),
                },
                "search": {"num_evals": 6, "population": 2, "objectives": ["accuracy", "macs"], **search},
            },
        }
    )
    register_default_init_args(config, loaders()[0], model_eval_fn=eval_fn)
    controller, _ = create_compressed_model(model or Net(), config)
    return controller, config


def train(controller: BootstrapNASController, config: NNCFConfig, folder: Path, **options: Any) -> Any:
    optimizer = torch.optim.SGD(controller.supernet.parameters(), 0.05, momentum=0.9)
    algorithm = EpochBasedTrainingAlgorithm.from_config(controller, config)
    return algorithm.run(*loaders(), optimizer, folder, console=QUIET, **options)


def search(controller: BootstrapNASController, config: NNCFConfig, folder: Path, **options: Any) -> Any:
    return SearchAlgorithm.from_config(controller, config).run(loaders()[1], folder, console=QUIET, **options)


OPTIMIZATION = {
    "label_smoothing": 0.1,
    "gradient_clipping": 5,
    "gradient_accumulation": 2,
    "bf16": True,
    "channels_last": True,
    "ema_decay": 0.5,
}


@pytest.mark.parametrize("strategy", ["random", "fair", "sandwich", "attentive"])
def test_training_by_each_strategy_with_everything_on(tmp_path: Path, strategy: str) -> None:
    distillation = {"source": "maximum", "loss": "alpha_divergence", "features": ["second"], "feature_weight": 0.1}
    controller, config = make(
        training={"strategy": strategy, "optimization": OPTIMIZATION, "distillation": distillation}
    )
    before = [parameter.clone() for parameter in controller.supernet.parameters()]
    result = train(controller, config, tmp_path)
    assert [math.isfinite(record.loss) for record in result.history] == [True, True]
    changed = [not torch.equal(*pair) for pair in zip(controller.supernet.parameters(), before, strict=True)]
    assert all(changed)


def test_attentive_training_takes_an_estimate_of_ones_own(tmp_path: Path) -> None:
    controller, config = make(training={"strategy": "attentive"})
    asked = []
    train(controller, config, tmp_path, estimate=lambda subnet: float(asked.append(subnet) or 0))
    assert len(asked) == 2 * 3 * 6, "epochs, batches, and candidates of a step"
    assert set(asked[0]) == {choice.name for choice in controller.supernet.space.choices}


@pytest.mark.parametrize(
    ("training", "match"),
    [
        (
            {"schedule": {"list_stage_descriptions": [{"train_dims": ["depth"]}]}},
            r"descriptions\[0\]\.train_dims: must be among the available elastic dimensions",
        ),
        (
            {
                "elasticity": {"available_elasticity_dims": ["width", "depth"]},
                "schedule": {"list_stage_descriptions": [{"train_dims": ["depth"]}]},
            },
            r"descriptions\[0\]\.train_dims must name elastic dimensions of the super-network, which has \['width'\]",
        ),
        (
            {"schedule": {"list_stage_descriptions": [{"width_indicator": 1}]}},
            r"descriptions\[0\] must open more than the maximum subnet, else there is nothing to sample",
        ),
        (
            {"schedule": {"list_stage_descriptions": [{"init_lr": 0.1}]}, "lr_schedule": {"params": {}}},
            r"descriptions\[0\]\.init_lr: must not be given together with `lr_schedule`",
        ),
        (
            {"distillation": {"source": "maximum", "features": ["third"]}},
            r"distillation\.features\[0\] must be the path of a module of the model, but got 'third'",
        ),
    ],
)
def test_bad_config_is_one_error_before_there_is_a_controller(training: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        make(training=training)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "batch_size", "match"),
    [
        ([0, 1, 2, 3], 8, "The training loader has no batch: the dataset has 4 samples"),
        ([0, 1, 2, 4], 2, "`0 <= label < 4` must hold, because the model has 4 outputs, but .* has label=4"),
        ([0, 1, 2, -1], 2, "`0 <= label < 4` must hold, because the model has 4 outputs, but .* has label=-1"),
    ],
)
def test_bad_data_is_one_error_before_the_first_step(
    tmp_path: Path, labels: list[int], batch_size: int, match: str
) -> None:
    controller, config = make()
    data = TensorDataset(torch.rand(len(labels), 1, 8, 8), torch.tensor(labels))
    loader = DataLoader(data, batch_size=batch_size, drop_last=True)
    optimizer = torch.optim.SGD(controller.supernet.parameters(), 0.05)
    algorithm = EpochBasedTrainingAlgorithm.from_config(controller, config)
    before = {name: value.clone() for name, value in controller.model.state_dict().items()}
    with pytest.raises(DataError, match=match):
        algorithm.run(loader, loaders()[1], optimizer, tmp_path, console=QUIET)
    assert all(torch.equal(value, before[name]) for name, value in controller.model.state_dict().items())
    assert not list(tmp_path.iterdir())


def test_label_smoothing_of_a_criterion_of_ones_own_is_refused(tmp_path: Path) -> None:
    controller, config = make(training={"optimization": {"label_smoothing": 0.1}})
    with pytest.raises(ConfigError, match=r"optimization\.label_smoothing is for training without a `criterion`"):
        train(controller, config, tmp_path, criterion=nn.CrossEntropyLoss())
    assert not list(tmp_path.iterdir())


def test_training_leaves_the_best_super_network_and_logs(tmp_path: Path) -> None:
    controller, config = make()
    before = controller.input_model.state_dict()["head.weight"].clone()
    result = train(controller, config, tmp_path)
    assert len(result.history) == 2
    assert controller.supernet.active == controller.supernet.space.maximum
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.pt", "last.pt"]
    assert list((tmp_path / "tensorboard").iterdir())
    best = torch.load(tmp_path / "checkpoints" / "best.pt", weights_only=True)["supernet"]["model"]
    assert torch.equal(best["head.weight"], controller.model.state_dict()["head.weight"])
    assert torch.equal(controller.input_model.state_dict()["head.weight"], before)
    assert not torch.equal(best["head.weight"], before)


def test_the_same_seed_gives_the_same_weights_and_trials(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        controller, config = make()
        train(controller, config, tmp_path / name)
        found.append((controller.model.state_dict(), search(controller, config, tmp_path / name).record.trials))
    (weights, trials), (other_weights, other_trials) = found
    assert all(torch.equal(value, other_weights[key]) for key, value in weights.items())
    assert trials == other_trials


def test_statistics_per_width_are_those_of_a_training_that_was_not_interrupted(tmp_path: Path) -> None:
    training = {
        "elasticity": {"available_elasticity_dims": ["width"], "norm_statistics": "per_width"},
        "batchnorm_adaptation": {"num_bn_adaptation_samples": 0},
        "strategy": "random",
    }
    controller, config = make(training=training)
    before = controller.supernet.state_dict()["model"]
    train(controller, config, tmp_path / "whole")
    steps = 0

    def interrupted(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(outputs, targets)

    other, config = make(training=training)
    with pytest.raises(KeyboardInterrupt):
        train(other, config, tmp_path / "parts", criterion=interrupted)
    other, config = make(training=training)
    train(other, config, tmp_path / "parts", resume=True)
    state, resumed = (one.supernet.state_dict()["model"] for one in (controller, other))
    sets = [name for name in state if "norm_statistics" in name]
    assert not all(torch.equal(state[name], before[name]) for name in sets)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in state.items())


def test_a_search_measures_what_its_config_asks_for(tmp_path: Path) -> None:
    controller, config = make(constraints={"parameters": {"max_ratio": 0.9}})
    statistics = controller.model.state_dict()["first.1.running_mean"].clone()
    result = search(controller, config, tmp_path)
    trials = result.record.trials
    assert len(trials) == 6
    assert trials[0].subnet == controller.supernet.space.maximum
    assert trials[1].subnet == controller.supernet.space.minimum
    for trial in trials:
        cost = controller.supernet.cost(trial.subnet)
        assert (trial.values["macs"], trial.values["parameters"]) == (cost.macs, cost.parameters)
    assert set(trials[0].values) == {"accuracy", "macs", "parameters"}
    assert all(trial in trials for trial in result.front)
    assert (tmp_path / PLOT).stat().st_size > 10_000
    assert torch.equal(controller.model.state_dict()["first.1.running_mean"], statistics)
    reference = result.record.plan.reference
    assert reference.values["macs"] == trials[0].values["macs"]


def test_a_search_goes_on_with_its_trials(tmp_path: Path) -> None:
    controller, config = make()
    whole = search(controller, config, tmp_path / "whole").record.trials
    controller, part = make(num_evals=3)
    assert search(controller, part, tmp_path / "part").record.trials == whole[:3]
    with pytest.raises(CheckpointError, match=r"resume it \(`resume=True`, --resume\)"):
        search(controller, part, tmp_path / "part")
    controller, config = make()
    assert search(controller, config, tmp_path / "part", resume=True).record.trials == whole


def test_latency_is_measured_only_if_asked_for(tmp_path: Path) -> None:
    controller, config = make(
        objectives=["accuracy", "latency_ms"], num_evals=2, latency={"num_threads": 1, "iterations": 3}
    )
    trial = search(controller, config, tmp_path).record.trials[0]
    assert trial.values["latency_ms"] > 0
    assert trial.attributes["latency_ms"]["iterations"] == 3
    assert (tmp_path / TRIALS).exists()


def test_a_trial_that_fails_names_itself(tmp_path: Path) -> None:
    controller, config = make()
    empty: list[Any] = []
    with pytest.raises(BootstrapNASError, match="is empty"):
        SearchAlgorithm.from_config(controller, config).run(empty, tmp_path, console=QUIET)


@pytest.mark.parametrize("algorithm", [EpochBasedTrainingAlgorithm, SearchAlgorithm])
def test_another_config_than_the_controllers_is_an_error(algorithm: Any) -> None:
    controller, _ = make()
    _, other = make(num_evals=99)
    with pytest.raises(ConfigError, match="made from another config"):
        algorithm.from_config(controller, other)


def test_a_second_training_learns_as_the_first(tmp_path: Path) -> None:
    controller, config = make()
    first = train(controller, config, tmp_path / "first")
    with pytest.raises(CheckpointError, match=r"last\.pt holds a training already"):
        train(controller, config, tmp_path / "first")
    second = train(controller, config, tmp_path / "second")
    assert [record.learning_rate for record in second.history] == [record.learning_rate for record in first.history]
    assert [record.epoch for record in second.history] == [0, 1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batchnorm_adaptation": {"num_bn_adaptation_samples": 7}}, "num_bn_adaptation_samples is 2000 there, but 7"),
        ({"constraints": {"latency_ms": {"max": 5}}}, "measured is .* there, but .*'latency_ms'"),
        ({}, "super-network is '[0-9a-f]{16}' there, but"),
    ],
)
def test_trials_of_something_else_are_not_gone_on_with(tmp_path: Path, change: Any, match: str) -> None:
    controller, config = make(num_evals=2)
    search(controller, config, tmp_path)
    controller, config = make(num_evals=3, **change)
    if not change:
        with torch.no_grad():
            controller.model.head.bias.add_(1e-3)
    before = (tmp_path / TRIALS).read_bytes()
    with pytest.raises(CheckpointError, match=match):
        search(controller, config, tmp_path, resume=True)
    assert (tmp_path / TRIALS).read_bytes() == before


def test_limits_may_change_and_the_input_model_is_measured_once(tmp_path: Path) -> None:
    seen: list[nn.Module] = []

    def eval_fn(module: nn.Module) -> float:
        seen.append(module)
        return 50.0 + len(seen)

    def run(folder: Path, resume: bool, **options: Any) -> Any:
        controller, config = make(eval_fn, **options)
        return SearchAlgorithm.from_config(controller, config).run(None, folder, resume=resume, console=QUIET)

    first = run(tmp_path, False, num_evals=2)
    assert len(seen) == 3, "the input model and two subnets"
    assert [trial.values["accuracy"] for trial in first.record.trials] == [52.0, 53.0]
    with pytest.raises(CheckpointError, match="holds a search already"):
        run(tmp_path, False, num_evals=2)
    assert len(seen) == 3, "it is refused before anything is measured"
    second = run(tmp_path, True, num_evals=3, ref_acc=10, acc_delta=5, constraints={"macs": {"max_ratio": 0.9}})
    assert len(seen) == 4
    assert second.record.plan == first.record.plan


def test_training_may_measure_with_a_function(tmp_path: Path) -> None:
    controller, config = make(lambda module: 12.5)
    optimizer = torch.optim.SGD(controller.supernet.parameters(), 0.05)
    algorithm = EpochBasedTrainingAlgorithm.from_config(controller, config)
    result = algorithm.run(loaders()[0], None, optimizer, tmp_path, console=QUIET)
    assert {record.top1_maximum for record in result.history} == {12.5}


class Answers(Net):
    """Returns an object, as the models of Hugging Face do."""

    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


def test_a_model_that_returns_an_object_is_told_what_to_do_before_the_first_step(tmp_path: Path) -> None:
    controller, config = make(lambda module: 12.5, model=Answers())
    algorithm = EpochBasedTrainingAlgorithm.from_config(controller, config)
    optimizer = torch.optim.SGD(controller.supernet.parameters(), 0.05)
    run = partial(algorithm.run, optimizer=optimizer, output_dir=tmp_path, console=QUIET)
    before = [parameter.clone() for parameter in controller.supernet.parameters()]

    def criterion(outputs: Any, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs["logits"], targets)

    with pytest.raises(ModelError, match=r"Top-1 accuracy needs .* got dict .* `model_eval_fn` .* `val_loader=None`"):
        run(*loaders(), criterion=criterion)
    with pytest.raises(ModelError, match=r"returns dict; wrap the model .* or pass a `criterion`"):
        run(loaders()[0], None)
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(*pair) for pair in zip(controller.supernet.parameters(), before, strict=True))
    assert run(loaders()[0], None, criterion=criterion).best.top1_maximum == 12.5


def test_accuracy_needs_something_to_be_measured_with(tmp_path: Path) -> None:
    controller, config = make()
    with pytest.raises(ConfigError, match="no `val_loader` and no `model_eval_fn`; pass the one"):
        SearchAlgorithm.from_config(controller, config).run(None, tmp_path, console=QUIET)


def test_a_run_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    controller, config = make()
    with pytest.raises(CheckpointError, match=r"cannot be made .*; choose another one"):
        search(controller, config, tmp_path / "file")
