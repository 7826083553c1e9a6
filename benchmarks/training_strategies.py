"""Accuracy after training with each strategy, at the same number of forward and backward passes.

.. code-block:: console

    python benchmarks/training_strategies.py
    python benchmarks/training_strategies.py --config samples/classification/configs/cifar10_resnet20.json \\
        --weights resnet20.pt --data cifar10.zip --epochs 1 1 2

Each seed makes its own input model where the config has `pretrain`, its own order of the data and its own subnets; the
20 random subnets that are measured are the same in all runs. Every subnet is extracted, gets BatchNorm statistics of
its own, and is measured on the test part of the data. Settings are those of the config, the learning rates too, so none
of them is tuned for a strategy.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, whose samples this uses

import bootstrapnas_ext as bnas
from bootstrapnas_ext.evaluation import top1_accuracy
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.training import STRATEGIES, ExtractedAccuracy, seeded_epoch
from samples.classification.datasets import Loaders
from samples.classification.models import create_model
from samples.classification.pretraining import create_optimizer, pretrain
from samples.classification.settings import Settings, read_config, settings_of
from samples.classification.weights import load_weights

NO_TRAINING = "no training"
RANDOM_SUBNETS = 20
CPU = torch.device("cpu")


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Prints a line for each run and the table at the end, and returns the runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--config", type=Path, default=Path("samples/classification/configs/digits.json"), help="of the sample")
    add("--model", help="wins over that of the config")
    add("--weights", help="of the input model; win over those of the config")
    add("--data", type=Path, help="folder of the data, or a zip file of one; wins over that of the config")
    add("--strategies", nargs="+", default=[NO_TRAINING, *STRATEGIES], help="all by default")
    add("--source", choices=("none", "input_model", "maximum"), help="who teaches; as each strategy has it by default")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add(
        "--epochs",
        type=int,
        nargs="+",
        help="of each stage, for strategies with one pass a step; win over the config's",
    )
    add("--output", type=Path, help="file for the runs, one JSON object a line")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.data is not None and options.data.suffix == ".zip":
            zipfile.ZipFile(options.data).extractall(folder)
            options.data = Path(folder)
        rows = runs(options)
    if options.output is not None:
        options.output.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    Console(width=140).print(table(rows))
    return rows


def runs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for every strategy and seed."""
    rows = []
    for seed in options.seeds:
        config = _config(options, seed)
        settings = settings_of(config)
        torch.set_num_threads(settings.threads or torch.get_num_threads())
        loaders = Loaders(settings)
        model = _input_model(settings, loaders)
        for strategy in options.strategies:
            rows.append({"strategy": strategy, "seed": seed, **run(config, model, loaders, strategy)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def run(config: bnas.NNCFConfig, model: nn.Module, loaders: Loaders, strategy: str) -> dict[str, Any]:
    """Trains a copy of the input model and returns what its subnets are worth."""
    config = bnas.NNCFConfig.from_dict(config)
    if strategy != NO_TRAINING:
        config["bootstrapNAS"]["training"]["strategy"] = strategy
    bnas.register_default_init_args(config, loaders.calibration)
    controller: bnas.BootstrapNASController
    controller, _ = bnas.create_compressed_model(copy.deepcopy(model), config, dump_graphs=False)
    start = time.perf_counter()
    passes, steps = (0, 0) if strategy == NO_TRAINING else train(controller, settings_of(config), loaders)
    seconds = time.perf_counter() - start
    supernet = controller.supernet
    calibration = controller.calibration(controller.config.training.batchnorm_adaptation)
    assert calibration is not None  # the data is registered
    accuracy = ExtractedAccuracy(
        partial(extract, supernet), calibration, partial(top1_accuracy, loader=loaders.test, device=CPU)
    )
    rng = np.random.default_rng(0)
    return {
        "maximum": accuracy(supernet.space.maximum),
        "minimum": accuracy(supernet.space.minimum),
        "random": [accuracy(supernet.space.sample(rng)) for _ in range(RANDOM_SUBNETS)],
        "passes": passes,
        "steps": steps,
        "seconds": seconds,
    }


def train(controller: bnas.BootstrapNASController, settings: Settings, loaders: Loaders) -> tuple[int, int]:
    """Trains with as many passes an epoch as there are batches, and returns the numbers of passes and of steps."""
    scheduler, model = controller.scheduler, controller.model
    optimizer = create_optimizer(model.named_parameters(), settings.optimizer)
    criterion = nn.CrossEntropyLoss(label_smoothing=settings.optimizer.label_smoothing)
    batches = _endless(loaders, scheduler.seed)
    budget = len(loaders.train)
    reorganizing = [stage.first_epoch for stage in scheduler.stages if stage.config.reorg_weights]
    done = count = 0
    for epoch in range(scheduler.total_epochs):
        scheduler.epoch_step()
        if epoch in reorganizing:
            optimizer.state.clear()  # as the scheduler does for an optimizer that is attached
        model.train()
        rate = scheduler.stages[scheduler.current_stage].learning_rate
        while done + count <= budget * (epoch + 1):
            for group in optimizer.param_groups:
                group["lr"] = rate(max(done / budget, epoch), settings.optimizer.base_lr)
            images, labels = next(batches)
            passes = scheduler.step(estimate=partial(_loss, controller, criterion, images, labels))
            optimizer.zero_grad()
            for _ in passes:
                with torch.autocast("cpu", torch.bfloat16, enabled=settings.mixed_precision):
                    loss = controller.loss(criterion(model(images), labels))
                loss.backward()
            optimizer.step()
            count = len(passes)
            done += count
    return done, scheduler.current_step + 1


@torch.no_grad()
def _loss(
    controller: bnas.BootstrapNASController, criterion: nn.Module, images: Tensor, labels: Tensor, subnet: bnas.Subnet
) -> float:
    with controller.supernet.activate(subnet):
        return float(criterion(controller.model(images), labels))


def _endless(loaders: Loaders, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch, loader in enumerate(repeat(loaders.train)):
        with seeded_epoch(loader, seed, epoch, CPU):
            yield from loader


def _input_model(settings: Settings, loaders: Loaders) -> nn.Module:
    torch.manual_seed(settings.seed)
    model = create_model(settings.model, settings.num_classes)
    if settings.weights_file is not None:
        load_weights(model, settings.weights_file)
    if settings.weights_file is None and settings.pretrain is not None:
        pretrain(
            model,
            loaders.train,
            loaders.validation,
            settings.pretrain,
            settings.optimizer,
            seed=settings.seed,
            bf16=settings.mixed_precision,
            device=CPU,
            console=Console(file=io.StringIO()),
        )
    return model.eval()


def _config(options: argparse.Namespace, seed: int) -> bnas.NNCFConfig:
    config = read_config(options.config)
    given = {"model": options.model, "weights": options.weights, "dataset_dir": options.data}
    config.update({key: str(value) for key, value in given.items() if value is not None})
    training = config["bootstrapNAS"].setdefault("training", {})
    config["bootstrapNAS"].setdefault("search", {})["seed"] = seed
    training["distillation"] = (
        {} if options.source is None else {**training.get("distillation", {}), "source": options.source}
    )
    stages = training.get("schedule", {}).get("list_stage_descriptions", ())
    for stage, epochs in zip(stages, options.epochs or (), strict=options.epochs is not None):
        stage["epochs"] = epochs
    return config


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Returns the means and standard deviations over seeds; of the random subnets also the deviation among them."""
    titles = ("strategy", "maximum", "minimum", "20 random", "among the 20", "passes", "steps", "seconds")
    result = Table(*titles, title="Top-1 in %: mean ± deviation over seeds")
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        runs = [row for row in rows if row["strategy"] == strategy]
        columns = [[row["maximum"] for row in runs], [row["minimum"] for row in runs]]
        columns.append([float(np.mean(row["random"])) for row in runs])
        among = float(np.mean([np.std(row["random"]) for row in runs]))
        counts = (f"{np.mean([row[key] for row in runs]):.0f}" for key in ("passes", "steps", "seconds"))
        cells = (f"{np.mean(values):.2f} ± {np.std(values):.2f}" for values in columns)
        result.add_row(*chain((strategy,), cells, (f"{among:.2f}",), counts))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
