"""How blocks are left out: whole modules, or operation by operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.config import DepthConfig, ElasticityConfig
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.skipping import Skip
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import Head, build, conv_bn, image, randomize_norms


class NamedResults(nn.Module):
    """A block in the model's own code that asks for one of several results by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = conv_bn(3, 16), conv_bn(16, 16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.branch(x)
        return self.head(x + y * y.max(dim=1, keepdim=True).values)


def test_results_with_names_keep_them_in_skipped_blocks() -> None:
    torch.manual_seed(0)
    model = NamedResults().eval()
    config = ElasticityConfig(available_elasticity_dims=("depth",), depth=DepthConfig(min_block_size=3))
    supernet = Supernet(model, ExampleInput((image(),)), config)
    x = torch.randn(2, 3, 8, 8)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        assert torch.equal(model(x), model.head(model.stem(x)))


def test_operations_of_skipped_blocks_do_not_run() -> None:
    supernet = Supernet(*build("loose"))
    ran: set[str] = set()
    forward = _nncf.original_forward(supernet.model)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        supernet.executor.run(forward, supernet.active, supernet.example, lambda site, _: ran.add(site))
    traced = {op.site for op in supernet.graph.ops}
    skipped = {
        supernet.graph.ops[op].site for block in supernet.executor.skipped(supernet.space.minimum) for op in block.ops
    }
    assert traced - skipped <= ran
    assert len(skipped) == 3 * 6
    assert ran & skipped == {f":add:{number}" for number in range(3)}  # of nothing


