"""Axis rules: what each operation lets pass, and what each use freezes, with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.graph import AXIS_RULES, Layout, Op, Propagation
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_close, other_input, outputs, randomize_norms

Body = Callable[[Any, Tensor], Tensor]


class Between(nn.Module):
    """Convolutions of 16 and 24 channels, what is tested, and a classifier on channels in dimension 1."""

    def __init__(self, body: Body, features: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 24, 1)
        self.vector, self.number = nn.Parameter(torch.rand(16, 1, 1)), nn.Parameter(torch.rand(1))
        self.norm, self.bare_norm = nn.BatchNorm2d(16), nn.InstanceNorm2d(16)
        self.instance_norm = nn.InstanceNorm2d(16, affine=True, track_running_stats=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.packed = nn.Linear(16, 48)
        self.matrix, self.bias = nn.Parameter(torch.rand(16, 12)), nn.Parameter(torch.rand(12))
        self.gru, self.lstm = nn.GRUCell(16, 12), nn.LSTMCell(16, 12, bias=False)
        self.pairs = nn.Parameter(torch.rand(12, 16, 24))
        self.table, self.embedding = nn.Parameter(torch.rand(5, 16)), nn.Embedding(2, 16)
        self.up, self.grouped_up = nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.ConvTranspose2d(16, 8, 2, 2, groups=4)
        self.unregistered = [torch.ones(16, 1, 1)]
        self.body = body
        self.classifier = nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self, x)
        return self.classifier(y.mean(tuple(range(2, y.ndim))) if y.ndim > 2 else y)


class Square(torch.autograd.Function):
    """A function of the user's own, which NNCF sees only from inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


def make(body: Body, features: int) -> tuple[nn.Module, ExampleInput]:
    torch.manual_seed(0)
    return randomize_norms(Between(body, features)).eval(), ExampleInput((torch.randn(2, 3, 8, 8),))


def batch_norm(m: Any, y: Tensor) -> Tensor:
    return F.batch_norm(y, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias)


def standardized(m: Any, x: Tensor) -> Tensor:
    weight = m.one.weight - m.one.weight.mean((1, 2, 3), keepdim=True)
    return F.conv2d(x, weight=weight, bias=m.one.bias, padding=1)


def view_by_shapes(m: Any, x: Tensor) -> Tensor:
    y = m.one(x)
    return y.view(y.size(0), y.size(1), -1)


def split_list(m: Any, x: Tensor) -> Tensor:
    small, large = m.one(x).split([4, 12], 1)
    return large + small.mean(1, True)


def layer_norm(m: Any, x: Tensor) -> Tensor:
    return F.layer_norm(m.one(x).permute(0, 2, 3, 1), (16,)).permute(0, 3, 1, 2)


def tokens(m: Any, x: Tensor) -> Tensor:
    """Shape ``(batch, 64, 16)``."""
    return m.one(x).flatten(2).transpose(1, 2)


def attention(m: Any, x: Tensor) -> Tensor:
    y = tokens(m, x)
    return m.attention(y, y, y)[0].transpose(1, 2)


