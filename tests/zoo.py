"""Small nets with one mechanism each; every test of the super-network runs on all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet


def conv_bn(incoming: int, outgoing: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, kernel, padding=kernel // 2, bias=False, **options),
        nn.BatchNorm2d(outgoing),
        nn.ReLU(),
    )


class Head(nn.Module):
    """Global average and a classifier of five classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Chain(nn.Module):
    """Layers one after the other; BatchNorm, biases, pooling and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 5, padding=2),
            nn.Hardswish(),
            nn.Dropout(0.2),
            Head(24),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class BasicBlock(nn.Module):
    """ResNet's block of two convolutions, with a projection where the shape changes."""

    def __init__(self, incoming: int, outgoing: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outgoing)
        self.conv2 = nn.Conv2d(outgoing, outgoing, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outgoing)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or incoming != outgoing:
            self.downsample = nn.Sequential(
                nn.Conv2d(incoming, outgoing, 1, stride, bias=False), nn.BatchNorm2d(outgoing)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Residual(nn.Module):
    """Two stages of basic blocks: one skippable block in the first, a chain of two in the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.layer1 = BasicBlock(16, 16)
        self.layer2 = nn.Sequential(BasicBlock(16, 24, 2), BasicBlock(24, 24), BasicBlock(24, 24))
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(self.stem(x))))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 32)
        self.branch = nn.Sequential(conv_bn(32, 16, 1), conv_bn(16, 16), nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32))
        self.head = Head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.branch(x)))


class PadShortcut(nn.Module):
    """Option A of CIFAR ResNets: the shortcut is padded with zero channels by numbers in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.conv = nn.Conv2d(16, 32, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.head = Head(32)

    def shortcut(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(self.bn(self.conv(x)) + self.shortcut(x)))


class Padding(nn.Module):
    """Pads as one of its own attributes says."""

    def __init__(self, pad: tuple[int, ...]) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], self.pad)


class PadAttributeShortcut(PadShortcut):
    """As option A, but the padding is an attribute of a module."""

    def __init__(self) -> None:
        super().__init__()
        self.padding = Padding((0, 0, 0, 0, 8, 8))

    def shortcut(self, x: Tensor) -> Tensor:
        return self.padding(x)


class InvertedResidual(nn.Module):
    """MobileNet's block: expansion, depthwise convolution, squeeze-and-excitation, projection."""

    def __init__(self, channels: int, expanded: int) -> None:
        super().__init__()
        self.expand = conv_bn(channels, expanded, 1)
        self.depthwise = conv_bn(expanded, expanded, groups=expanded)
        self.squeeze = nn.Conv2d(expanded, 8, 1)
        self.excite = nn.Conv2d(8, expanded, 1)
        self.project = nn.Conv2d(expanded, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.depthwise(self.expand(x))
        scale = F.adaptive_avg_pool2d(out, 1)
        scale = F.hardsigmoid(self.excite(F.relu(self.squeeze(scale))))
        return x + self.bn(self.project(out * scale))


class Mobile(nn.Module):
    """Depthwise convolutions and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.blocks = nn.Sequential(InvertedResidual(16, 32), InvertedResidual(16, 48))
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class ModuleGate(nn.Module):
    """Squeeze-and-excitation as one module that returns what it got, scaled: a gate that may be skipped whole."""

    class Gate(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.reduce = nn.Conv2d(channels, 8, 1)
            self.expand = nn.Conv2d(8, channels, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.gate = self.Gate(16)
        self.last = conv_bn(16, 24)
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.gate(self.stem(x))))


class Grouped(nn.Module):
    """A convolution of four groups, and one that makes three channels from each of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 32)
        self.grouped = conv_bn(32, 48, groups=4)
        self.multiplied = conv_bn(48, 144, groups=48)
        self.head = Head(144)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.multiplied(self.grouped(self.stem(x))))


