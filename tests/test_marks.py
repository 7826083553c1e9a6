"""Integers among arguments that are attributes of modules are known, and what is computed from them is not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.graph import Place
from bootstrapnas_ext.marks import MarkedInt, marked, places, without_mark
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_close, some_subnets


class Heads(nn.Module):
    """Attention that is told the number of its heads, and their width."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.width = heads, width // heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = width

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.out(mixed.transpose(1, 2).reshape((batch, length, self.inner)))


class Reader(nn.Module):
    """Attention between an embedding and a classifier."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embedding, self.attention, self.head = nn.Embedding(20, 32), attention, nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.head((x + self.attention(x)).mean(1))


def supernet_of(attention: nn.Module) -> Supernet:
    torch.manual_seed(0)
    return Supernet(Reader(attention).eval(), torch.randint(0, 20, (2, 7)), ElasticityConfig(("width",)))


def test_attributes_are_marked_for_a_while() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), Heads())
    model[0].counted = 0
    with marked(model):
        groups = model[0].groups
        assert (groups, groups.place) == (2, Place("0", "groups"))
        assert isinstance(model[1].heads, MarkedInt)
        assert type(model[1].heads * 2) is int
        assert type(model.training) is bool
        model[0].counted += 1
    assert type(model[0].groups) is type(model[1].heads) is int
    assert model[0].counted == 1


def test_marks_are_found_wherever_they_are() -> None:
    module = nn.Module()
    module.n = 5
    with marked(module):
        n = module.n
        here = Place("", "n")
        assert places(((n, (1, [n])), {"size": (n, 2), "at": slice(n, None)})) == {
            (0, 0): here,
            (0, 1, 1, 0): here,
            (1, "size", 0): here,
            (1, "at", "start"): here,
        }
        assert places(((5, slice(1, 5)), {"size": 5})) == {}
        plain = without_mark(slice(n, None, n))
    assert [type(bound) for bound in (plain.start, plain.stop, plain.step)] == [int, type(None), int]
    assert type(without_mark(n)) is int


def test_the_trace_knows_attributes_by_their_place_in_the_call() -> None:
    graph = _nncf.trace(Reader(Heads()), (torch.randint(0, 20, (2, 7)),), {})
    found = {op.kind: dict(op.places) for op in graph.ops if op.places and op.module == "attention"}
    reshapes = [op for op in graph.ops if op.kind == "reshape"]
    assert reshapes[0].places == {(4,): Place("attention", "heads"), (5,): Place("attention", "width")}
    assert reshapes[1].places == {(1, 2): Place("attention", "inner")}
    assert found.keys() == {"reshape"}
    assert all(type(argument) is not MarkedInt for op in graph.ops for argument in op.args)


def test_numbers_of_the_models_own_modules_need_no_hooks() -> None:
    supernet = supernet_of(Heads())
    assert supernet.executor.code_hooks == {}
    assert {Place("attention", "heads"), Place("attention", "inner")} <= supernet.executor.shadows.places
    tokens = torch.randint(0, 20, (3, 11))
    for subnet in some_subnets(supernet, 2):
        small = extract(supernet, subnet)
        assert type(small) is Reader
        assert small.attention.heads == subnet["width:attention.qkv"]
        assert small.attention.width == 8
        with torch.no_grad(), supernet.activate(subnet):
            assert_close([small(tokens)], [supernet.model(tokens)])
    assert supernet.model.attention.heads == 4


class Divides(Heads):
    """Computes the width of a head from the number of heads, which is right for equal parts of both only."""

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.out(mixed.transpose(1, 2).reshape(batch, length, self.inner))


class Scales(Heads):
    """Its number of heads is a factor, too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.heads


class Repeats(Heads):
    """Its number of heads is something else's, too, which no subnet changes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.unsqueeze(0).expand(self.heads, -1, -1, -1).sum(0)


class Computes(Heads):
    """Its number of heads is a number in a computation that is no argument of an operation."""

    def forward(self, x: Tensor) -> Tensor:
        factor = float(self.heads) ** -0.5
        return super().forward(x) * factor


@pytest.mark.parametrize("attention", [Divides, Scales, Repeats, Computes])
def test_a_number_that_means_more_than_the_subnet_changes_stays(attention: type[Heads]) -> None:
    supernet = supernet_of(attention())
    tokens = torch.randint(0, 20, (3, 7))
    for subnet in some_subnets(supernet, 2):
        with torch.no_grad(), supernet.activate(subnet):
            active = supernet.model(tokens)
            assert_close([extract(supernet, subnet)(tokens)], [active])
            heads, width = subnet["width:attention.qkv"], subnet["width:embedding"]
            assert_close([by_hand(supernet.model, tokens, heads, width)], [active])


def by_hand(model: Reader, tokens: Tensor, heads: int, width: int) -> Tensor:
    """Computes a subnet with sliced weights; only the first heads and the first channels."""
    attention = model.attention
    x = model.embedding(tokens)[..., :width]
    rows = torch.cat([torch.arange(start, start + 8 * heads) for start in (0, 32, 64)])
    qkv = F.linear(x, attention.qkv.weight[rows][:, :width], attention.qkv.bias[rows])
    q, k, v = qkv.view(*x.shape[:2], 3, heads, 8).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    y = F.linear(mixed, attention.out.weight[:width, : 8 * heads], attention.out.bias[:width])
    if isinstance(attention, Scales):
        y = y / 4
    elif isinstance(attention, Repeats):
        y = y + 4 * x
    elif isinstance(attention, Computes):
        y = y * 0.5
    return F.linear((x + y).mean(1), model.head.weight[:, :width], model.head.bias)
