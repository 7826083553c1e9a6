"""The net of the NNCF 2.19 checkpoint in the tests, for both versions of NNCF; needs PyTorch only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONFIG = {
    "input_info": {"sample_size": [1, 3, 8, 8]},
    "bootstrapNAS": {
        "training": {
            "batchnorm_adaptation": {"num_bn_adaptation_samples": 0},
            "elasticity": {"width": {"min_width": 2, "width_step": 2}},
        }
    },
}


class Block(nn.Module):
    """A residual block with a depthwise convolution in the middle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * channels)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 7, padding=3, groups=2 * channels, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * channels)
        self.conv3 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.conv3(self.relu(self.bn2(self.conv2(y))))
        y += x
        return self.relu(y)


class Net(nn.Module):
    """
    Two blocks between a stem and a classifier.

    :param num_classes: Number of outputs.
    """

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU6())
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def other(num_classes: int) -> nn.Module:
    """
    Returns another net.

    :param num_classes: Number of outputs.
    """
    net = Net(num_classes)
    net.stem[0] = nn.Conv2d(3, 8, 3, padding=1)
    return net
