"""
A super-network in a loop of plain PyTorch.

    python samples/loops/plain_pytorch.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import bootstrapnas_ext as bnas
from samples.loops.digits import accuracies, digits, network, supernet_of


def train(controller: bnas.BootstrapNASController, loader: DataLoader[Any], optimizer: torch.optim.Optimizer) -> None:
    """Trains through all stages of the config, by any strategy but "attentive"."""
    scheduler, model = controller.scheduler, controller.model
    scheduler.attach(optimizer, steps_per_epoch=len(loader))
    for _ in range(scheduler.total_epochs):
        scheduler.epoch_step()
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            for _subnet in scheduler.step():  # active now
                controller.loss(F.cross_entropy(model(images), labels)).backward()
            optimizer.step()
    controller.multi_elasticity_handler.activate_maximum_subnet()
    scheduler.adapt_batchnorm()


def main() -> dict[str, float]:
    """Trains on the digits, and returns and prints the accuracy of two subnets."""
    torch.manual_seed(0)
    training, validation = digits()
    loader = DataLoader(training, batch_size=32, shuffle=True)
    controller = supernet_of(network(), loader)
    train(controller, loader, torch.optim.SGD(controller.supernet.parameters(), lr=0.1, momentum=0.9))
    result = accuracies(controller, validation)
    print(result)
    return result


if __name__ == "__main__":
    main()
