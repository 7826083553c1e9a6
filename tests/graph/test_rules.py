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
        self.norm = nn.BatchNorm2d(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
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


def set_item(m: Any, x: Tensor) -> Tensor:
    y = m.one(x).clone()
    y[:, 12] = 1
    return y


def outer_product(m: Any, x: Tensor) -> Tensor:
    one, two = m.one(x).mean((2, 3)), m.two(x).mean((2, 3))
    return (two[:, :, None] * one[:, None, :]).flatten(1)


def attention(m: Any, x: Tensor) -> Tensor:
    tokens = m.one(x).flatten(2).transpose(1, 2)
    return m.attention(tokens, tokens, tokens)[0].transpose(1, 2)


FROZEN: dict[str, tuple[Body, int, str]] = {
    "no rule": (lambda m, x: F.glu(m.one(x), 1), 8, "no axis rule for the operation 'glu' (/glu/0)"),
    "matrix product": (lambda m, x: m.one(x).flatten(2) @ torch.ones(64, 64), 16, "no axis rule for the operation"),
    "instance norm": (lambda m, x: F.instance_norm(m.one(x)), 16, "no axis rule for the operation 'instance_norm'"),
    "attention": (attention, 16, "attention/multi_head_attention_forward needs the sizes that it was made with"),
    "part of the channels": (lambda m, x: m.one(x)[:, 3:9], 6, "takes a part of the channels"),
    "every other channel": (lambda m, x: m.one(x)[:, ::2], 8, "takes a part of the channels"),
    "one channel": (lambda m, x: m.one(x)[:, 3].flatten(1), 64, "takes one of the channels"),
    "channels in a list": (lambda m, x: m.one(x)[:, [0, 3]], 2, "picks items by a tensor or list"),
    "assignment": (set_item, 16, "no axis rule for the operation 'setitem' (/__setitem__/0)"),
    "view of bits": (lambda m, x: m.one(x).view(torch.int32).view(torch.float32), 16, "'view' does not fit this use"),
    "unusual arguments": (lambda m, x: m.one(x) / m.one(x).std(False), 16, "'std' does not fit this use"),
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

    body: Body = lambda m, x: m.one(x).cumsum(2)  # noqa: E731
    model, example = make(body, 16)
    with pytest.raises(ModelError, match=re.escape("no axis rule for the operation 'cumsum' (/cumsum/0)")):
        Supernet(model, example, ElasticityConfig(available_elasticity_dims=("width",)))
    monkeypatch.setitem(AXIS_RULES._entries, "cumsum", same)
    assert "width:one" in Supernet(model, example).space.maximum
