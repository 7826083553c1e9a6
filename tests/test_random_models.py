"""Random small architectures: what is active is what is extracted, with the shapes and costs that were predicted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bootstrapnas_ext.config import DepthConfig, ElasticityConfig, WidthConfig
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_close, assert_equal, outputs, randomize_norms, some_subnets

Run = Callable[..., Sequence[Tensor]]
"""From a module and its tensors to new tensors."""
Kind = Callable[["Steps", "Step", Any], Run]
"""From the module to be built, the step and the tensors' shapes to what runs; :class:`UnfitError` if it cannot."""

WIDTHS = (8, 12, 16, 24, 32)
HEAD_DIM = 4


class UnfitError(Exception):
    """The step does not fit the tensors; it is left out."""


@dataclass(frozen=True)
class Step:
    """
    What a model does next.

    :param kind: Name among :data:`KINDS`.
    :param at: Which of the tensors so far it is about, among those that fit.
    :param number: What the kind makes something of: widths, strides, variants.
    :param baked: Whether sizes are numbers in the code, and not read from shapes.
    :param keep: Whether later steps may use its input too.
    :param inner: Steps inside it.
    """

    kind: str
    at: int = 0
    number: int = 0
    baked: bool = False
    keep: bool = False
    inner: tuple[Step, ...] = ()