class Concat(nn.Module):
    """Two branches side by side under one BatchNorm, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(3, 24, 1)
        self.norm = nn.BatchNorm2d(40)
        self.three = nn.Conv2d(40, 16, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(56)
        self.head = Head(56)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(torch.cat([self.one(x), self.two(x)], 1)))
        x = torch.cat([x, self.three(x)], 1)
        return self.head(F.relu(self.norm2(x)))


class ConcatDepthwise(nn.Module):
    """A depthwise convolution over a concat, whose number of groups is the sum of two widths."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(3, 24, 1)
        self.depthwise = conv_bn(40, 40, groups=40)
        self.head = Head(40)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.depthwise(torch.cat((self.one(x), self.two(x)), dim=1)))


class Flatten(nn.Module):
    """Positions and channels become features of a linear layer, as in VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn(3, 16)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.fc1 = nn.Linear(16 * 16, 32)
        self.fc2 = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(torch.flatten(self.pool(self.conv(x)), 1))))


class ViewConstant(Flatten):
    """As Flatten, with the number of features in the code."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(self.pool(self.conv(x)).view(-1, 16 * 16))))


class ViewTuple(Flatten):
    """As Flatten, with a shape of the batch size and a number in the code, in one tuple."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x))
        return self.fc2(F.relu(self.fc1(x.reshape((x.shape[0], 16 * 16)))))


class ViewShape(Flatten):
    """As Flatten, with the number of features computed from the shape."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x))
        return self.fc2(F.relu(self.fc1(x.view(x.size(0), x.size(1) * 16))))


class Shuffle(nn.Module):
    """Channel shuffle of ShuffleNet: channels are regrouped and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 32)
        self.last = conv_bn(32, 16, 1)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, channels, height, width = x.shape
        x = x.view(batch, channels // 4, 4, height, width).transpose(1, 2).reshape(batch, -1, height, width)
        return self.head(self.last(x))


class Chunk(nn.Module):
    """A gated unit by hand: the halves of one layer's channels are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 3, padding=1)
        self.last = conv_bn(24, 16)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, dim=1)
        return self.head(self.last(value * torch.sigmoid(gate)))


class SplitList(nn.Module):
    """Parts of given sizes go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 3, padding=1)
        self.small = nn.Conv2d(16, 16, 3, padding=1)
        self.large = nn.Conv2d(32, 16, 1)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        small, large = torch.split(self.conv(x), [16, 32], dim=1)
        return self.head(F.relu(self.small(small) + self.large(large)))


class Glu(nn.Module):
    """An operation that no rule covers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.last = conv_bn(16, 16)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(F.glu(self.conv(x), 1)))


class Loose(nn.Module):
    """Residual blocks whose addition is written in the model's forward, so that no module holds a whole block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branches = nn.ModuleList(
            nn.Sequential(conv_bn(16, 16), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)) for _ in range(3)
        )
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = F.relu(x + branch(x))
        return self.head(x)


class PreActivation(nn.Module):
    """Residual blocks that begin with norm and activation and end with the addition."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(16), nn.Conv2d(16, 24, 3, padding=1, bias=False)
            self.bn2, self.conv2 = nn.BatchNorm2d(24), nn.Conv2d(24, 16, 3, padding=1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            out = self.conv1(F.relu(self.bn1(x)))
            return self.conv2(F.relu(self.bn2(out))) + x

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(self.Block(), self.Block())
        self.norm = nn.BatchNorm2d(16)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.blocks(self.stem(x)))))


class NestedSkips(nn.Module):
    """Two residual blocks with one more skip around both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.one, self.two = BasicBlock(16, 16), BasicBlock(16, 16)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.two(self.one(x)))


class Tied(nn.Module):
    """Two layers with one weight, each with its own bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.one = nn.Conv2d(16, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.two.weight = self.one.weight
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(F.relu(self.one(self.stem(x)))))


class CalledTwice(nn.Module):
    """One module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.again = conv_bn(16, 16)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.again(self.stem(x))))


class Functional(nn.Module):
    """Parameters and buffers of the model itself, used by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(16, 3, 3, 3))
        self.pointwise = nn.Parameter(torch.randn(24, 16, 1, 1))
        self.matrix = nn.Parameter(torch.randn(5, 24))
        self.gain = nn.Parameter(torch.rand(16) + 0.5)
        self.mean = nn.Buffer(torch.randn(16))
        self.variance = nn.Buffer(torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, padding=1)
        x = F.batch_norm(x, self.mean, self.variance, self.gain, training=self.training)
        x = F.conv2d(F.relu(x), self.pointwise)
        return F.linear(x.mean((2, 3)), self.matrix)


