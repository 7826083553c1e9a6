"""What the user's code does around an operation or a block stays as it is: compared to what is cut by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext.config import DepthConfig, ElasticityConfig
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import BasicBlock, Head, assert_close, conv_bn, randomize_norms


class ReadsTwice(nn.Module):
    """One attribute is the groups of a convolution, and of something that has nothing to do with it."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 4
        self.stem, self.kernel, self.last = (
            nn.Conv2d(3, 16, 1),
            nn.Parameter(torch.randn(16, 4, 1, 1)),
            nn.Conv2d(16, 16, 1),
        )
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(self.stem(x), self.kernel, groups=self.groups)
        return self.head(F.channel_shuffle(self.last(y), self.groups))


def test_an_attribute_that_is_read_twice_changes_only_where_it_must() -> None:
    torch.manual_seed(0)
    model = ReadsTwice().eval()
    supernet = Supernet(model, torch.randn(1, 3, 8, 8), ElasticityConfig(("width",)))
    subnet = {**supernet.space.maximum, "width:stem": 2}
    x = torch.randn(2, 3, 8, 8)
    y = F.conv2d(x, model.stem.weight[:8], model.stem.bias[:8])  # type: ignore[index]
    y = F.conv2d(F.conv2d(y, model.kernel[:8], groups=2), model.last.weight[:, :8], model.last.bias)
    with supernet.activate(subnet), torch.no_grad():
        assert_close([model(x)], [model.head(F.channel_shuffle(y, 4))])


def by_index(y: Tensor) -> None:
    y[:, :, 0] = 0


def by_view(y: Tensor) -> None:
    y.flatten(2).mul_(2)


def by_part(y: Tensor) -> None:
    z = y[:, :, 0]
    z += 1


class Writes(nn.Module):
    """Something is written into what a block returns, and what entered it is used afterwards."""

    def __init__(self, write: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.stem, self.block, self.head = conv_bn(3, 8), BasicBlock(8, 8), Head(8)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.block(x)
        self.write(y)
        return self.head(y * x)


@pytest.mark.parametrize("write", [by_index, by_view, by_part])
def test_a_block_whose_result_is_written_to_must_run(write: Callable[[Tensor], None]) -> None:
    supernet = Supernet(Writes(write).eval(), torch.randn(1, 3, 8, 8), ElasticityConfig(("width", "depth")))
    assert "depth" not in {choice.dimension for choice in supernet.space.choices}


class LooksAtBlocks(nn.Module):
    """The code around the blocks asks what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = conv_bn(3, 8), nn.ModuleList([BasicBlock(8, 8), BasicBlock(8, 8)]), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) if isinstance(block, BasicBlock) else block(x) * 0.5
        return self.head(x)


def test_code_that_looks_at_a_block_that_is_left_out() -> None:
    model = randomize_norms(LooksAtBlocks()).eval()
    supernet = Supernet(model, torch.randn(1, 3, 8, 8), ElasticityConfig(("depth",)))
    x = torch.randn(3, 3, 8, 8)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        assert_close([extract(supernet, supernet.space.minimum)(x)], [model(x)])
        assert_close([model(x)], [model.head(model.stem(x))])


def test_a_module_with_the_users_hooks_is_no_block_of_its_own() -> None:
    model = randomize_norms(LooksAtBlocks()).eval()
    model.blocks[0].register_forward_hook(lambda module, args, output: output * 0.5)
    config = ElasticityConfig(("depth",), depth=DepthConfig(mode="independent"))
    supernet = Supernet(model, torch.randn(1, 3, 8, 8), config)
    x = torch.randn(3, 3, 8, 8)
    for subnet in (supernet.space.minimum, supernet.space.maximum):
        with supernet.activate(subnet), torch.no_grad():
            assert_close([extract(supernet, subnet)(x)], [model(x)])


class Copies(nn.Module):
    """A batch of one lies in memory as it is needed, and any other must be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_bn(3, 16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).transpose(0, 1).contiguous().transpose(0, 1))


def test_an_operation_that_only_some_batches_need_is_kept() -> None:
    model = Copies().eval()
    supernet = Supernet(model, torch.randn(1, 3, 8, 8))
    assert "contiguous" in {op.kind for op in supernet.graph.ops}
    x = torch.randn(3, 3, 8, 8)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        assert_close([extract(supernet, supernet.space.minimum)(x)], [model(x)])


class Residual(nn.Module):
    """A block around a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.conv(x))


@pytest.mark.parametrize("hooked", ["block", "conv"])
@pytest.mark.parametrize("before", [True, False])
def test_hooks_of_the_users_own_run_around_what_is_left_out(hooked: str, before: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), Residual(), Residual(), Head(16)).eval()
    module = model[1] if hooked == "block" else model[1].conv
    if before:
        module.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    else:
        module.register_forward_hook(lambda _, args, output: output * 2)
    supernet = Supernet(model, torch.randn(2, 3, 8, 8))
    x = torch.randn(3, 3, 8, 8)
    assert any(name.startswith("depth:") for name in supernet.space.minimum)
    with torch.no_grad(), supernet.activate(supernet.space.minimum):
        assert_close([extract(supernet, supernet.active)(x)], [model(x)])


class EndsInPlace(nn.Module):
    """Its block ends in an operation in place, whose result has the name that the code goes on with, or none."""

    def __init__(self, assigns: bool) -> None:
        super().__init__()
        self.stem, self.body, self.last = nn.Conv2d(3, 16, 1), conv_bn(16, 16), nn.Conv2d(16, 5, 1)
        self.assigns = assigns

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.hardswish(self.body(x))
        y += x
        if self.assigns:
            y = y.relu_()
        else:
            y.relu_()
        return self.last(y)


@pytest.mark.parametrize("assigns", [True, False])
def test_what_an_operation_in_place_returns_is_what_the_code_holds(assigns: bool) -> None:
    torch.manual_seed(0)
    model = randomize_norms(EndsInPlace(assigns)).eval()
    supernet = Supernet(model, torch.randn(2, 3, 8, 8), ElasticityConfig(("depth",)))
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        stem = model.stem(x)
        with supernet.activate(supernet.space.minimum):
            found = model(x)
        (choice,) = supernet.space.choices
        entry = stem.relu() if choice.name == "depth:/add_/0" else stem
        assert_close([found], [model.last(entry)])
        assert_close([extract(supernet, supernet.space.minimum)(x)], [found])
