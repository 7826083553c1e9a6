"""What a model's code keeps from its calls belongs to one subnet, so no other subnet may see it."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.caches import Caches
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_close, some_subnets


class BiasedAttention(nn.Module):
    """Attention with a bias for each pair of positions, which is looked up once and kept."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)
        self.biases = nn.Parameter(torch.randn(4, 9))
        self.register_buffer("index", (torch.arange(5)[:, None] - torch.arange(5)).abs())
        self.kind = kind
        self.calls = 0
        if kind != "new attribute":
            self.kept: Any = {"dictionary": {}, "list": [], "attribute": None}[kind]

    def bias(self) -> Tensor:
        if self.kind == "dictionary":
            if "bias" not in self.kept:
                self.kept["bias"] = self.biases[:, self.index]
            return self.kept["bias"]
        if self.kind == "list":
            if not self.kept:
                self.kept.append([self.biases[:, self.index]])
            return self.kept[0][0]
        if getattr(self, "kept", None) is None:
            self.kept = self.biases[:, self.index]
        return self.kept

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2) + self.bias()).softmax(-1)
        return self.head(self.out((scores @ v).transpose(1, 2).flatten(2)).mean(1))


@pytest.mark.parametrize("kind", ["dictionary", "list", "attribute", "new attribute"])
def test_a_cache_is_made_anew_for_each_subnet(kind: str) -> None:
    torch.manual_seed(0)
    model = BiasedAttention(kind).eval()
    plain = copy.deepcopy(model)
    supernet = Supernet(model, torch.randn(2, 5, 16))
    assert supernet.space.maximum["width:qkv"] == 4  # heads, though the biases of all of them were kept
    assert not supernet.refused
    x = torch.randn(3, 5, 16)
    with torch.no_grad():
        expected = plain(x)
        for subnet in some_subnets(supernet, 2):
            with supernet.activate(subnet):
                assert_close([extract(supernet, subnet)(x)], [model(x)])
            assert torch.equal(model(x), expected)


def test_a_cache_from_before_that_a_mode_drops() -> None:
    class Drops(BiasedAttention):
        """Drops its cache whenever the mode is set."""

        def train(self, mode: bool = True) -> Drops:
            super().train(mode)
            self.kept = {}
            return self

    model = Drops("dictionary").eval()
    model(torch.randn(2, 5, 16))
    supernet = Supernet(model, torch.randn(2, 5, 16))
    assert not supernet.refused
    assert supernet.space.maximum["width:qkv"] == 4


def test_what_is_no_cache_stays() -> None:
    model = BiasedAttention("attribute").eval()
    supernet = Supernet(model, torch.randn(2, 5, 16))
    before = model.calls
    assert before > 0
    with torch.no_grad():
        model(torch.randn(1, 5, 16))
    assert model.calls == before + 1
    assert model.kept is not None  # may be read after a call
    supernet.forget()
    assert model.kept is None


def test_only_attributes_with_tensors_that_a_call_changes_are_watched() -> None:
    model = nn.Sequential(BiasedAttention("dictionary"), nn.BatchNorm1d(3))
    model[0].constant = torch.ones(2)
    caches = Caches(model)
    model(torch.randn(4, 5, 16))
    caches.find()
    caches.reset()
    assert model[0].kept == {}
    assert model[0].calls == 1
    assert torch.equal(model[0].constant, torch.ones(2))
    assert model[1].num_batches_tracked == 1


class Keeps(nn.Module):
    """Keeps what it has looked up, in one way or another."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 16), nn.Linear(16, 3)
        self.scale = nn.Parameter(torch.rand(16))
        self.kept = make()
        self.register_buffer("later", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            if self.later is None:
                self.later = self.scale.detach() * 2
            return self.two(self.one(x) * self.later)
        if not self.kept:
            self.kept["scale"] = self.scale * 2
        return self.two(self.one(x) * self.kept["scale"])


@pytest.mark.parametrize("make", [OrderedDict, lambda: defaultdict(list), lambda: None])
def test_caches_of_other_kinds(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = Keeps(make).eval()
    plain = copy.deepcopy(model)
    supernet = Supernet(model, torch.randn(2, 4))
    x = torch.randn(3, 4)
    with torch.no_grad():
        with supernet.activate(supernet.space.minimum):
            assert_close([extract(supernet, supernet.active)(x)], [model(x)])
        assert torch.equal(model(x), plain(x))
        with supernet.activate(supernet.space.minimum):
            model(x)
            other = copy.deepcopy(model)
            assert_close([other(x)], [model(x)])
        supernet.release()
        assert torch.equal(model(x), plain(x))


def test_nothing_is_kept_when_no_supernet_can_be_made() -> None:
    class Random(BiasedAttention):
        """Gives other outputs each time."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(())

    model = Random("attribute").eval()
    with pytest.raises(ModelError, match="gives other outputs for the same input"):
        Supernet(model, torch.randn(2, 5, 16))
    assert model.kept is None