class Norms(nn.Module):
    """Group norm, and layer norm over channels that are in the last place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.group_norm = nn.GroupNorm(4, 32)
        self.conv2 = nn.Conv2d(32, 24, 1)
        self.layer_norm = nn.LayerNorm(24)
        self.gain = nn.Parameter(torch.rand(24) + 0.5)
        self.fc = nn.Linear(24, 32)
        self.last = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.relu(self.group_norm(self.conv1(x)))).permute(0, 2, 3, 1)
        x = F.gelu(self.fc(self.layer_norm(x) * self.gain))
        return self.last(x.mean((1, 2)))


class Activations(nn.Module):
    """Learned activations: one slope for each channel, and one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16)
        self.conv2, self.act2 = nn.Conv2d(16, 24, 3, padding=1), nn.PReLU()
        self.scale = nn.Parameter(torch.rand(24, 1, 1))
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act2(self.conv2(self.act1(self.conv1(x)))) * self.scale)


class TwoInputs(nn.Module):
    """Two images, added after a layer each."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv_bn(3, 16), conv_bn(1, 16)
        self.head = Head(16)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.left(x) + self.right(y))


class DictInput(TwoInputs):
    """The two images in a dictionary."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return self.head(self.left(batch["x"]) + self.right(batch["y"]))


class DictOutput(nn.Module):
    """Features and logits in a dictionary: the layer that makes the features keeps its width."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv_bn(3, 16), conv_bn(16, 24)
        self.head = Head(24)

    def forward(self, x: Tensor) -> dict[str, Any]:
        features = self.two(self.one(x))
        return {"logits": self.head(features), "features": [features]}


class Kernels(nn.Module):
    """Kernels of 7x1, 1x7, 4x4 with stride 2, dilated, and as large as "same" padding needs."""

    def __init__(self) -> None:
        super().__init__()
        self.tall = nn.Conv2d(3, 16, (7, 1), padding=(3, 0))
        self.wide = nn.Conv2d(16, 16, (1, 7), padding=(0, 3))
        self.even = nn.Conv2d(16, 16, 4, stride=2, padding=1)
        self.dilated = nn.Conv2d(16, 24, 5, padding=4, dilation=2)
        self.same = nn.Conv2d(24, 16, 5, padding="same")
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.tall, self.wide, self.even, self.dilated, self.same):
            x = F.relu(layer(x))
        return self.head(x)


class Conv1d(nn.Module):
    """Sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv1d(3, 16, 5, padding=2), nn.BatchNorm1d(16)
        self.conv2 = nn.Conv1d(16, 24, 3, padding=1)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool1d(F.relu(self.norm(self.conv1(x))), 2)
        return self.fc(F.relu(self.conv2(x)).mean(-1))


class Conv3d(nn.Module):
    """Volumes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv3d(1, 16, 3, padding=1), nn.BatchNorm3d(16)
        self.conv2 = nn.Conv3d(16, 16, (1, 3, 3), padding=(0, 1, 1))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.norm(self.conv1(x))), 2)
        return self.fc(F.relu(self.conv2(x)).mean((2, 3, 4)))


class Perceptron(nn.Module):
    """Linear layers on a sequence, with a residual branch: what a transformer's feed-forward part is."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 24)
        self.branch = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))
        self.last = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.last((x + self.branch(x)).mean(1))