class Steps(nn.Module):
    """
    Runs steps on tensors, images ``(N, C, H, W)`` or tokens ``(N, L, C)``, and returns those that are left.

    Modules and numbers are made once, from the shapes of the first tensors; the code that runs is plain PyTorch.
    """

    def __init__(self, steps: Sequence[Step], *state: Tensor) -> None:
        super().__init__()
        self.runs: list[tuple[tuple[int, ...], bool, Run]] = []
        for step in steps:
            rank = KINDS[step.kind][1]
            if rank is not None and rank not in [tensor.ndim for tensor in state]:
                state = self._added(Step("to_image" if rank == IMAGE else "to_tokens", step.at, step.number), state)
            state = self._added(step, state)

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        for run in self.runs:
            state = self._after(run, state)
        return state

    def _added(self, step: Step, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        count, rank, kind = KINDS[step.kind]
        fitting = [number for number, tensor in enumerate(state) if rank in (None, tensor.ndim)]
        for chosen in _chosen(fitting, count, step.at):
            try:
                run = kind(self, step, *(state[number].shape for number in chosen))
            except UnfitError:
                continue
            self.runs.append((chosen, step.keep, run))
            with torch.no_grad():
                return self._after(self.runs[-1], state)
        return state

    def _after(self, run: tuple[tuple[int, ...], bool, Run], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        chosen, keep, function = run
        rest = [tensor for number, tensor in enumerate(state) if keep or number not in chosen]
        return (*rest, *function(self, *(state[number] for number in chosen)))

    def own(self, item: nn.Module | Tensor) -> str:
        """Registers a module or parameter and returns its name."""
        if isinstance(item, nn.Module):
            name = f"{type(item).__name__.lower()}{len(self._modules)}"
            setattr(self, name, item.eval())
        else:
            name = f"parameter{len(self._parameters)}"
            setattr(self, name, nn.Parameter(item))
        return name


def _chosen(fitting: Sequence[int], count: int, at: int) -> Sequence[tuple[int, ...]]:
    """Returns which tensors to try, one choice after the other."""
    found = list(itertools.permutations(fitting, count)) or [(number,) * count for number in fitting]
    return [*found[at % len(found) :], *found[: at % len(found)]] if found else []


class RandomModel(nn.Module):
    """A stem, steps, and a classifier of what is left; an embedding of integers if there are any."""

    def __init__(self, steps: Sequence[Step], example: ExampleInput, joined: bool) -> None:
        super().__init__()
        numbers = example.args[1:]
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.embedding = nn.Embedding(7, 16) if numbers else None
        with torch.no_grad():
            self.steps = Steps(steps, *self._start(*example.args))
            vectors = self._vectors(*example.args)
        self.joined = joined
        sizes = [vector.shape[1] for vector in vectors]
        self.heads = nn.ModuleList(nn.Linear(size, 5) for size in ([sum(sizes)] if joined else sizes))

    def _start(self, image: Tensor, *numbers: Tensor) -> list[Tensor]:
        return [self.stem(image), *(self.embedding(number) for number in numbers if self.embedding)]

    def _vectors(self, *inputs: Tensor) -> list[Tensor]:
        return [y.mean((2, 3)) if y.ndim == 4 else y.mean(1) for y in self.steps(*self._start(*inputs))]

    def forward(self, image: Tensor, numbers: Tensor | None = None) -> Tensor:
        vectors = self._vectors(image) if numbers is None else self._vectors(image, numbers)
        vectors = [torch.cat(vectors, 1)] if self.joined else vectors
        return sum(head(vector) for head, vector in zip(self.heads, vectors, strict=True))


KINDS: dict[str, tuple[int, int | None, Kind]] = {}
"""Name to how many tensors, of which rank if only of one, and the kind."""


def kind(count: int = 1, rank: int | None = None) -> Callable[[Kind], Kind]:
    def register(function: Kind) -> Kind:
        KINDS[function.__name__.strip("_")] = count, rank, function
        return function

    return register


IMAGE, TOKENS = 4, 3


def fit(condition: bool) -> None:
    if not condition:
        raise UnfitError


def channel_dim(shape: Sequence[int]) -> int:
    return 1 if len(shape) == IMAGE else 2


def width(step: Step) -> int:
    return WIDTHS[step.number % len(WIDTHS)]


def per_channel(shape: Sequence[int], vector: Tensor) -> Tensor:
    return vector[:, None, None] if len(shape) == IMAGE else vector


def apply(m: Steps, item: nn.Module) -> Run:
    name = m.own(item)
    return lambda m, y: [getattr(m, name)(y)]


# Of one tensor of any kind.


@kind()
def activation(m: Steps, step: Step, shape: Any) -> Run:
    at = channel_dim(shape)
    functions: list[Callable[[Tensor], Tensor]] = [
        F.relu,
        F.gelu,
        F.hardswish,
        F.silu,
        lambda y: F.relu(y, inplace=True),
        lambda y: y.softmax(at),
        lambda y: y * y.sigmoid(),
        lambda y: y / (1 + y.norm(dim=at, keepdim=True)),
        lambda y: torch.where(y > 0, y, 0.1 * y),
        lambda y: (y - y.mean(at, True)) / (y.std(at, keepdim=True) + 1),
        lambda y: y.clone().mul_(0.5).add_(0.1),
    ]
    function = functions[step.number % len(functions)]
    return lambda m, y: [function(y)]


@kind()
def prelu(m: Steps, step: Step, shape: Any) -> Run:
    fit(len(shape) == IMAGE)
    return apply(m, nn.PReLU(shape[1] if step.baked else 1))


@kind()
def gated(m: Steps, step: Step, shape: Any) -> Run:
    at = channel_dim(shape)
    fit(shape[at] % 2 == 0)
    return lambda m, y: [F.glu(y, at)]


@kind()
def scaled(m: Steps, step: Step, shape: Any) -> Run:
    name = m.own(per_channel(shape, torch.rand(shape[channel_dim(shape)]) + 0.5))
    return lambda m, y: [y + getattr(m, name) if step.baked else getattr(m, name) * y]


@kind()
def positional(m: Steps, step: Step, shape: Any) -> Run:
    name = m.own(torch.randn(1, *shape[1:]))
    return lambda m, y: [y + getattr(m, name)]


@kind()
def narrowed(m: Steps, step: Step, shape: Any) -> Run:
    at, size = channel_dim(shape), shape[channel_dim(shape)]
    fit(size >= 8)
    start = (0, 4, size // 4)[step.number % 3]
    return lambda m, y: [y.narrow(at, start, size // 2)]


@kind()
def sliced(m: Steps, step: Step, shape: Any) -> Run:
    size = shape[channel_dim(shape)]
    fit(size >= 8)
    part = (slice(4, None), slice(None, -4), slice(size // 4, size // 2), slice(-4, None))[step.number % 4]
    return lambda m, y: [y[:, part] if y.ndim == IMAGE else y[..., part]]


@kind()
def parted(m: Steps, step: Step, shape: Any) -> Run:
    """Parts, of which all go on, or the first and the last one."""
    at, size = channel_dim(shape), shape[channel_dim(shape)]
    fit(size % 4 == 0 and size >= 8)
    variants: list[Callable[[Tensor], Sequence[Tensor]]] = [
        lambda y: y.chunk(2, at),
        lambda y: y.split([size // 4, size - size // 4], at),
        lambda y: y.split(size // 2 if step.baked else y.shape[at] // 2, at),
        lambda y: torch.stack(y.chunk(2, at)).unbind(0),
        lambda y: y.chunk(4, dim=at)[:: 1 if step.baked else 3],
        lambda y: torch.tensor_split(y, 2, at),
    ]
    function = variants[step.number % len(variants)]
    return lambda m, y: function(y)


@kind()
def stacked(m: Steps, step: Step, shape: Any) -> Run:
    at = step.number % (len(shape) + 1)
    fit(at > 0)
    if step.baked:
        return lambda m, y: [torch.stack([y, -2 * y.relu()], at).sum(at)]
    return lambda m, y: [sum(torch.stack([y, -2 * y.relu()], at).unbind(at))]


@kind()
def padded(m: Steps, step: Step, shape: Any) -> Run:
    amounts = ((0, 8), (4, 4), (8, 0))[step.number % 3]
    fit(shape[channel_dim(shape)] <= 32)
    return lambda m, y: [F.pad(y, (0, 0, 0, 0, *amounts) if y.ndim == IMAGE else amounts)]


@kind()
def repeated(m: Steps, step: Step, shape: Any) -> Run:
    at = channel_dim(shape)
    fit(shape[at] <= 32)
    times = [2 if number == at else 1 for number in range(len(shape))]
    variants: list[Callable[[Tensor], Tensor]] = [
        lambda y: y.repeat_interleave(2, at),
        lambda y: y.repeat(*times),
        lambda y: torch.cat([y, -y], at),
    ]
    function = variants[step.number % len(variants)]
    return lambda m, y: [function(y)]


@kind()
def shuffled(m: Steps, step: Step, shape: Any) -> Run:
    groups, channels = (2, 4)[step.number % 2], shape[channel_dim(shape)]
    fit(channels % groups == 0 and channels > groups)
    rest = shape[2:] if len(shape) == IMAGE else ()

    def run(m: Steps, y: Tensor) -> list[Tensor]:
        if len(shape) == IMAGE:
            count = channels if step.baked else y.shape[1]
            return [y.view(y.shape[0], groups, count // groups, *rest).transpose(1, 2).reshape(-1, count, *rest)]
        count = channels if step.baked else y.shape[2]
        cut = y.reshape(y.shape[0], y.shape[1], groups, count // groups).transpose(2, 3)
        return [cut.flatten(2) if step.number > 5 else cut.reshape(y.shape[0], -1, count)]

    return run


@kind()
def rolled(m: Steps, step: Step, shape: Any) -> Run:
    if step.number % 4 == 3:
        return lambda m, y: [y.flip(-1 if y.ndim == IMAGE else 1)]
    return lambda m, y: [y.roll((-1, 1), (2, 3)) if y.ndim == IMAGE else y.roll(1, 1)]


@kind()
def excited(m: Steps, step: Step, shape: Any) -> Run:
    """Squeeze and excite."""
    channels, hidden = shape[channel_dim(shape)], width(step)
    one, two = m.own(nn.Linear(channels, hidden)), m.own(nn.Linear(hidden, channels))

    def run(m: Steps, y: Tensor) -> list[Tensor]:
        mean = y.mean((2, 3)) if y.ndim == IMAGE else y.mean(1)
        gate = getattr(m, two)(getattr(m, one)(mean).relu()).sigmoid()
        if y.ndim == TOKENS:
            return [y * gate.unsqueeze(1)]
        return [y * (gate.view(y.shape[0], channels, 1, 1) if step.baked else gate[:, :, None, None])]

    return run


@kind()
def tied(m: Steps, step: Step, shape: Any) -> Run:
    """A layer that runs twice, or whose weight also belongs to another."""
    channels = shape[channel_dim(shape)]
    one, two = (
        (nn.Conv2d(channels, channels, 3, padding=1) if len(shape) == IMAGE else nn.Linear(channels, channels))
        for _ in range(2)
    )
    first = m.own(one)
    second = first
    if step.baked:
        two.weight = one.weight
        second = m.own(two)
    return lambda m, y: [getattr(m, second)(getattr(m, first)(y).relu())]


@kind()
def residual(m: Steps, step: Step, shape: Any) -> Run:
    """Other steps around which the input is added, with a projection if they change the channels."""
    body = Steps(step.inner, torch.zeros(shape))
    with torch.no_grad():
        *_, result = body(torch.zeros(shape))
    at = channel_dim(shape)
    fit(len(result.shape) == len(shape))
    fit(all(one == two for number, (one, two) in enumerate(zip(shape, result.shape, strict=True)) if number != at))
    projection: nn.Module = nn.Identity()
    if step.number % 3 == 0 or result.shape[at] != shape[at]:
        project = nn.Linear if at == 2 else lambda one, two: nn.Conv2d(one, two, 1)
        projection = project(result.shape[at], shape[at])
    name, last = m.own(body), m.own(projection)

    def run(m: Steps, y: Tensor) -> list[Tensor]:
        parts = getattr(m, name)(y)
        result = y + getattr(m, last)(parts[-1])
        # Whatever else the steps left joins as one number for each item.
        return [
            result
            if len(parts) == 1
            else result * sum(part.flatten(1).mean(1).tanh() for part in parts[:-1]).view(-1, *[1] * (y.ndim - 1))
        ]

    return run


# Of images.


@kind(rank=IMAGE)
def convolution(m: Steps, step: Step, shape: Any) -> Run:
    channels = shape[1]
    size, stride = (3, 1, 5)[step.number % 3], 2 if step.number % 4 == 1 and shape[2] > 3 else 1
    return apply(m, nn.Conv2d(channels, width(step), size, stride, size // 2, bias=step.baked))


@kind(rank=IMAGE)
def grouped_convolution(m: Steps, step: Step, shape: Any) -> Run:
    channels = shape[1]
    groups = (2, 4, channels)[step.number % 3]
    fit(channels % groups == 0)
    out = channels * (2 if step.number % 2 and channels <= 24 else 1)
    return apply(m, nn.Conv2d(channels, out, 3, 1, 1, groups=groups, bias=step.baked))


@kind(rank=IMAGE)
def transposed_convolution(m: Steps, step: Step, shape: Any) -> Run:
    channels, groups = shape[1], (1, 2, 4)[step.number % 3]
    fit(channels % groups == 0 and shape[2] <= 8)
    return apply(m, nn.ConvTranspose2d(channels, width(step), 2, 2, groups=groups))


@kind(rank=IMAGE)
def norm(m: Steps, step: Step, shape: Any) -> Run:
    channels, kinds = shape[1], (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)
    if step.number == 11:
        return apply(m, nn.LayerNorm(shape[1:]))
    made = kinds[step.number % 3]
    if made is not nn.GroupNorm:
        return apply(m, made(channels, affine=not step.baked))
    groups = (1, 2, 4)[step.number % 4 % 3]
    fit(channels % groups == 0)
    return apply(m, nn.GroupNorm(groups, channels, affine=not step.baked))


@kind(rank=IMAGE)
def channels_last(m: Steps, step: Step, shape: Any) -> Run:
    name = m.own((nn.LayerNorm, nn.RMSNorm)[step.number % 2](shape[1]))
    if step.baked:
        return lambda m, y: [getattr(m, name)(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)]
    return lambda m, y: [getattr(m, name)(y.movedim(1, -1)).movedim(-1, 1).contiguous()]


@kind(rank=IMAGE)
def pixels(m: Steps, step: Step, shape: Any) -> Run:
    if step.number % 2:
        fit(shape[1] % 4 == 0 and shape[2] <= 8 and shape[1] > 4)
        return lambda m, y: [F.pixel_shuffle(y, 2)]
    fit(shape[2] % 2 == 0 and shape[1] <= 16)
    return lambda m, y: [F.pixel_unshuffle(y, 2)]


@kind(rank=IMAGE)
def resized(m: Steps, step: Step, shape: Any) -> Run:
    fit(shape[2] >= 4)
    size = shape[2] // 2
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda y: F.max_pool2d(y, 2),
        lambda y: F.avg_pool2d(y, 3, 2, 1),
        lambda y: F.adaptive_avg_pool2d(y, size),
        lambda y: F.interpolate(y, (size, size), mode="bilinear"),
        lambda y: y[:, :, ::2, 1::2],
        lambda y: torch.cat([y[..., ::2, ::2], y[..., 1::2, 1::2]], 1),
    ]
    function = functions[step.number % len(functions)]
    return lambda m, y: [function(y)]


@kind(rank=IMAGE)
def to_tokens(m: Steps, step: Step, shape: Any) -> Run:
    channels, positions = shape[1], shape[2] * shape[3]
    if step.baked:
        return lambda m, y: [y.reshape(-1, channels, positions).permute(0, 2, 1)]
    if step.number % 2:
        return lambda m, y: [y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, y.shape[1])]
    return lambda m, y: [y.flatten(2).transpose(1, 2)]


@kind(rank=IMAGE)
def in_windows(m: Steps, step: Step, shape: Any) -> Run:
    """A layer on windows of 2x2."""
    _, channels, height, across = shape
    fit(height % 2 == 0 and across % 2 == 0)
    name = m.own(nn.Linear(channels, channels))

    def run(m: Steps, y: Tensor) -> list[Tensor]:
        batch, count = y.shape[0], channels if step.baked else y.shape[1]
        y = y.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, across // 2, 2, count)
        y = getattr(m, name)(y.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, count))
        y = y.view(batch, height // 2, across // 2, 2, 2, channels if step.baked else -1)
        return [y.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, across)]

    return run


# Of tokens.


@kind(rank=TOKENS)
def linear(m: Steps, step: Step, shape: Any) -> Run:
    return apply(m, nn.Linear(shape[2], width(step), bias=step.baked))


@kind(rank=TOKENS)
def perceptron(m: Steps, step: Step, shape: Any) -> Run:
    return apply(m, nn.Sequential(nn.Linear(shape[2], width(step)), nn.GELU(), nn.Linear(width(step), shape[2])))


@kind(rank=TOKENS)
def token_norm(m: Steps, step: Step, shape: Any) -> Run:
    if step.number % 3 == 2:
        name = m.own(nn.BatchNorm1d(shape[2]))
        return lambda m, y: [getattr(m, name)(y.transpose(1, 2)).transpose(1, 2)]
    return apply(m, (nn.LayerNorm, nn.RMSNorm)[step.number % 3](shape[2], elementwise_affine=not step.baked))


@kind(rank=TOKENS)
def mixed_positions(m: Steps, step: Step, shape: Any) -> Run:
    name = m.own(nn.Linear(shape[1], shape[1]) if step.baked else nn.Conv1d(shape[2], width(step), 1))
    return lambda m, y: [getattr(m, name)(y.transpose(1, 2)).mT]


@kind(rank=TOKENS)
def product(m: Steps, step: Step, shape: Any) -> Run:
    """Products with a parameter."""
    name = m.own(torch.randn(shape[2], width(step)) / 4)
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        torch.matmul,
        lambda y, matrix: torch.einsum("bnc,cd->bnd", y, matrix),
        lambda y, matrix: F.linear(y, matrix.t()),
        lambda y, matrix: torch.einsum("...c,cd", y, matrix),
    ]
    function = functions[step.number % len(functions)]
    return lambda m, y: [function(y, getattr(m, name))]


@kind(rank=TOKENS)
def class_token(m: Steps, step: Step, shape: Any) -> Run:
    name = m.own(torch.randn(1, 1, shape[2]))
    if step.baked:
        return lambda m, y: [torch.cat([getattr(m, name).expand(y.shape[0], 1, shape[2]), y], 1)]
    if step.number % 2:
        return lambda m, y: [torch.cat([getattr(m, name).repeat(y.shape[0], 1, 1), y], 1)]
    return lambda m, y: [torch.cat([getattr(m, name).expand(y.shape[0], -1, -1), y], 1)]


@kind(rank=TOKENS)
def taken_token(m: Steps, step: Step, shape: Any) -> Run:
    fit(shape[1] > 1)
    return lambda m, y: [y[:, 1:] * y[:, 0].unsqueeze(1)] if step.baked else [y[:, 0][:, None] + y.amax(1, True)]


@kind(rank=TOKENS)
def looked_up(m: Steps, step: Step, shape: Any) -> Run:
    name = m.own(nn.Embedding(shape[1], shape[2]))
    indices = torch.arange(shape[1])
    if step.baked:
        return lambda m, y: [y + getattr(m, name)(indices)]
    return lambda m, y: [y + getattr(m, name).weight[indices.flip(0)]]


@kind(rank=TOKENS)
def to_image(m: Steps, step: Step, shape: Any) -> Run:
    side = int(shape[1] ** 0.5)
    fit(side * side == shape[1])
    if step.baked:
        return lambda m, y: [y.transpose(1, 2).reshape(-1, shape[2], side, side)]
    if step.number % 2:
        return lambda m, y: [y.unflatten(1, (side, side)).permute(0, 3, 1, 2)]
    return lambda m, y: [y.mT.reshape(y.shape[0], y.shape[2], side, side)]


@kind(rank=TOKENS)
def built_in_attention(m: Steps, step: Step, shape: Any) -> Run:
    fit(shape[2] % 4 == 0)
    name = m.own(nn.MultiheadAttention(shape[2], (2, 4)[step.number % 2], batch_first=True))
    return lambda m, y: [getattr(m, name)(y, y, y, need_weights=step.baked)[0]]


@kind(rank=TOKENS)
def attention(m: Steps, step: Step, shape: Any) -> Run:
    """Queries, keys and values by different views, and their products by different functions."""
    heads, shared = (2, 4)[step.number % 2], 2 if step.number % 4 >= 2 else 1
    pairs = heads // shared  # of keys and values
    sizes = [heads * HEAD_DIM, pairs * HEAD_DIM, pairs * HEAD_DIM]
    packed = m.own(nn.Linear(shape[2], sum(sizes)))
    last = m.own(nn.Linear(sizes[0], shape[2]))
    attend = ATTENTIONS[(step.number // 2) % len(ATTENTIONS)]

    def run(m: Steps, x: Tensor) -> list[Tensor]:
        y = getattr(m, packed)(x)
        batch, length, _ = x.shape
        if shared == 1 and step.at % 2:
            count = heads if step.baked else y.shape[2] // (3 * HEAD_DIM)
            q, k, v = y.reshape(batch, length, 3, count, HEAD_DIM).permute(2, 0, 3, 1, 4)
        else:
            parts = y.chunk(3, -1) if shared == 1 else y.split(sizes, -1)
            counts = (heads, pairs, pairs) if step.baked else (-1, -1, -1)
            q, k, v = (
                part.view(batch, length, count, HEAD_DIM).transpose(1, 2)
                for part, count in zip(parts, counts, strict=True)
            )
        if shared > 1 and step.at % 2:
            k, v = (part.repeat_interleave(shared, 1) for part in (k, v))
        elif shared > 1:
            k, v = (
                part[:, :, None].expand(-1, -1, shared, -1, -1).reshape(batch, -1, length, HEAD_DIM) for part in (k, v)
            )
        y = attend(q, k, v).transpose(1, 2)
        return [getattr(m, last)(y.reshape(batch, length, sizes[0]) if step.baked else y.flatten(2))]

    return run


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * HEAD_DIM**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


def _by_letters(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1), v)


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads in the dimension of the batch."""
    batch, length, positions = q.shape[0], q.shape[-2], k.shape[-2]
    q = q.reshape(-1, length, HEAD_DIM)
    k, v = (part.reshape(-1, positions, HEAD_DIM) for part in (k, v))
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).view(batch, -1, length, HEAD_DIM)


ATTENTIONS = (_by_products, F.scaled_dot_product_attention, _by_letters, _fused)


@kind(rank=TOKENS)
def biased_attention(m: Steps, step: Step, shape: Any) -> Run:
    """Heads by packings that are seldom, and parameters for each head."""
    heads, length = (2, 4)[step.number % 2], shape[1]
    packed, last = m.own(nn.Linear(shape[2], heads * 3 * HEAD_DIM)), m.own(nn.Linear(heads * HEAD_DIM, shape[2]))
    scale, table = m.own(torch.rand(heads, 1, 1)), m.own(torch.randn(2 * length - 1, heads))
    distance = torch.arange(length)[:, None] - torch.arange(length) + length - 1
    angle = torch.rand(length, HEAD_DIM // 2).repeat(1, 2)
    count = heads if step.baked else -1

    def rotated(y: Tensor) -> Tensor:
        one, two = y.chunk(2, -1)
        return y * angle.cos() + torch.cat([-two, one], -1) * angle.sin()

    def run(m: Steps, x: Tensor) -> list[Tensor]:
        y, batch = getattr(m, packed)(x), x.shape[0]
        if step.number % 3 == 0:
            q, k, v = y.view(batch, length, count, 3 * HEAD_DIM).transpose(1, 2).chunk(3, -1)
        elif step.number % 3 == 1:
            q, k, v = y.view(batch, length, count, 3, HEAD_DIM).permute(3, 0, 2, 1, 4).unbind()
        else:
            q, k, v = y.view(batch, length, 3, count, HEAD_DIM).transpose(1, 3).unbind(2)
        if step.at % 2:
            q, k = rotated(q), rotated(k)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * getattr(m, scale).exp()
        bias = getattr(m, table)[distance.view(-1)].view(length, length, -1).permute(2, 0, 1)
        scores = (scores + bias.unsqueeze(0)).masked_fill(torch.ones(length, length).triu(1).bool(), -1e4)
        y = (scores.softmax(-1) @ v).transpose(1, 2)
        return [getattr(m, last)(y.reshape(batch, length, -1))]

    return run


@kind(rank=IMAGE)
def image_attention(m: Steps, step: Step, shape: Any) -> Run:
    """Positions last, or mixing the channels of a head."""
    _, channels, height, across = shape
    heads = (2, 4)[step.number % 2]
    packed, last = m.own(nn.Conv2d(channels, 3 * heads * HEAD_DIM, 1)), m.own(nn.Conv2d(heads * HEAD_DIM, channels, 1))

    def run(m: Steps, y: Tensor) -> list[Tensor]:
        parts = getattr(m, packed)(y).chunk(3, 1)
        count = heads if step.baked else -1
        q, k, v = (part.reshape(y.shape[0], count, HEAD_DIM, height * across) for part in parts)
        if step.number % 3 == 0:
            mixed = (q @ k.mT).softmax(-1) @ v
        elif step.number % 3 == 1:
            mixed = v @ (q.mT @ k).softmax(-1).mT
        else:
            mixed = torch.einsum("bhdn,bhde->bhen", q.softmax(-2), torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v))
        return [getattr(m, last)(mixed.reshape(y.shape[0], -1, height, across))]

    return run


@kind(rank=TOKENS)
def encoder_layer(m: Steps, step: Step, shape: Any) -> Run:
    fit(shape[2] % 4 == 0)
    return apply(
        m,
        nn.TransformerEncoderLayer(
            shape[2], (2, 4)[step.number % 2], width(step), batch_first=True, norm_first=step.baked
        ),
    )


@kind()
def by_weights(m: Steps, step: Step, shape: Any) -> Run:
    """Weights that the code prepares."""
    at = channel_dim(shape)
    channels, out = shape[at], width(step)
    one, two, scale = (
        m.own(torch.randn(out, channels) / 4),
        m.own(torch.randn(out, channels) / 4),
        m.own(torch.rand(out)),
    )
    variants: list[Callable[[Tensor, Tensor, Tensor], Tensor]] = [
        lambda one, two, scale: torch.cat([one, two]),
        lambda one, two, scale: one * scale[:, None],
        lambda one, two, scale: F.normalize(one, dim=1),
        lambda one, two, scale: one[: out // 2] + two[out // 2 :],
        lambda one, two, scale: torch.stack([one, two]).mean(0),
        lambda one, two, scale: (one.view(-1, channels // 4, 4) + 1).flatten(1),
        lambda one, two, scale: torch.cat([one.chunk(2)[0], two.chunk(2)[1]]),
        lambda one, two, scale: torch.diag_embed(scale) @ one,
    ]
    make_weight = variants[step.number % len(variants)]
    fit(channels % 4 == 0)

    def run(m: Steps, y: Tensor) -> list[Tensor]:
        weight = make_weight(*(getattr(m, name) for name in (one, two, scale)))
        return [F.conv2d(y, weight[:, :, None, None]) if y.ndim == IMAGE else F.linear(y, weight)]

    return run


@kind()
def created(m: Steps, step: Step, shape: Any) -> Run:
    """Tensors that the code makes."""
    at, rest = channel_dim(shape), shape[2:]
    fit(shape[at] <= 32)
    variants: list[Callable[[Tensor], Tensor]] = [
        lambda y: torch.cat([y, torch.zeros_like(y)], at),
        lambda y: torch.cat([y, torch.zeros(y.shape)], at),
        lambda y: torch.cat([y, y.new_ones(y.shape[0], shape[1], *rest)], at),
        lambda y: torch.cat([y, torch.full((y.shape[0], *shape[1:]), 0.5)], at),
        lambda y: torch.empty_like(y).copy_(y * 2),
        lambda y: y + torch.zeros(shape[1:]),
        lambda y: torch.zeros_like(y).add_(y, alpha=2),
        lambda y: torch.cat([y, torch.zeros(y.shape[0], 8, *rest) if at == 1 else y.new_zeros(*y.shape[:2], 8)], at),
    ]
    function = variants[step.number % len(variants)]
    return lambda m, y: [function(y)]


@kind()
def ordered(m: Steps, step: Step, shape: Any) -> Run:
    """What depends on the order of the channels, or has no rule."""
    at, size = channel_dim(shape), shape[channel_dim(shape)]
    variants: list[Callable[[Tensor], Tensor]] = [
        lambda y: y.cumsum(at) / 4,
        lambda y: y.flip(at),
        lambda y: y.roll(1, at),
        lambda y: y * y.argmax(at, keepdim=True).float(),
        lambda y: y + y.max(at, keepdim=True).values,
        lambda y: y * y.max(at, keepdim=True)[1].float(),
        lambda y: y.sort(at).values,
        lambda y: y.index_select(at, torch.arange(size).flip(0)),
        lambda y: y.diff(dim=at, prepend=y.narrow(at, 0, 1)),
        lambda y: y.topk(size // 2, at).values,
        lambda y: y.logcumsumexp(at),
        lambda y: y[:, ::2] if at == 1 else y[..., ::2],
    ]
    function = variants[step.number % len(variants)]
    return lambda m, y: [function(y)]


@kind(rank=IMAGE)
def pixels_by_hand(m: Steps, step: Step, shape: Any) -> Run:
    _, channels, height, across = shape
    fit(height % 2 == 0 and across % 2 == 0 and channels <= 16)
    order = ((0, 1, 3, 5, 2, 4), (0, 3, 5, 1, 2, 4))[step.number % 2]
    if step.number % 3 == 2:
        return lambda m, y: [F.unfold(y, 2, stride=2).unflatten(2, (height // 2, across // 2))]
    count = 4 * channels if step.baked else -1

    def run(m: Steps, y: Tensor) -> list[Tensor]:
        y = y.reshape(y.shape[0], y.shape[1], height // 2, 2, across // 2, 2)
        return [y.permute(order).reshape(y.shape[0], count, height // 2, across // 2)]

    return run


@kind(rank=IMAGE)
def ghost(m: Steps, step: Step, shape: Any) -> Run:
    """The first channels of a concat."""
    channels = shape[1]
    name, size = m.own(nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)), (channels * 3) // 2
    return lambda m, y: [torch.cat([y, getattr(m, name)(y)], 1)[:, :size]]


# Of two tensors.


@kind(2)
def joined_items(m: Steps, step: Step, one: Any, two: Any) -> Run:
    at = channel_dim(one)
    fit((len(one), *one[:at], *one[at + 1 :]) == (len(two), *two[:at], *two[at + 1 :]))
    same: nn.Module = nn.Identity()
    if one != two:
        same = nn.Linear(two[at], one[at]) if len(one) == TOKENS else nn.Conv2d(two[at], one[at], 1)
    name = m.own(same)
    functions = (torch.add, torch.mul, torch.sub, torch.maximum, lambda x, y: torch.where(x > 0, x, y))
    function = functions[step.number % len(functions)]
    return lambda m, x, y: [function(x, getattr(m, name)(y))]


@kind(2)
def concatenated(m: Steps, step: Step, one: Any, two: Any) -> Run:
    fit(len(one) == len(two))
    dims = [d for d in range(1, len(one)) if (*one[:d], *one[d + 1 :]) == (*two[:d], *two[d + 1 :])]
    fit(bool(dims))
    at = dims[step.number % len(dims)]
    fit(one[at] + two[at] <= 64)
    return lambda m, x, y: [torch.cat([x, y], at)]


@kind(2)
def modulated(m: Steps, step: Step, one: Any, two: Any) -> Run:
    """Each channel of the one by the mean of a channel of the other."""
    fit(one[channel_dim(one)] == two[channel_dim(two)])

    def run(m: Steps, x: Tensor, y: Tensor) -> list[Tensor]:
        gate = y.mean((2, 3)) if y.ndim == IMAGE else y.mean(1)
        return [x * (gate[:, :, None, None] if x.ndim == IMAGE else gate.unsqueeze(1)).tanh()]

    return run


@kind(2, TOKENS)
def cross_attention(m: Steps, step: Step, one: Any, two: Any) -> Run:
    query, both = m.own(nn.Linear(one[2], 16)), m.own(nn.Linear(two[2], 32))
    attend = ATTENTIONS[step.number % len(ATTENTIONS)]

    def run(m: Steps, x: Tensor, y: Tensor) -> list[Tensor]:
        q = getattr(m, query)(x).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
        k, v = getattr(m, both)(y).view(y.shape[0], y.shape[1], 2, -1, HEAD_DIM).permute(2, 0, 3, 1, 4).unbind(0)
        return [attend(q, k, v).transpose(1, 2).flatten(2)]

    return run


def _steps(inner: st.SearchStrategy[tuple[Step, ...]]) -> st.SearchStrategy[Step]:
    return st.sampled_from(sorted(KINDS)).flatmap(
        lambda name: st.builds(
            Step,
            st.just(name),
            st.integers(0, 5),
            st.integers(0, 11),
            st.booleans(),
            st.booleans(),
            inner if name == "residual" else st.just(()),
        )
    )


def _lists(inner: st.SearchStrategy[tuple[Step, ...]], low: int, high: int) -> st.SearchStrategy[tuple[Step, ...]]:
    return st.lists(_steps(inner), min_size=low, max_size=high).map(tuple)


PROGRAMS = _lists(_lists(_lists(st.just(()), 1, 2), 1, 4), 3, 10)


def make(steps: Sequence[Step], numbers: bool, joined: bool) -> tuple[nn.Module, ExampleInput]:
    torch.manual_seed(0)
    example = ExampleInput(inputs(2, numbers))
    return randomize_norms(RandomModel(steps, example, joined)).eval(), example


def inputs(batch: int, numbers: bool) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 8, 8), *([torch.randint(0, 7, (batch, 5))] if numbers else []))


FINE = ElasticityConfig(width=WidthConfig(width_step=1, min_width=1), depth=DepthConfig(mode="independent"))
"""Every width, and every block by itself."""


def check(steps: Sequence[Step], numbers: bool, joined: bool, fine: bool) -> None:
    """Makes a super-network of the steps and compares all that is known of some subnets."""
    model, example = make(steps, numbers, joined)
    others = [ExampleInput(inputs(batch, numbers)) for batch in (1, 3)]
    with torch.no_grad():
        expected = [outputs(model, other) for other in others]
    sizes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    try:
        supernet = Supernet(model, example, FINE if fine else None)
    except ModelError as error:
        assert str(error).startswith("Nothing of RandomModel is elastic")  # noqa: PT017 - both ways are right
        return
    assert not supernet.refused
    for other, reference in zip(others, expected, strict=True):
        with torch.no_grad():
            assert_equal(outputs(model, other), reference)
    for subnet in some_subnets(supernet, 2):
        check_subnet(supernet, subnet, others, sizes)
    supernet.reorganize()  # whatever is paired wrongly does not compute the same when channels change places
    for other, reference in zip(others, expected, strict=True):
        with torch.no_grad():
            assert_close(outputs(model, other), reference, 1e-4)


def used_parameters(model: nn.Module, example: ExampleInput) -> list[Tensor]:
    """Returns the parameters that the output depends on."""
    parameters = list(model.parameters())
    with torch.autograd.graph.allow_mutation_on_saved_tensors():  # not every random architecture could be trained
        total = sum(output.sum() for output in outputs(model, example))
        assert isinstance(total, Tensor)
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [one for one, gradient in zip(parameters, gradients, strict=True) if gradient is not None]


def is_countable(supernet: Supernet, subnet: Subnet) -> bool:
    """Whether PyTorch counts all products: not those of attention on a CPU, and not those over a single item."""
    for op in supernet.graph.ops:
        if op.kind == "einsum" and any(1 in supernet.shape(value, subnet) for value in op.tensors):
            return False
        if op.kind == "scaled_dot_product_attention":
            return False
    return not any(isinstance(module, nn.MultiheadAttention) for module in supernet.model.modules())


def check_subnet(
    supernet: Supernet, subnet: Subnet, others: Sequence[ExampleInput], sizes: dict[str, tuple[int, ...]]
) -> None:
    small = extract(supernet, subnet)
    for other in others:
        with supernet.activate(subnet), torch.no_grad():
            assert_close(outputs(small, other), outputs(supernet.model, other))
    cost = supernet.cost(subnet)
    if is_countable(supernet, subnet):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            outputs(small, supernet.example)
        assert cost.macs == counter.get_total_flops() // 2
    if isinstance(small, torch.fx.GraphModule):
        return
    assert cost.parameters == sum(parameter.numel() for parameter in used_parameters(small, others[0]))
    values = {value.name: value.index for value in supernet.graph.values if value.source == "parameter"}
    for name, parameter in small.named_parameters():
        assert name not in values or tuple(parameter.shape) == supernet.shape(values[name], subnet)
    for name, module in small.named_modules():
        choice = f"width:{name}"
        if isinstance(module, (nn.Linear, nn.Conv2d)) and choice in subnet and f"{choice}#2" not in subnet:
            full = sizes[f"{name}.weight"][0]
            if supernet.space.maximum[choice] == full:
                assert module.weight.shape[0] == subnet[choice]


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(PROGRAMS, st.booleans(), st.booleans(), st.booleans())
def test_random_architectures(steps: tuple[Step, ...], numbers: bool, joined: bool, fine: bool) -> None:
    check(steps, numbers, joined, fine)


@pytest.mark.slow
@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
@given(PROGRAMS, st.booleans(), st.booleans(), st.booleans())
def test_many_random_architectures(steps: tuple[Step, ...], numbers: bool, joined: bool, fine: bool) -> None:
    check(steps, numbers, joined, fine)
