"""The models that a config can name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from bootstrapnas_ext.config.rules import suggest
from bootstrapnas_ext.errors import ConfigError, ModelError
from bootstrapnas_ext.registry import Registry
from samples.classification.own_code import own_function

MODELS: Registry[Callable[..., nn.Module]] = Registry("model")
"""Models of the sample's own. Each is called with ``num_classes``."""


class PadShortcut(nn.Module):
    """
    Shortcut without parameters between stages, option A of https://arxiv.org/abs/1512.03385: every second pixel, and
    zeros for the channels that the input does not have.

    :param in_channels: Channels of the input.
    :param out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # An attribute, and not a number in the code, so that a subnet with other widths can have its own.
        added = out_channels - in_channels
        self.pad = (0, 0, 0, 0, added // 2, added - added // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shortcut of ``(batch, in_channels, height, width)``."""
        return F.pad(x[:, :, ::2, ::2], self.pad)


class BasicBlock(nn.Module):
    """
    Two 3x3 convolutions with a shortcut around them.

    :param in_channels: Channels of the input.
    :param channels: Channels of the output.
    :param stride: 1, or 2 to halve the resolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = PadShortcut(in_channels, channels) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output of ``(batch, in_channels, height, width)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """
    ResNet for images of 32x32, section 4.2 of https://arxiv.org/abs/1512.03385: three stages of 16, 32 and 64 channels.

    :param blocks: Blocks in a stage: 3 for ResNet-20, 9 for ResNet-56.
    :param num_classes: Number of outputs.
    """

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits ``(batch, num_classes)`` of images ``(batch, 3, height, width)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, 1 if in_channels == channels else 2)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


for _depth in (20, 32, 44, 56):
    MODELS.register(f"resnet{_depth}")(partial(CifarResNet, (_depth - 2) // 6))


@MODELS.register("mobilenet_v2_cifar")
def mobilenet_v2_cifar(num_classes: int) -> nn.Module:
    """
    torchvision's MobileNetV2 for images of 32x32: of its five halvings of the resolution, only the last three are left,
    because all five would leave one pixel.

    :param num_classes: Number of outputs.
    """
    model = torchvision.models.mobilenet_v2(num_classes=num_classes)
    halvings = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)]
    for convolution in halvings[:2]:
        convolution.stride = (1, 1)
    return model


def create_model(name: str, num_classes: int) -> nn.Module:
    """
    Makes a model with random weights.

    :param name: A name in :data:`MODELS`, a classification model of torchvision, or ``module.path:function`` for a
        function that is called with ``num_classes``.
    :param num_classes: Number of outputs.
    :raises ConfigError: If there is no such model; the message names the nearest ones.
    :raises ModelError: If the function fails, or returns something else.
    """
    if ":" in name:
        return _call(own_function(name), name, num_classes)
    if name in MODELS:
        return MODELS.get(name)(num_classes=num_classes)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        msg = (
            f"$.model: there is no model {name!r}, and one of your own must be named as module.path:function; "
            f"{suggest(name, [*MODELS, *known])}"
        )
        raise ConfigError(msg)
    return torchvision.models.get_model(name, num_classes=num_classes)


def _call(function: Callable[..., Any], name: str, num_classes: int) -> nn.Module:
    try:
        model = function(num_classes=num_classes)
    except Exception as error:
        msg = f"{name} failed when it was called with num_classes={num_classes}: {type(error).__name__}: {error}"
        raise ModelError(msg) from error
    if not isinstance(model, nn.Module):
        msg = f"{name} must return a torch.nn.Module, but it returned a {type(model).__name__}."
        raise ModelError(msg)
    return model