class Encoder(nn.Module):
    """A layer of attention by PyTorch's module and a feed-forward part, as in a vision transformer."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.feed(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, 4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 5, 24))
        self.layers = nn.ModuleList([Encoder(), Encoder()])
        self.norm, self.fc = nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.fc(self.norm(x)[:, 0])


class CausalLayer(nn.Module):
    """Attention by hand: one layer for queries, keys and values, and fewer heads of keys than of queries."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(16), nn.RMSNorm(16)
        self.packed, self.out = nn.Linear(16, 32), nn.Linear(16, 16, bias=False)
        self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.packed(self.norm1(x)).split([16, 8, 8], dim=-1)
        q, k, v = (y.view(b, n, -1, 4).transpose(1, 2) for y in (q, k, v))
        k, v = (y[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        x = x + self.out(y.reshape(b, n, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class LanguageModel(nn.Module):
    """Numbers of words in, and their embedding used again for the scores of all words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, 16), nn.Embedding(6, 16)
        self.layers = nn.Sequential(CausalLayer(), CausalLayer())

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.positions(torch.arange(words.shape[1]))
        return F.linear(self.layers(x), self.words.weight)


class Windows(nn.Module):
    """Attention in shifted windows with a bias for each distance, all sizes as numbers in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 16, 1), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.randn(7, 4))
        self.register_buffer("index", (torch.arange(16)[:, None] - torch.arange(16)[None]) % 7)
        self.head = Head(64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(x.shape[0], 2, 4, 2, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0] * 4, 16, 16)
        q, k, v = self.qkv(y).reshape(x.shape[0] * 4, 16, 3, 4, 4).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * 0.5 + self.table[self.index.view(-1)].view(16, 16, 4).permute(2, 0, 1)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape[0] * 4, 16, 16))
        y = y.view(x.shape[0], 2, 2, 4, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], 8, 8, 16)
        x = x + torch.roll(y, (2, 2), (1, 2))
        parts = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return self.head(torch.cat(parts, -1).permute(0, 3, 1, 2))


def image(channels: int = 3) -> Tensor:
    """One image of 8x8."""
    return torch.randn(1, channels, 8, 8)


@dataclass(frozen=True)
class Net:
    """A net and how to call it."""

    model: Callable[[], nn.Module]
    example: Callable[[], ExampleInput]


def _on_image(model: Callable[[], nn.Module]) -> Net:
    return Net(model, lambda: ExampleInput((image(),)))


NETS: dict[str, Net] = {
    "chain": _on_image(Chain),
    "residual": _on_image(Residual),
    "bottleneck": _on_image(Bottleneck),
    "pad_shortcut": _on_image(PadShortcut),
    "pad_attribute": _on_image(PadAttributeShortcut),
    "mobile": _on_image(Mobile),
    "module_gate": _on_image(ModuleGate),
    "grouped": _on_image(Grouped),
    "concat": _on_image(Concat),
    "concat_depthwise": _on_image(ConcatDepthwise),
    "flatten": _on_image(Flatten),
    "view_constant": _on_image(ViewConstant),
    "view_tuple": _on_image(ViewTuple),
    "view_shape": _on_image(ViewShape),
    "shuffle": _on_image(Shuffle),
    "chunk": _on_image(Chunk),
    "split_list": _on_image(SplitList),
    "glu": _on_image(Glu),
    "loose": _on_image(Loose),
    "pre_activation": _on_image(PreActivation),
    "nested_skips": _on_image(NestedSkips),
    "tied": _on_image(Tied),
    "called_twice": _on_image(CalledTwice),
    "functional": _on_image(Functional),
    "norms": _on_image(Norms),
    "activations": _on_image(Activations),
    "two_inputs": Net(TwoInputs, lambda: ExampleInput((image(),), {"y": image(1)})),
    "dict_input": Net(DictInput, lambda: ExampleInput(({"x": image(), "y": image(1)},))),
    "dict_output": _on_image(DictOutput),
    "kernels": _on_image(Kernels),
    "conv1d": Net(Conv1d, lambda: ExampleInput((torch.randn(1, 3, 8),))),
    "conv3d": Net(Conv3d, lambda: ExampleInput((torch.randn(1, 1, 4, 4, 4),))),
    "perceptron": Net(Perceptron, lambda: ExampleInput((torch.randn(1, 4, 6),))),
    "vision_transformer": _on_image(VisionTransformer),
    "language_model": Net(LanguageModel, lambda: ExampleInput((torch.randint(0, 20, (1, 6)),))),
    "windows": _on_image(Windows),
}
"""All nets by name."""


