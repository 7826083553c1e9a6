"""
A script as those that NNCF 2.19 came with: train, search, measure and export, all by call-backs.

Only the block of imports differs from what it would be for NNCF 2.19.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

# NNCF 2.19: nncf, nncf.config.structures, nncf.torch.initialization, nncf.torch.model_creation, nncf.torch.utils,
# nncf.torch.checkpoint_loading, and nncf.experimental.torch.nas.bootstrapNAS with two of its modules.
from bootstrapnas_ext.compat.nncf2 import (
    BaseSearchAlgorithm,
    BNAdaptationInitArgs,
    EpochBasedTrainingAlgorithm,
    NNCFConfig,
    create_nncf_network,
    default_criterion_fn,
    is_main_process,
    load_state,
    resume_compression_from_state,
    wrap_dataloader_for_init,
)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.relu(y)


class Net(nn.Module):
    """A small convolutional network of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


def config_of(log_dir: Path) -> dict[str, Any]:
    """A config in NNCF 2.19's words."""
    both = {"train_dims": ["kernel", "depth"], "epochs": 1, "depth_indicator": 2, "init_lr": 0.01, "epochs_lr": 1}
    every = {**both, "train_dims": ["kernel", "depth", "width"], "width_indicator": 3, "reorg_weights": True}
    return {
        "input_info": {"sample_size": [1, 3, 8, 8]},
        "log_dir": str(log_dir),
        "bootstrapNAS": {
            "training": {
                "algorithm": "progressive_shrinking",
                "progressivity_of_elasticity": ["kernel", "depth", "width"],
                "batchnorm_adaptation": {"num_bn_adaptation_samples": 8},
                "schedule": {"list_stage_descriptions": [both, {**every, "bn_adapt": True}]},
                "elasticity": {
                    "available_elasticity_dims": ["width", "depth", "kernel"],
                    "width": {"min_width": 4, "width_step": 4, "max_num_widths": -1},
                },
            },
            "search": {
                "algorithm": "NSGA2",
                "batchnorm_adaptation": {"num_bn_adaptation_samples": 8},
                "num_evals": 6,
                "population": 3,
                "acc_delta": 50,
                "ref_acc": -1,
            },
        },
    }


def loaders() -> tuple[Any, Any]:
    """Batches for training and validation."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 3, 8, 8, generator=generator)
    data = TensorDataset(images, images.mean((2, 3)).argmax(1))
    return DataLoader(data, batch_size=8), DataLoader(data, batch_size=12)


def train_epoch(loader: Any, model: nn.Module, compression_ctrl: Any, epoch: int, optimizer: Any) -> None:
    """Trains one epoch, one subnet a step."""
    model.train()
    criterion = nn.CrossEntropyLoss()
    for images, labels in loader:
        compression_ctrl.scheduler.step()
        loss = default_criterion_fn(model(images), labels, criterion) + compression_ctrl.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    compression_ctrl.statistics(quickly_collected_only=True)


def validate(model: nn.Module, loader: Any) -> tuple[float, float, float]:
    """Returns top-1, top-5 and loss."""
    model.eval()
    right, count, loss = 0, 0, 0.0
    with torch.no_grad():
        for images, labels in loader:
            outputs = model(images)
            loss += nn.functional.cross_entropy(outputs, labels, reduction="sum").item()
            right += int((outputs.argmax(1) == labels).sum())
            count += len(labels)
    return 100.0 * right / count, 100.0, loss / count


def validate_top1(model: nn.Module, loader: Any) -> float:
    """Returns top-1."""
    return validate(model, loader)[0]


def search_and_export(
    network: nn.Module, elasticity_ctrl: Any, nncf_config: Any, val_loader: Any, folder: Path
) -> dict[str, Any]:
    """Searches, measures the largest and the best subnet, and exports that."""
    search = BaseSearchAlgorithm.from_config(network, elasticity_ctrl, nncf_config)
    elasticity_ctrl, best_config, performance_metrics = search.run(validate_top1, val_loader, str(folder))
    search.visualize_search_progression()
    handler = elasticity_ctrl.multi_elasticity_handler

    handler.activate_maximum_subnet()
    search.bn_adaptation.run(network)
    maximum = validate_top1(network, val_loader), handler.count_flops_and_weights_for_active_subnet()

    assert is_main_process()
    handler.activate_subnet_for_config(best_config)
    search.bn_adaptation.run(network)
    best = validate_top1(network, val_loader), handler.count_flops_and_weights_for_active_subnet()
    elasticity_ctrl.export_model(str(folder / "best_subnet.onnx"))
    search.search_progression_to_csv()
    search.evaluators_to_csv()
    assert best_config == handler.get_active_config()
    return {
        "best_config": best_config,
        "metrics": performance_metrics,
        "maximum": maximum,
        "best": best,
        "records": search.search_records,
        "space": handler.get_search_space(),
        "variables": handler.get_design_vars_info(),
    }


def ready(folder: Path) -> tuple[Any, Any, Any, Any, Any]:
    """Returns a network, its config, and the data."""
    nncf_config = NNCFConfig.from_dict(config_of(folder))
    train_loader, val_loader = loaders()
    bn_adapt_args = BNAdaptationInitArgs(data_loader=wrap_dataloader_for_init(train_loader), device="cpu")
    nncf_config.register_extra_structs([bn_adapt_args])
    torch.manual_seed(0)
    network = create_nncf_network(Net(), nncf_config)
    return network, nncf_config, bn_adapt_args, train_loader, val_loader


def main(folder: Path, resume_from: Path | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Trains, from a checkpoint if there is one, and searches."""
    network, nncf_config, bn_adapt_args, train_loader, val_loader = ready(folder)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    if resume_from is None:
        training = EpochBasedTrainingAlgorithm.from_config(network, nncf_config)
    else:
        training = EpochBasedTrainingAlgorithm.from_checkpoint(network, bn_adapt_args, str(resume_from))
    network, elasticity_ctrl = training.run(
        train_epoch, train_loader, validate, val_loader, optimizer, str(folder), None, None
    )
    return network, search_and_export(network, elasticity_ctrl, nncf_config, val_loader, folder)


def search_only(folder: Path, elasticity_path: Path, weights_path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Searches a super-network that was trained before."""
    network, nncf_config, _, _, val_loader = ready(folder)
    compression_state = torch.load(elasticity_path)
    model, elasticity_ctrl = resume_compression_from_state(network, compression_state)
    load_state(model, torch.load(weights_path), is_resume=True)
    return model, search_and_export(model, elasticity_ctrl, nncf_config, val_loader, folder)