class PairedAttention(nn.Module):
    """Attention that returns its weights too, in a structure of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, *, scale: float) -> tuple[dict[str, Tensor], Tensor | None]:
        query = self.query(x)
        scores = (query @ x.transpose(1, 2) * scale).softmax(-1)
        return {"mixed": self.out(scores @ x), "scores": scores}, None


class LoosePairs(nn.Module):
    """Residual blocks in the model's own code, around modules that return more than one tensor."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.scale = scale
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(PairedAttention() for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            result, nothing = block(x, scale=0.5)
            assert nothing is None
            x = x + (result["mixed"] if self.scale is None else result["mixed"] * self.scale)
        return self.head(x)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_a_module_of_several_results_is_left_out_as_a_whole(scale: float | None) -> None:
    model = LoosePairs(scale).eval()
    supernet = Supernet(model, torch.randn(2, 5, 6))
    subnet = supernet.space.minimum
    with torch.no_grad(), supernet.activate(subnet):
        skip = Skip(supernet.graph, supernet.executor.skipped(subnet), lambda value: supernet.shape(value, subnet))
        assert skip.needs_mode == (scale is not None)
        assert set(skip.replace) == (set() if scale is None else {":mul:0", ":add:0", ":mul:1", ":add:1"})
        assert {place.module for place in skip.forwards} == {"blocks.0", "blocks.1"}
        x = torch.randn(3, 5, 6)
        torch.testing.assert_close(extract(supernet, subnet)(x), model(x))
        channels = subnet["width:stem"]
        smaller = F.linear(model.stem(x)[..., :channels], model.head.weight[:, :channels], model.head.bias)
        torch.testing.assert_close(model(x), smaller)  # a stem and a head are left


class ReadsSizes(nn.Module):
    """Takes sizes from what a block has computed, for more than the block; the block adds modules, or is none."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
        self.norm = nn.BatchNorm2d(16)
        self.functional = functional

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.conv(x))
        y = F.hardswish(y) * 0.5 if self.functional else y
        batch, channels, height, width = y.shape
        x = x + y
        factor = channels * height if batch > 1 else width
        return self.head(x).reshape(batch, 4, height * width).mean(-1) * factor


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("size", [8, 10])
def test_what_is_left_out_has_the_sizes_that_it_would_have(functional: bool, size: int) -> None:
    torch.manual_seed(0)
    model = ReadsSizes(functional).eval()
    supernet = Supernet(model, torch.randn(2, 3, 8, 8), ElasticityConfig(depth=DepthConfig(min_block_size=2)))
    subnet = supernet.space.minimum
    assert not supernet.refused
    assert any(name.startswith("depth:") for name in subnet)
    x = torch.randn(3, 3, size, size)
    with torch.no_grad(), supernet.activate(subnet):
        channels = subnet["width:stem"]
        stem = model.stem(x)[:, :channels]
        expected = F.conv2d(stem, model.head.weight[:, :channels], model.head.bias).mean((2, 3)) * channels * size
        torch.testing.assert_close(model(x), expected)
        if size == 8:
            torch.testing.assert_close(extract(supernet, subnet)(x), expected)


class AddsATable(nn.Module):
    """Adds what a module makes of a table, which always has the same type, and of the entry."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Linear(6, 8), Mix(), nn.Linear(8, 3)
        self.table = Table()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.mix(self.table(), x)
        return self.head(x)


class Table(nn.Module):
    """Makes a table of no input."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(5, 8))

    def forward(self) -> Tensor:
        return self.rows.float().softmax(0)


class Mix(nn.Module):
    """Adds a table to a product."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, table: Tensor, x: Tensor) -> Tensor:
        return F.relu(self.linear(x) + table.to(x.dtype))


def test_zeros_have_the_type_of_what_they_are_added_to() -> None:
    config = ElasticityConfig(("depth",), depth=DepthConfig(min_block_size=2))
    model = AddsATable().eval()
    supernet = Supernet(model, torch.randn(2, 5, 6), config)
    model.bfloat16()
    with torch.no_grad(), supernet.activate(supernet.space.minimum):
        x = torch.randn(2, 5, 6, dtype=torch.bfloat16)
        assert torch.equal(model(x), model.head(model.stem(x)))


class InPlace(nn.Module):
    """A residual block in the model's own code, with one activation that works in place."""

    def __init__(self, activation: nn.Module, place: str, assigns: bool) -> None:
        super().__init__()
        self.stem, self.conv1, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.conv2, self.head = nn.Conv2d(16, 16, 1), Head(16)
        self.activation, self.place, self.assigns = activation, place, assigns

    def at(self, place: str, x: Tensor) -> Tensor:
        if place == self.place:
            if self.assigns:
                return self.activation(x)
            self.activation(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.at("before", self.stem(x))
        x = self.at("first", x)
        y = self.at("middle", self.norm(self.conv1(x)))
        y = self.at("last", x + self.conv2(y))
        return self.head(self.at("after", y))

    def without_block(self, x: Tensor) -> Tensor:
        return self.head(self.at("after", self.at("before", self.stem(x))))


IN_PLACE = {
    "relu": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(inplace=True),
    "silu": nn.SiLU(inplace=True),
    "hardswish": nn.Hardswish(inplace=True),
    "leaky_relu": nn.LeakyReLU(0.3, inplace=True),
    "elu": nn.ELU(inplace=True),
    "hardtanh": nn.Hardtanh(-0.1, 0.2, inplace=True),
    "threshold": nn.Threshold(0.1, 0.5, inplace=True),
    "dropout": nn.Dropout(inplace=True),  # works in training mode only
}


@pytest.mark.parametrize("place", ["before", "first", "middle", "last", "after"])
@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("assigns", [True, False])
def test_a_skipped_block_skips_what_works_in_place(name: str, place: str, assigns: bool) -> None:
    torch.manual_seed(0)
    model = randomize_norms(InPlace(IN_PLACE[name], place, assigns)).eval()
    own_name = next(op.name for op in _nncf.trace(model, (image(),), {}).ops if op.name.startswith("activation/"))
    ends = (own_name if place == "before" else "stem/conv2d/0", own_name if place == "last" else "/add/0")
    depth = DepthConfig(skipped_blocks=(ends,))
    supernet = Supernet(model, image(), ElasticityConfig(available_elasticity_dims=("depth",), depth=depth))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = model.without_block(x)
        with supernet.activate(supernet.space.minimum):
            assert torch.equal(model(x), expected)
        assert torch.equal(extract(supernet, supernet.space.minimum)(x), expected)
    model.train()
    with supernet.activate(supernet.space.minimum):  # what holds no memory cannot be written into
        torch.manual_seed(1)
        found = model(x)
    torch.manual_seed(1)
    assert torch.equal(found, model.without_block(x))


class ReadsEntryLater(InPlace):
    """What enters the block is read again after an operation in place behind the block."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.conv2(self.norm(self.conv1(x)))
        return self.head(self.at("after", y) + x)


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_works_in_place_behind_a_block_must_not_spoil_its_entry(name: str) -> None:
    torch.manual_seed(0)
    depth = DepthConfig(skipped_blocks=(("stem/conv2d/0", "/add/0"),))
    with pytest.raises(ModelError, match="may not be skipped"):
        Supernet(
            ReadsEntryLater(IN_PLACE[name], "after", True),
            image(),
            ElasticityConfig(available_elasticity_dims=("depth",), depth=depth),
        )


class Branch(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.norm(self.conv1(x)))


class OverwritesBehind(nn.Module):
    """What enters the block is the result of ReLU, which its gradient depends on, and what leaves it is overwritten."""

    def __init__(self, activation: nn.Module, as_module: bool) -> None:
        super().__init__()
        self.stem, self.block, self.head = conv_bn(3, 16), Branch(), Head(16)
        self.activation, self.as_module = activation, as_module

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branch = self.block
        x = branch(x) if self.as_module else (x + branch.conv2(branch.norm(branch.conv1(x)))) * 1
        return self.head(self.activation(x))


@pytest.mark.parametrize("as_module", [True, False])
@pytest.mark.parametrize("name", IN_PLACE)
def test_gradients_of_what_enters_a_skipped_block_survive_an_overwritten_exit(name: str, as_module: bool) -> None:
    torch.manual_seed(0)
    model = randomize_norms(OverwritesBehind(IN_PLACE[name], as_module))
    depth = DepthConfig(skipped_blocks=(("stem/2/relu/0", "block/add/0" if as_module else "/mul/0"),))
    supernet = Supernet(model, image(), ElasticityConfig(available_elasticity_dims=("depth",), depth=depth))
    x = torch.randn(2, 3, 8, 8)

    def gradient(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Tensor:
        module.zero_grad()
        torch.manual_seed(1)
        forward(x).sum().backward()
        grad = module.get_parameter("stem.0.weight").grad
        assert grad is not None
        return grad.clone()

    with supernet.activate(supernet.space.minimum):
        found = gradient(model, model)
        assert torch.equal(found, gradient(model, lambda x: model.head(model.activation(model.stem(x) * 1))))
        if as_module:
            small = extract(supernet, supernet.active)
            assert torch.equal(found, gradient(small, small))
