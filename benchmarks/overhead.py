"""What elasticity costs, as ratios of medians from one interleaved run on this machine.

.. code-block:: console

    python benchmarks/overhead.py --models resnet18 mobilenet_v2 --size 64 --batch 2 8
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from rich.console import Console
from rich.table import Table
from torch import nn

from bootstrapnas_ext import ExampleInput, Supernet
from bootstrapnas_ext.extraction import extract


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved_medians(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each function; they take turns, so that a busy machine hits all alike."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: float(np.median(values)) for name, values in times.items()}


def train_step(model: nn.Module, x: torch.Tensor) -> None:
    model.train()
    model(x).square().mean().backward()
    model.zero_grad()
    model.eval()


def measure(name: str, size: int, batch: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    plain, x = copy.deepcopy(model), torch.randn(batch, 3, size, size)
    build = seconds(lambda: Supernet(copy.deepcopy(plain), ExampleInput((x[:1],))))
    supernet = Supernet(model, ExampleInput((x[:1],)))
    minimum = supernet.space.minimum
    extracted = extract(supernet, minimum)

    def active(function: Callable[[nn.Module, torch.Tensor], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with supernet.activate(minimum):
                return function(model, x)

        return run

    def forward(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return module(inputs)

    medians = interleaved_medians(
        {
            "plain": lambda: forward(plain, x),
            "maximum": lambda: forward(model, x),
            "minimum": active(forward),
            "extracted": lambda: forward(extracted, x),
            "plain step": lambda: train_step(plain, x),
            "maximum step": lambda: train_step(model, x),
            "minimum step": active(train_step),
            "extracted step": lambda: train_step(extracted, x),
        },
        rounds,
    )
    rng = np.random.default_rng(0)
    subnets = [supernet.space.sample(rng) for _ in range(20)]
    activate = float(np.median([seconds(lambda s=subnet: supernet.set_active(s)) for subnet in subnets]))
    cost = float(np.median([seconds(lambda s=subnet: supernet.cost(s)) for subnet in subnets]))
    return {
        "model": name,
        "size": size,
        "batch": batch,
        "build_s": round(build, 2),
        "maximum_over_plain": round(medians["maximum"] / medians["plain"], 3),
        "minimum_over_extracted": round(medians["minimum"] / medians["extracted"], 3),
        "maximum_over_plain_step": round(medians["maximum step"] / medians["plain step"], 3),
        "minimum_over_extracted_step": round(medians["minimum step"] / medians["extracted step"], 3),
        "activate_ms": round(activate * 1e3, 3),
        "cost_ms": round(cost * 1e3, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet_v2"], help="names in torchvision")
    parser.add_argument("--size", type=int, default=224, help="height and width of the input")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 8], help="at least 2, for BatchNorm")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.models:
        for batch in arguments.batch:
            rows.append(measure(name, arguments.size, batch, arguments.rounds))
            print(json.dumps(rows[-1]), flush=True)
    table = Table(*rows[0], title="Ratios of medians, one interleaved run")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
