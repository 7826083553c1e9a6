"""What the examples train: a small super-network, on scikit-learn's handwritten digits."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bootstrapnas_ext as bnas
from bootstrapnas_ext.evaluation import top1_accuracy

TRAINING = {
    "strategy": "sandwich",
    "schedule": {"list_stage_descriptions": [{"epochs": 6, "init_lr": 0.1}]},
    "elasticity": {"available_elasticity_dims": ["width"]},
}
"""The block `bootstrapNAS.training` of the config."""


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Returns images ``(1, 8, 8)`` with their classes, for training and for validation."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    return TensorDataset(images[:1200], labels[:1200]), TensorDataset(images[1200:], labels[1200:])


def network() -> nn.Sequential:
    """Returns a network with random weights; in earnest, it would be trained already."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def supernet_of(model: nn.Module, loader: DataLoader[Any]) -> bnas.BootstrapNASController:
    """Makes a super-network of the network and returns its controller."""
    block = {"training": TRAINING}
    config = bnas.NNCFConfig.from_dict({"input_info": {"sample_size": [1, 1, 8, 8]}, "bootstrapNAS": block})
    bnas.register_default_init_args(config, loader)
    controller: bnas.BootstrapNASController
    controller, _ = bnas.create_compressed_model(model, config)
    return controller


def accuracies(controller: bnas.BootstrapNASController, data: TensorDataset) -> dict[str, float]:
    """Returns the top-1 in percent of the maximum and of the minimum, each with norm statistics of its own."""
    supernet = controller.supernet
    calibration = controller.calibration(controller.config.training.batchnorm_adaptation)
    loader = DataLoader(data, batch_size=200)
    return {
        name: top1_accuracy(bnas.extract(supernet, subnet, calibration), loader, supernet.device)
        for name, subnet in (("maximum", supernet.space.maximum), ("minimum", supernet.space.minimum))
    }