def heads(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of four heads of four channels, as one linear layer makes them."""
    y = m.packed(tokens(m, x))
    b, n, _ = y.shape
    q, k, v = y.reshape(b, n, 3, 4, 4).permute(2, 0, 3, 1, 4)
    return q, k, v


def scores_by_hand(m: Any, x: Tensor) -> Tensor:
    q, k, v = heads(m, x)
    y = ((q * 0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
    return y.transpose(1, 2).reshape(y.shape[0], 64, 16).transpose(1, 2)


def fused_heads(m: Any, x: Tensor) -> Tensor:
    """Heads in the dimension of the batch: the size that the code passes is a product of both."""
    q, k, v = (y.reshape(-1, 64, 4) for y in heads(m, x))
    y = torch.bmm(torch.baddbmm(torch.zeros(1, 1, 1), q, k.mT).softmax(-1), v)
    return y.view(x.shape[0] * 4, 64, 4).view(x.shape[0], 4, 64, 4).transpose(1, 2).flatten(2).mT


def grouped_query(m: Any, x: Tensor) -> Tensor:
    q, k, v = (y.view(*y.shape[:2], -1, 4).transpose(1, 2) for y in m.packed(tokens(m, x)).split([32, 8, 8], -1))
    k, v = (y[:, :, None].expand(-1, 2, 4, 64, 4).reshape(-1, 8, 64, 4) for y in (k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mT


def built_in_groups(m: Any, x: Tensor) -> Tensor:
    q, k, v = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in m.packed(tokens(m, x)).split((32, 8, 8), dim=-1))
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2).mT


def shuffled(m: Any, x: Tensor) -> Tensor:
    y = torch.cat([m.one(x), m.one(x)], 1)
    return y.view(x.shape[0], 2, 16, 8, 8).transpose(1, 2).reshape(x.shape[0], 32, 8, 8)


def windows(m: Any, x: Tensor) -> Tensor:
    y = m.one(x).permute(0, 2, 3, 1).roll((-1, -1), (1, 2))
    y = y.view(y.shape[0], 2, 4, 2, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 16)
    return y.view(x.shape[0], 2, 2, 4, 4, 16).permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], 16, 8, 8)


def table(m: Any, x: Tensor) -> Tensor:
    return m.one(x) + m.table[torch.arange(64).view(8, 8) % 5].permute(2, 0, 1).contiguous()[None]


def by_hand(m: Any, x: Tensor) -> Tensor:
    """Products with a matrix of parameters, with bias."""
    y = m.one(x).mean((2, 3))
    return torch.addmm(m.bias, y, m.matrix)


def channels_last(m: Any, x: Tensor) -> Tensor:
    return F.rms_norm(m.one(x).movedim(1, -1), (16,)).movedim(-1, 1)


def own_weights(m: Any, x: Tensor) -> Tensor:
    """A weight for each input: the groups of the convolution are the batch."""
    y = m.one(x)
    b, c = y.shape[:2]
    weight = m.two.weight.mean() * y.mean((2, 3)).view(b, 1, c, 1, 1) * m.matrix.t()[None, :, :, None, None]
    y = F.conv2d(y.reshape(1, b * c, 8, 8), weight.flatten(0, 1), groups=b)
    return y.view(b, -1, 8, 8)


def assigned(m: Any, x: Tensor) -> Tensor:
    """Positions, and a part of the channels, are assigned to."""
    y = x.new_zeros(x.shape[0], 16, 8, 8)
    y[:, :, ::2] = m.one(x)[..., ::2, :]
    y[..., 0] = 1
    y[:, :, [1, 3]] = 2
    z = torch.cat([y, m.two(x)], 1)
    z[:, :16] = m.one(x)
    return z


def picked_apart(m: Any, x: Tensor) -> Tensor:
    """Picks that are not neighbours: what they pick comes first, even where it would fit between as well."""
    rows = torch.arange(16) % 8
    return m.one(x).permute(1, 2, 0, 3)[:, rows, :, rows].permute(2, 1, 0)


def keywords(m: Any, x: Tensor) -> Tensor:
    """Arguments by name, in another order than that of the signature."""
    y = tokens(m, x)
    scores = torch.bmm(mat2=y.mT, input=y).softmax(-1)
    y = torch.matmul(other=y, input=scores)
    y = F.layer_norm(weight=m.vector.flatten(), input=y, normalized_shape=(16,)).mean(1)
    return torch.addmm(mat2=m.matrix, mat1=y, input=m.bias)


def vectors(m: Any, x: Tensor) -> Tensor:
    """Products with vectors."""
    y, vector = m.one(x).mean((2, 3)), m.vector.flatten()
    one, two = torch.mv(y, vector), torch.inner(y, vector)
    three = torch.dot(y[0], vector) + torch.addmv(vec=vector, input=one, mat=y)
    return torch.outer(one + two + three, vector)


def cells(m: Any, x: Tensor) -> Tensor:
    """Two steps, of which the first makes its own state."""
    first, second = m.one(x).mean(3).unbind(2)[:2]
    return m.gru(second, m.gru(first))


def cells_with_memory(m: Any, x: Tensor) -> Tensor:
    first, second = (m.one(x).mean(3) @ torch.ones(8, 2)).unbind(2)
    state, memory = m.lstm(second, m.lstm(first))
    return state + memory


ELASTIC: dict[str, tuple[Body, int]] = {
    "activations": (lambda m, x: F.leaky_relu(F.hardtanh(torch.sigmoid(m.one(x)))), 16),
    "numbers": (lambda m, x: 1 - (2 * m.one(x) + 1) / 3, 16),
    "vector": (lambda m, x: m.one(x) * m.vector, 16),
    "one number": (lambda m, x: m.one(x) * m.number, 16),
    "broadcast positions": (lambda m, x: m.one(x).mean((2, 3), keepdim=True) + m.one(x), 16),
    "clamp by a tensor": (lambda m, x: torch.clamp(m.one(x), min=m.vector), 16),
    "where": (lambda m, x: torch.where(m.one(x) > 0, m.one(x), -m.one(x)), 16),
    "batch norm": (lambda m, x: batch_norm(m, m.one(x)), 16),
    "group norm": (lambda m, x: F.group_norm(m.one(x), 4), 16),
    "layer norm": (layer_norm, 16),
    "softmax over channels": (lambda m, x: m.one(x).softmax(1), 16),
    "max pool": (lambda m, x: F.max_pool2d(m.one(x), 3, 2, 1, ceil_mode=True), 16),
    "interpolate": (lambda m, x: F.interpolate(m.one(x), scale_factor=2.0), 16),
    "mean to a vector": (lambda m, x: m.one(x).mean((-2, -1)), 16),
    "max over positions": (lambda m, x: m.one(x).amax((2, 3)), 16),
    "sum over channels": (lambda m, x: m.one(x).sum(1, keepdim=True) * m.one(x), 16),
    "flatten": (lambda m, x: F.avg_pool2d(m.one(x), 4).flatten(1), 64),
    "flatten by a keyword": (lambda m, x: torch.flatten(F.avg_pool2d(m.one(x), 4), start_dim=1), 64),
    "reshape by numbers": (lambda m, x: m.one(x).reshape(-1, 16, 64), 16),
    "reshape by a keyword": (lambda m, x: torch.reshape(m.one(x), shape=(-1, 16, 64)), 16),
    "view by a keyword": (lambda m, x: m.one(x).view(size=(-1, 16, 64)), 16),
    "view by a list": (lambda m, x: m.one(x).view([-1, 16, 64]), 16),
    "view by shapes": (view_by_shapes, 16),
    "cut channels in pairs": (lambda m, x: m.one(x).view(-1, 8, 2, 8, 8).transpose(1, 2).reshape(-1, 16, 8, 8), 16),
    "squeeze and unsqueeze": (lambda m, x: F.adaptive_avg_pool2d(m.one(x), 1).squeeze(3).unsqueeze(2), 16),
    "permute": (lambda m, x: m.one(x).permute(0, 2, 3, 1).relu().permute((0, 3, 1, 2)), 16),
    "transpose": (lambda m, x: m.one(x).transpose(1, 2).transpose(dim0=-3, dim1=-2), 16),
    "swapaxes": (lambda m, x: m.one(x).swapaxes(axis0=1, axis1=3).swapaxes(1, 3), 16),
    "transposed matrix": (lambda m, x: m.one(x).mean((2, 3)).t().T, 16),
    "transposed matrices": (lambda m, x: m.one(x).flatten(2).mT.mT, 16),
    "concat": (lambda m, x: torch.cat([m.one(x), m.two(x)], dim=1), 40),
    "concat by another name": (lambda m, x: torch.concat([m.two(x), m.one(x)], axis=-3), 40),
    "concat of positions": (lambda m, x: torch.cat((m.one(x), m.one(x)), 2), 16),
    "split in equal parts": (lambda m, x: torch.mul(*m.one(x).split(8, dim=1)), 8),
    "split by a keyword": (lambda m, x: torch.mul(*m.one(x).split(split_size=8, dim=1)), 8),
    "split in a list": (split_list, 12),
    "chunk": (lambda m, x: torch.mul(*m.one(x).chunk(2, 1)), 8),
    "pad positions": (lambda m, x: F.pad(m.one(x), (1, 1, 1, 1), mode="reflect"), 16),
    "pad channels": (lambda m, x: F.pad(m.one(x), (0, 0, 0, 0, 4, 4)) + m.two(x), 24),
    "index positions": (lambda m, x: m.one(x)[:, :, ::2, 1:-1], 16),
    "index one position": (lambda m, x: m.one(x)[..., 0], 16),
    "index whole dimensions": (lambda m, x: m.one(x)[:, :16][:, None].squeeze(1), 16),
    "in place": (lambda m, x: m.one(x).mul_(2).add_(1).clamp_(0), 16),
    "function of the user's own": (lambda m, x: Square.apply(m.one(x)), 16),
    "standardized weight": (standardized, 16),
    "gated": (lambda m, x: F.glu(m.one(x), 1), 8),
    "instance norm": (lambda m, x: F.instance_norm(m.one(x)), 16),
    "instance norm of a module": (lambda m, x: m.instance_norm(m.one(x)), 16),
    "instance norm without weights": (lambda m, x: m.bare_norm(m.one(x)), 16),
    "rms norm": (channels_last, 16),
    "matrix product": (lambda m, x: m.one(x).flatten(2) @ torch.ones(64, 64), 16),
    "product with a parameter": (lambda m, x: m.one(x).mean((2, 3)) @ m.matrix, 12),
    "product with a sum": (by_hand, 12),
    "product of letters": (lambda m, x: torch.einsum("bchw,cd->bdhw", m.one(x), m.matrix), 12),
    "product of letters and others": (lambda m, x: torch.einsum("bc...,cd", m.one(x), m.matrix).movedim(-1, 1), 12),
    "attention of a module": (attention, 16),
    "attention by hand": (scores_by_hand, 16),
    "attention with heads in the batch": (fused_heads, 16),
    "attention with groups of heads": (grouped_query, 32),
    "attention with groups built in": (built_in_groups, 32),
    "embedding": (lambda m, x: m.embedding((x[:, 0] > 0).long()).permute(0, 3, 1, 2), 16),
    "rows of a table": (table, 16),
    "channel shuffle": (shuffled, 32),
    "channel shuffle built in": (lambda m, x: F.channel_shuffle(m.one(x), 4), 16),
    "pixel shuffle": (lambda m, x: F.pixel_shuffle(m.one(x), 2), 4),
    "pixel unshuffle": (lambda m, x: F.pixel_unshuffle(m.one(x), 2), 64),
    "transposed convolution": (lambda m, x: m.up(m.one(x)), 12),
    "transposed convolution in groups": (lambda m, x: m.grouped_up(m.one(x)), 8),
    "windows": (windows, 16),
    "stack and unbind": (lambda m, x: sum(torch.stack([m.one(x), -2 * m.one(x)], 2).unbind(2)), 16),
    "stack of parts": (lambda m, x: torch.stack(m.one(x).chunk(2, 1), -1).amax(-1), 8),
    "narrow from the end": (lambda m, x: m.one(x).narrow(1, -8, 8), 8),
    "narrow": (lambda m, x: m.one(x).narrow(1, 4, 8), 8),
    "part of the channels": (lambda m, x: m.one(x)[:, 4:12], 8),
    "parts of the channels": (lambda m, x: torch.cat([m.one(x)[:, 8:], -m.one(x)[:, :-8]], 1), 16),
    "expand": (lambda m, x: m.one(x) + m.vector.expand(16, 8, 8).expand(x.shape[0], -1, -1, -1), 16),
    "expand to another": (lambda m, x: m.one(x) + m.vector.expand_as(m.one(x)), 16),
    "repeat": (lambda m, x: m.one(x).repeat(1, 2, 1, 1) * 2, 32),
    "repeat in a row": (lambda m, x: m.one(x).repeat_interleave(2, 1), 32),
    "view as another": (lambda m, x: m.one(x).flatten(2).view_as(m.one(x)), 16),
    "unflatten": (lambda m, x: m.one(x).unflatten(1, (8, 2)).transpose(1, 2).flatten(1, 2), 16),
    "maximum of two": (lambda m, x: torch.max(m.one(x), m.one(-x)), 16),
    "maximum over channels": (lambda m, x: m.one(x) - m.one(x).max(1, keepdim=True).values, 16),
    "number of the largest position": (lambda m, x: m.one(x).flatten(2).argmax(-1) * m.one(x).mean((2, 3)), 16),
    "sum over the positions before": (lambda m, x: m.one(x).cumsum(2), 16),
    "maximum with indices": (lambda m, x: m.one(x).max(2).values, 16),
    "deviation": (lambda m, x: m.one(x) / m.one(x).std((2, 3), keepdim=True), 16),
    "norm": (lambda m, x: m.one(x) / m.one(x).norm(2, (2, 3), keepdim=True), 16),
    "deviation of all": (lambda m, x: m.one(x) / m.one(x).std(False), 16),
    "convolutions of the batch": (own_weights, 12),
    "convolution of each position": (lambda m, x: F.conv1d(m.one(x).flatten(2).mT, torch.ones(8, 64, 1)), 8),
    "transposed convolution of each position": (
        lambda m, x: F.conv_transpose1d(m.one(x).flatten(2).mT, torch.ones(64, 8, 1)),
        8,
    ),
    "assignment to positions": (assigned, 40),
    "picks that are no neighbours": (picked_apart, 16),
    "picks that are neighbours": (lambda m, x: m.one(x)[:, :, [0, 3], torch.tensor([1, 2])], 16),
    "picks around a number": (lambda m, x: m.one(x)[..., None].permute(0, 1, 2, 4, 3)[:, :, [0, 3], 0, [1, 2]], 16),
    "keywords in another order": (keywords, 12),
    "products with vectors": (vectors, 16),
    "inner product": (lambda m, x: torch.inner(m.one(x).mean((2, 3)), m.matrix.t()), 12),
    "distances to rows": (lambda m, x: torch.cdist(m.one(x).mean((2, 3)), m.table), 5),
    "similarity to a row": (lambda m, x: F.cosine_similarity(tokens(m, x), m.table[0], dim=-1), 64),
    "similarity by keywords": (lambda m, x: F.cosine_similarity(x2=m.vector, x1=m.one(x)).flatten(1), 64),
    "distance to a row": (lambda m, x: F.pairwise_distance(tokens(m, x), m.table[0]), 64),
    "distance with its dimension": (lambda m, x: F.pairwise_distance(tokens(m, x), m.table[0], keepdim=True), 64),
    "vector products": (lambda m, x: torch.linalg.vecdot(m.one(x), m.vector, dim=1).flatten(1), 64),
    "norm of another module": (lambda m, x: m.one(x) / torch.linalg.norm(m.one(x), dim=(2, 3), keepdim=True), 16),
    "norm of matrices": (lambda m, x: m.one(x).mean(3) * torch.linalg.matrix_norm(m.one(x), keepdim=True)[..., 0], 16),
    "windows of the module": (lambda m, x: F.unfold(m.one(x), 2, stride=2), 64),
    "windows of the method": (lambda m, x: m.one(x).unfold(2, 2, 2).amax(-1), 16),
    "windows and back": (lambda m, x: F.fold(F.unfold(m.one(x), 3, padding=1), (8, 8), 3, padding=1), 16),
    "bilinear": (lambda m, x: F.bilinear(m.one(x).mean((2, 3)), m.two(x).mean((2, 3)), m.pairs, m.bias), 12),
    "product over given dimensions": (
        lambda m, x: torch.tensordot(m.one(x), m.matrix, dims=([1], [0])).movedim(3, 1),
        12,
    ),
    "product over the last dimensions": (lambda m, x: torch.tensordot(m.one(x).mean((2, 3)), m.matrix, 1), 12),
    "norm by a function": (lambda m, x: m.one(x) / torch.norm(m.one(x), dim=1, keepdim=True), 16),
    "divided by its norm": (lambda m, x: F.normalize(m.one(x), dim=1), 16),
    "recurrent cells": (cells, 12),
    "recurrent cells with memory": (cells_with_memory, 12),
    "bag of embeddings": (lambda m, x: F.embedding_bag((x[:, 0, 0] > 0).long(), m.embedding.weight), 16),
    "bags with offsets": (
        lambda m, x: F.embedding_bag((x[:, 0, 0, 0] > 0).long(), m.embedding.weight, torch.arange(x.shape[0])),
        16,
    ),
    "triangle of positions": (lambda m, x: m.one(x).tril(), 16),
    "spectrum of positions": (lambda m, x: torch.fft.irfft2(torch.fft.rfft2(m.one(x)) * 2, s=(8, 8)), 16),
    "spectrum of one dimension": (lambda m, x: torch.fft.fft(m.one(x), dim=2).real, 16),
    "complex numbers": (
        lambda m, x: torch.view_as_real(torch.view_as_complex(m.one(x).view(-1, 16, 8, 4, 2)) * 1j).flatten(3),
        16,
    ),
    "real and imaginary parts": (lambda m, x: torch.complex(m.one(x), m.one(-x)).abs(), 16),
    "length and angle": (lambda m, x: torch.polar(m.one(x).abs(), m.one(-x)).imag, 16),
    "transposed by a Hermitian": (lambda m, x: m.one(x).mH.adjoint(), 16),
    "view of bits": (lambda m, x: m.one(x).view(torch.int32).view(torch.float32), 16),
}


@pytest.mark.parametrize("name", ELASTIC)
def test_channels_pass(name: str) -> None:
    model, example = make(*ELASTIC[name])
    supernet = Supernet(model, example)
    names = {choice.name for choice in supernet.space.choices if choice.dimension == "width"}
    assert names - {"width:two"}, supernet.static_layers()
    other = other_input(example)
    for subnet in (supernet.space.minimum, supernet.space.decode([1] * len(supernet.space.choices))):
        small = extract(supernet, subnet)
        with supernet.activate(subnet), torch.no_grad():
            assert_close(outputs(model, other), outputs(small, other))


@pytest.mark.parametrize("name", ["convolution of each position", "transposed convolution of each position"])
def test_channels_pass_as_positions(name: str) -> None:
    model, example = make(*ELASTIC[name])
    assert "width:one" in Supernet(model, example).space.maximum


def set_item(m: Any, x: Tensor) -> Tensor:
    y = m.one(x).clone()
    y[:, 12] = 1
    return y


def set_masked(m: Any, x: Tensor) -> Tensor:
    y = m.one(x).clone()
    y[y < 0] = 0
    return y


def set_listed(m: Any, x: Tensor) -> Tensor:
    y = m.one(x).clone()
    y[:, :, [0, 3]] = m.one(-x)[:, :, :2]
    return y


def outer_product(m: Any, x: Tensor) -> Tensor:
    one, two = m.one(x).mean((2, 3)), m.two(x).mean((2, 3))
    return (two[:, :, None] * one[:, None, :]).flatten(1)


FROZEN: dict[str, tuple[Body, int, str]] = {
    "squeezed": (lambda m, x: F.adaptive_avg_pool2d(m.one(x), 1).squeeze(), 16, "would leave a dimension out"),
    "sums in order, by another name": (lambda m, x: m.one(x).cumsum(axis=1), 16, "depends on their order"),
    "into a given tensor": (lambda m, x: torch.mul(m.one(x), 2, out=torch.empty(2, 16, 8, 8)), 16, "a given tensor"),
    "other bits": (lambda m, x: m.one(x).double().view(torch.float32)[..., ::2], 16, "another number of items"),
    "conditions": (lambda m, x: m.one(x)[:, torch.where(m.vector.flatten() > -1)[0]], 16, "takes single channels"),
    "no rule": (lambda m, x: F.local_response_norm(m.one(x), 2), 16, "no axis rule for the operation"),
    "rolled channels": (lambda m, x: m.one(x).roll(1, 1), 16, "moves items along it"),
    "sum over the channels before": (lambda m, x: m.one(x).cumsum(1), 16, "depends on their order"),
    "product over the channels before": (lambda m, x: m.one(x).cumprod(dim=1), 16, "depends on their order"),
    "number of the largest channel": (lambda m, x: m.one(x) * m.one(x).argmax(1, True), 16, "tells where along it"),
    "largest channel and its number": (lambda m, x: sum(m.one(x).max(1, True)) + m.one(x), 16, "tells where along it"),
    "picked channels": (lambda m, x: m.one(x).index_select(1, torch.tensor([3, 1])), 2, "picks items"),
    "every other channel": (lambda m, x: m.one(x)[:, ::2], 8, "takes a part of the channels"),
    "channels as positions": (
        lambda m, x: F.conv1d(m.one(x).flatten(2).mT, torch.ones(8, 64, 3), padding=1),
        8,
        "mixes positions",
    ),
    "every other channel by a convolution": (
        lambda m, x: F.conv1d(m.one(x).flatten(2).mT, torch.ones(8, 64, 1), stride=2),
        8,
        "mixes positions",
    ),
    "triangle of channels": (lambda m, x: m.one(x).flatten(2).tril(), 16, "depends on their order"),
    "spectrum of channels": (lambda m, x: torch.fft.fft(m.one(x), dim=1).real, 16, "mixes all items along it"),
    "windows of channels": (lambda m, x: m.one(x).unfold(1, 4, 4).amax(-1), 4, "mixes positions"),
    "channels as parts of numbers": (
        lambda m, x: torch.view_as_complex(m.one(x).view(-1, 2, 8, 8, 8).movedim(1, -1).contiguous()).real,
        8,
        "real and imaginary parts",
    ),
    "one channel": (lambda m, x: m.one(x)[:, 3].flatten(1), 64, "takes single channels"),
    "channels in a list": (lambda m, x: m.one(x)[:, [0, 3]], 2, "takes single channels"),
    "assignment": (set_item, 16, "/__setitem__/0 takes single channels"),
    "assignment to what a mask picks": (set_masked, 16, "/__setitem__/0 takes single channels"),
    "assignment of channels to a list": (set_listed, 16, "assigns channels to picked items"),
    "cut inside a channel": (lambda m, x: m.one(x).flatten(1).split([96, 928], 1)[0], 96, "cuts inside a channel"),
    "unequal parts": (lambda m, x: m.one(x).chunk(3, 1)[0], 6, "cuts into parts of different sizes"),
    "less than no padding": (lambda m, x: F.pad(m.one(x), (0, 0, 0, 0, -2, 0)), 14, "other than with a constant"),
    "two dimensions of channels": (outer_product, 16 * 24, "mixes two dimensions of channels"),
    "pool without batch": (lambda m, x: F.max_pool2d(m.one(x)[0], 2)[None], 16, "has no batch dimension"),
    "no parameter": (lambda m, x: m.one(x) * m.unregistered[0], 16, "a tensor that the model does not register"),
}


@pytest.mark.parametrize("name", FROZEN)
def test_a_use_without_a_rule_freezes_with_the_reason(name: str) -> None:
    body, features, reason = FROZEN[name]
    model, example = make(body, features)
    propagation = Propagation(_nncf.trace(model, example.args, example.kwargs))
    one = next(layer for layer in propagation.layers if layer.op.module == "one")
    found = propagation.solver.reason(one.axis)
    assert found is not None
    assert reason in found


def test_inputs_and_outputs_of_the_model_keep_their_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1))
    propagation = Propagation(_nncf.trace(model, (torch.randn(1, 3, 4, 4),), {}))
    first, last = propagation.layers
    assert propagation.solver.reason(propagation.layout(first.weight)[1]) == "input 'input'"
    assert propagation.solver.reason(first.axis) is None
    assert propagation.solver.reason(last.axis) == "output of the model"


def test_a_rule_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(p: Propagation, op: Op) -> list[Layout]:
        return [p.layout(op.tensors[0])]

    body: Body = lambda m, x: m.one(x).logcumsumexp(2)  # noqa: E731
    model, example = make(body, 16)
    with pytest.raises(ModelError, match=re.escape("no axis rule for the operation 'logcumsumexp' (/logcumsumexp/0)")):
        Supernet(model, example, ElasticityConfig(available_elasticity_dims=("width",)))
    monkeypatch.setitem(AXIS_RULES._entries, "logcumsumexp", same)
    assert "width:one" in Supernet(model, example).space.maximum
