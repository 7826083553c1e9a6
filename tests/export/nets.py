"""Small models whose inputs and outputs have different structures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bootstrapnas_ext.inputs import ExampleInput


class ConvNet(nn.Module):
    """Convolution, batch norm with statistics of its own, dropout, flatten by ``view``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 6 * 6, 5)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(image)))
        return self.head(self.drop(x.view(x.size(0), -1)))


class Nested(nn.Module):
    """A nested argument, a keyword-only one and one that is never used; a dictionary with a tuple as output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor, pair: tuple[Tensor, Tensor], unused: Any = None, *, scale: Tensor) -> Any:
        logits = self.head(self.embed(tokens).mean(1) + pair[0] - pair[1])
        return {"scale": logits * scale, "rest": (logits, None, pair[0] + 1)}


class Unbatched(nn.Module):
    """An input and an output without a batch, and an output whose first dimension is a multiple of the batch size."""

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * mask, mask * 2, x.flatten(0, 1) + mask


class BatchAsNumber(nn.Module):
    """Takes the batch size as a plain number, which a trace writes into the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 2, 2) + 1


class BatchInCode(nn.Module):
    """Works for a batch of two only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4) + 1


def image_example() -> ExampleInput:
    return ExampleInput((torch.randn(1, 3, 8, 8),))


def unbatched_example() -> ExampleInput:
    return ExampleInput((torch.randn(1, 3, 8, 8), torch.randn(8)))


def nested_example() -> ExampleInput:
    tokens = torch.tensor([[0, 6, 3], [1, 2, 3]])
    return ExampleInput(
        (tokens, (torch.randn(2, 4), torch.randn(2, 4)), torch.randn(2, 1)), {"scale": torch.rand(2, 3)}
    )
