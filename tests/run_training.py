"""A training in a process of its own, for tests that kill it or run it twice: writes its result as JSON.

``python -m tests.run_training FOLDER [--kill-at CALL] [--kill-while-saving COUNT] [--end-group-at CALL]``
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import bootstrapnas_ext as bnas
from bootstrapnas_ext import processes
from bootstrapnas_ext.evaluation import recalibrate_batchnorm, top1_accuracy


def main() -> None:
    """Trains in the folder, or goes on with the training there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int, default=-1)
    parser.add_argument("--kill-while-saving", type=int, default=-1)
    parser.add_argument("--end-group-at", type=int, default=-1, help="SIGTERM to workers of the loader, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "LOCAL_RANK" in os.environ:
        dist.init_process_group("gloo")
    if options.kill_while_saving >= 0:
        kill_while_saving(options.kill_while_saving)
    result = train(options.folder, options.kill_at, options.end_group_at)
    # A file for each process: lines of several in one pipe may run into one another.
    (options.folder / f"result_{processes.rank()}.json").write_text(json.dumps(result), encoding="utf-8")
    if processes.count() > 1:
        dist.destroy_process_group()


def train(folder: Path, kill_at: int, end_group_at: int) -> dict[str, Any]:
    """Trains, and returns what came out."""
    images, labels = data()
    # Norms see the batches of one process only, so that only a net without them trains alike in one and in two.
    is_alone = "ALONE" not in os.environ
    batch = 16 // processes.count()
    dataset = TensorDataset(images, labels)
    sampler = DistributedSampler(dataset, shuffle=False) if processes.count() > 1 else None
    loader = DataLoader(dataset, batch, sampler=sampler, shuffle=is_alone, num_workers=int(end_group_at > 0))
    torch.manual_seed(processes.rank())  # the first process's weights count
    model = net(with_norms=is_alone)
    config = bnas.NNCFConfig.from_dict(
        {
            "input_info": {"sample_size": [1, 1, 8, 8]},
            "bootstrapNAS": {
                "training": {
                    "strategy": "sandwich",
                    "checkpoint_minutes": 1e-9,
                    "optimization": {"ema_decay": 0.8},
                    "batchnorm_adaptation": {"num_bn_adaptation_samples": 64},
                    "schedule": {"list_stage_descriptions": [{"epochs": 3, "init_lr": 0.05, "reorg_weights": True}]},
                    "elasticity": {"width": {"divisor": 4}},
                }
            },
        }
    )
    bnas.register_default_init_args(config, loader)
    controller: bnas.BootstrapNASController
    controller, _ = bnas.create_compressed_model(model, config)
    calls = 0

    def criterion(outputs: Any, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == end_group_at:
            os.killpg(0, signal.SIGTERM)
            time.sleep(0.5)  # until the workers have ended
        return F.cross_entropy(outputs, targets)

    optimizer = torch.optim.SGD(controller.supernet.parameters(), lr=0.05, momentum=0.9)
    result = bnas.EpochBasedTrainingAlgorithm.from_config(controller, config).run(
        loader, loader, optimizer, folder, criterion=criterion, resume=is_alone, console=Console(file=io.StringIO())
    )
    with_norms = net(with_norms=True)
    recalibrate_batchnorm(with_norms, [batch for batch, _ in loader], all_processes=True)
    return {
        "history": [vars(record) for record in result.history],
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
        "statistics": [value.tolist() for value in with_norms.buffers()],
        "top1": top1_accuracy(with_norms, loader, all_processes=True),
    }


def data(count: int = 96) -> tuple[Tensor, Tensor]:
    """Returns images with a bright square in one of four corners, which is the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 3, column : column + 3] += label + 1
    return images, labels


def net(*, with_norms: bool) -> nn.Module:
    """Returns a small net; with norms, it also has dropout."""
    generator = torch.get_rng_state()
    if with_norms:
        torch.manual_seed(5)
    extra: list[nn.Module] = [nn.BatchNorm2d(16), nn.Dropout(0.1)] if with_norms else []
    made = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        *extra,
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    torch.set_rng_state(generator)
    return made


def kill_while_saving(count: int) -> None:
    """Lets the process be killed when a checkpoint is written, but not yet in its place, for the so manieth time."""
    own, seen = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal seen
        seen += str(target).endswith(".pt")
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        own(source, target)

    os.replace = replace


if __name__ == "__main__":
    main()
