"""A hand-made super-network: one elastic width, one elastic kernel and two blocks that may be skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bootstrapnas_ext.cost import Cost
from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.space import Choice, SearchSpace, Subnet

WIDTHS = (16, 12, 8, 4)
CLASSES = 3

SPACE = SearchSpace(
    (
        Choice("kernel:stem", (3, 1), "kernel"),
        Choice("depth:body", (2, 1, 0), "depth"),
        Choice("width:stem", WIDTHS, "width"),
    )
)


class TinyNet(nn.Module):
    """Stem, two residual blocks and a head; all slice their weights by what is active."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(CLASSES, WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        self.blocks = nn.ModuleList(nn.Conv2d(WIDTHS[0], WIDTHS[0], 1) for _ in range(2))
        self.head = nn.Linear(WIDTHS[0], CLASSES)
        self.momentum = 0.1
        self.active = SPACE.maximum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, depth, width = self.active.values()
        border = (3 - kernel) // 2
        weight = self.stem.weight[:width, :, border : 3 - border, border : 3 - border]
        x = F.conv2d(x, weight, padding=kernel // 2)
        norm = self.norm
        mean, var = norm.running_mean[:width], norm.running_var[:width]
        x = F.relu(F.batch_norm(x, mean, var, norm.weight[:width], norm.bias[:width], self.training, self.momentum))
        for block in self.blocks[:depth]:
            x = x + F.conv2d(x, block.weight[:width, :width], block.bias[:width])
        return F.linear(x.mean(dim=(2, 3)), self.head.weight[:, :width], self.head.bias)


class FakeSupernet:
    """Satisfies :class:`bootstrapnas_ext.training.TrainableSupernet`; records what was asked of it."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = TinyNet()
        self.space = SPACE
        self.activated: list[Subnet] = []
        self.reorganized: list[Subnet] = []

    @property
    def active(self) -> Subnet:
        return self.model.active

    @contextmanager
    def activate(self, subnet: Mapping[str, int]) -> Iterator[None]:
        previous, self.model.active = self.model.active, self.space.validate(subnet)
        try:
            yield
        finally:
            self.model.active = previous

    def set_active(self, subnet: Mapping[str, int]) -> None:
        self.model.active = self.space.validate(subnet)
        self.activated.append(self.model.active)

    def cost(self, subnet: Mapping[str, int]) -> Cost:
        kernel, depth, width = self.space.validate(subnet).values()
        return Cost(macs=36 * width * (CLASSES * kernel**2 + depth * width), parameters=0, weights=0)

    def keeps_first_channels(self, module: str) -> bool:
        return module != "norm"

    def reorganize(self) -> None:
        self.reorganized.append(self.active)
        order = self.model.stem.weight.abs().sum(dim=(1, 2, 3)).argsort(descending=True)
        with torch.no_grad():
            for tensor in (self.model.stem.weight, *self.model.norm.parameters(), *self.model.norm.buffers()):
                if tensor.ndim:
                    tensor.copy_(tensor[order])
            for block in self.model.blocks:
                block.weight.copy_(block.weight[order][:, order])
                block.bias.copy_(block.bias[order])
            self.model.head.weight.copy_(self.model.head.weight[:, order])

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.model.parameters()

    def state_dict(self) -> dict[str, Any]:
        return {"structure": "tiny", "weights": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["weights"])
        except RuntimeError as error:
            msg = "The state is of another super-network."
            raise CheckpointError(msg) from error


def extract(supernet: FakeSupernet, subnet: Subnet, prepare: Callable[[nn.Module], None]) -> nn.Module:
    """Returns a copy of the model with that subnet for good."""
    module = TinyNet()
    module.load_state_dict(supernet.model.state_dict())
    module.active = supernet.space.validate(subnet)
    prepare(module)
    return module


def recalibrate(images: torch.Tensor, module: TinyNet) -> None:
    """Sets the norm statistics of the active channels to those of the images."""
    was_training = module.training
    module.train()
    module.momentum = 1.0
    with torch.no_grad():
        module(images)
    module.momentum = 0.1
    module.train(was_training)


def make_data(samples: int = 48, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns noisy images, in which the channel of the label is the brightest, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (samples,), generator=generator)
    images = torch.randn(samples, CLASSES, 6, 6, generator=generator)
    images[torch.arange(samples), labels] += 1.0
    return images, labels