def _small_vgg() -> nn.Module:
    """VGG-11 without the hundred million weights of its classifier."""
    model = torchvision.models.vgg11_bn(weights=None, num_classes=5)
    model.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 5))
    return model


def _torchvision(name: str) -> Net:
    def model() -> nn.Module:
        return _small_vgg() if name == "vgg11_bn" else getattr(torchvision.models, name)(weights=None, num_classes=5)

    return Net(model, lambda: ExampleInput((torch.randn(2, 3, 32, 32),)))


TORCHVISION: dict[str, Net] = {
    name: _torchvision(name)
    for name in (
        "resnet18",
        "resnet50",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "vgg11_bn",
        "densenet121",
    )
}
"""Models that people use, on small images."""


def randomize_norms(model: nn.Module, seed: int = 1) -> nn.Module:
    """Gives norms statistics, scales and shifts as after training, so that no channel equals another."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if not isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)):
            continue
        with torch.no_grad():
            if module.weight is not None:
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)
            if isinstance(getattr(module, "running_mean", None), Tensor):
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model


def build(name: str, seed: int = 0) -> tuple[nn.Module, ExampleInput]:
    """Returns a net in eval mode, with random weights and norm statistics, and an example input for it."""
    torch.manual_seed(seed)
    net = {**NETS, **TORCHVISION}[name]
    return randomize_norms(net.model()).eval(), net.example()


def outputs(model: Callable[..., Any], example: ExampleInput) -> list[Tensor]:
    """Calls a model and returns all tensors of its result."""
    return [leaf for leaf in pytree.tree_leaves(model(*example.args, **example.kwargs)) if isinstance(leaf, Tensor)]


def other_input(example: ExampleInput, batch: int = 3) -> ExampleInput:
    """Returns other values, and another batch size, than a model was traced with."""

    def other(tensor: Tensor) -> Tensor:
        return torch.randn_like(tensor) if tensor.is_floating_point() else tensor.roll(1, -1)

    return example.with_batch(batch).map(other)


def assert_equal(one: list[Tensor], two: list[Tensor]) -> None:
    """Checks that two results are the same, bit by bit."""
    assert len(one) == len(two) > 0
    assert all(map(torch.equal, one, two))


def assert_close(one: list[Tensor], two: list[Tensor], tolerance: float = 1e-5) -> None:
    """Checks that two results differ by the order of floating-point sums at most; relative to the largest item."""
    assert len(one) == len(two) > 0
    for first, second in zip(one, two, strict=True):
        assert first.shape == second.shape
        assert first.isfinite().all()
        assert (first - second).abs().max() <= tolerance * second.abs().max().clamp(min=1e-3)


def some_subnets(supernet: Supernet, count: int = 3) -> list[Subnet]:
    """Returns the minimum and some random subnets."""
    rng = np.random.default_rng(0)
    return [supernet.space.minimum, *(supernet.space.sample(rng) for _ in range(count))]


def active_positions(supernet: Supernet, subnet: Subnet) -> dict[str, Tensor]:
    """
    Returns which items of each parameter and buffer a subnet uses, as flat indices, by the tensor's name.

    All tensors are filled with the numbers of their items for a moment, and a subnet is extracted, so that its tensors
    tell where they come from. What the subnet does not have at all is missing.
    """
    own = {n: t for n, t in supernet.model.state_dict().items() if "nncf" not in n and t.is_floating_point()}
    saved = {name: tensor.clone() for name, tensor in own.items()}
    with torch.no_grad():
        for tensor in own.values():
            tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))
        small = extract(supernet, subnet)
        for name, tensor in own.items():
            tensor.copy_(saved[name])
    found = {name.removeprefix("small."): tensor.flatten() for name, tensor in small.state_dict().items()}
    return {name: tensor.long() for name, tensor in found.items() if tensor.is_floating_point()}


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's tensors, without those of hooks."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if "nncf" not in name}
