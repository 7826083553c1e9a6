"""What elasticity costs, as ratios of medians from one interleaved run on this machine.

.. code-block:: console

    python benchmarks/overhead.py
    python benchmarks/overhead.py --models resnet50 mobilenet_v2 --size 224 --batch 1 8
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torchvision.models import VisionTransformer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, whose samples this uses

from bootstrapnas_ext import ExampleInput, Supernet
from bootstrapnas_ext.extraction import extract
from samples.classification.models import create_model


@dataclass(frozen=True)
class Case:
    """
    What is measured.

    :param make: Returns the model.
    :param size: Height and width of its images.
    :param batches: Batch sizes.
    """

    make: Callable[[], nn.Module]
    size: int
    batches: tuple[int, ...]


CASES = {
    "cifar_resnet56": Case(partial(create_model, "resnet56", 10), 32, (1, 128)),
    "cifar_transformer": Case(partial(VisionTransformer, 32, 4, 6, 4, 128, 512, num_classes=10), 32, (1, 128)),
    "resnet50": Case(partial(torchvision.models.get_model, "resnet50"), 224, (1, 8)),
    "mobilenet_v2": Case(partial(torchvision.models.get_model, "mobilenet_v2"), 224, (1, 8)),
}
"""What is measured if nothing is named; any other name is one of torchvision's."""


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_times(function: Callable[[], Any]) -> list[float]:
    """Returns the seconds of a call, of several if they are short, without what only the first one prepares."""
    function()
    times = [seconds(function)]
    while sum(times) < 0.02:
        times.append(seconds(function))
    return times


def keep_memory() -> None:
    """
    Lets glibc keep memory that is freed.

    Else it is given back and asked for in every forward of one model and in none of another, by chance, which makes
    either several times as slow as the other.
    """
    trim_threshold, mmap_threshold, huge = -1, -3, 2**30
    with suppress(OSError, AttributeError):  # another C library
        for option in (trim_threshold, mmap_threshold):
            ctypes.CDLL("libc.so.6").mallopt(option, huge)


def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


def train_step(model: nn.Module, x: torch.Tensor, optimizers: Mapping[nn.Module, torch.optim.Optimizer]) -> None:
    model(x).square().mean().backward()
    optimizers[model].step()
    optimizers[model].zero_grad()


def measure(name: str, case: Case, batch: int, rounds: int) -> dict[str, Any]:
    """Returns the ratios of one model at one batch size; all take turns, so that a busy machine hits them alike."""
    torch.manual_seed(0)
    model, x = case.make().eval(), torch.randn(batch, 3, case.size, case.size)
    plain = copy.deepcopy(model)
    start = time.perf_counter()
    supernet = Supernet(model, ExampleInput((x[:1],)))
    build = time.perf_counter() - start
    maximum, minimum = supernet.space.maximum, supernet.space.minimum
    extracted = extract(supernet, minimum)
    models: dict[str, tuple[nn.Module, Mapping[str, int]]] = {
        "plain": (plain, maximum),
        "maximum": (model, maximum),
        "minimum": (model, minimum),
        "extracted": (extracted, minimum),
    }
    optimizers = {module: torch.optim.SGD(module.parameters(), lr=0.0) for module, _ in models.values()}
    times: dict[str, list[float]] = {}
    for turn in range(rounds):
        for kind, run in (("forward", forward), ("step", partial(train_step, optimizers=optimizers))):
            order = list(models)
            np.random.default_rng(turn).shuffle(order)  # who runs after whom matters, for caches and memory
            for which in order:
                module, subnet = models[which]
                supernet.set_active(subnet)
                module.train(kind == "step")
                times.setdefault(f"{which} {kind}", []).extend(take_times(partial(run, module, x)))
    medians = {key: float(np.median(values)) for key, values in times.items()}
    activations = [seconds(partial(activate_and_count, supernet, supernet.sample(rng))) for rng in generators(50)]
    return {
        "model": name,
        "batch": batch,
        "build s": round(build, 2),
        "plain ms": round(medians["plain forward"] * 1e3, 2),
        "minimum ms": round(medians["minimum forward"] * 1e3, 2),
        "maximum / plain": round(medians["maximum forward"] / medians["plain forward"], 3),
        "maximum / plain, step": round(medians["maximum step"] / medians["plain step"], 3),
        "minimum / extracted": round(medians["minimum forward"] / medians["extracted forward"], 3),
        "minimum / extracted, step": round(medians["minimum step"] / medians["extracted step"], 3),
        "activate and count ms": round(float(np.median(activations)) * 1e3, 3),
    }


def activate_and_count(supernet: Supernet, subnet: Mapping[str, int]) -> None:
    supernet.set_active(subnet)
    supernet.cost(subnet)


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(number) for number in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(CASES), help=f"of {', '.join(CASES)}, or torchvision's")
    parser.add_argument("--size", type=int, help="height and width of the input; 224 for torchvision's other models")
    parser.add_argument("--batch", type=int, nargs="+", help="batch sizes; 1 and a larger one if not given")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is run")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_memory()
    console, rows = Console(width=160), []
    cases = {
        name: CASES.get(name, Case(partial(torchvision.models.get_model, name), 224, (1, 8)))
        for name in arguments.models
    }
    work = [
        (name, Case(case.make, arguments.size or case.size, case.batches), batch)
        for name, case in cases.items()
        for batch in arguments.batch or case.batches
    ]
    for name, case, batch in track(work, console=Console(stderr=True), disable=not console.is_terminal):
        rows.append(measure(name, case, batch, arguments.rounds))
        print(json.dumps(rows[-1]), flush=True)
    table = Table(*rows[0], title=f"Medians of one interleaved run, {arguments.threads} threads")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)


if __name__ == "__main__":
    main()
