"""Elastic depth: chains of blocks, single blocks, and blocks that the config names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from bootstrapnas_ext.config import DepthConfig, ElasticityConfig, WidthConfig
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_equal, build, other_input, outputs


def supernet_of(name: str, **options: Any) -> Supernet:
    model, example = build(name)
    config = ElasticityConfig(available_elasticity_dims=("depth",), depth=DepthConfig(**options))
    return Supernet(model, example, config)


def values(supernet: Supernet) -> dict[str, tuple[int, ...]]:
    return {choice.name: choice.values for choice in supernet.space.choices}


def test_blocks_in_a_row_are_one_choice() -> None:
    assert values(supernet_of("residual")) == {"depth:layer1": (1, 0), "depth:layer2.1": (2, 1, 0)}


def test_independent_blocks_are_a_choice_each() -> None:
    supernet = supernet_of("residual", mode="independent")
    assert values(supernet) == {"depth:layer1": (1, 0), "depth:layer2.1": (1, 0), "depth:layer2.2": (1, 0)}


@pytest.mark.parametrize("mode", ["auto", "manual"])
def test_blocks_that_the_config_names(mode: str) -> None:
    blocks = (("layer2/1/relu/relu_/1", "layer2/2/relu/relu_/1"), ("layer2/0/relu/relu_/1", "layer2/1/relu/relu_/1"))
    assert values(supernet_of("residual", mode=mode, skipped_blocks=blocks)) == {"depth:layer2.1": (2, 1, 0)}


def test_a_config_may_name_no_block() -> None:
    model, example = build("residual")
    config = ElasticityConfig(depth=DepthConfig(mode="manual", skipped_blocks=()))
    assert {choice.dimension for choice in Supernet(model, example, config).space.choices} == {"kernel", "width"}


def test_named_blocks_may_be_independent_and_small() -> None:
    blocks = (("layer1/conv1/conv2d/0", "layer1/bn1/batch_norm/0"),)
    with pytest.raises(ModelError, match="may not be skipped"):  # no layer with a weight that multiplies
        supernet_of("residual", skipped_blocks=blocks)
    blocks = (("layer2/0/relu/relu_/1", "layer2/2/relu/relu_/1"),)
    supernet = supernet_of("residual", mode="independent", skipped_blocks=blocks)
    assert values(supernet) == {"depth:layer2.1": (1, 0)}


@pytest.mark.parametrize("block", [("layer2/0/relu/relu_/1", "x"), ("layer1/conv1/conv2d/0", "layer1/relu/relu_/1")])
def test_what_is_no_block_is_told_where_it_stands(block: tuple[str, str]) -> None:
    blocks = (("layer2/0/relu/relu_/1", "layer2/1/relu/relu_/1"), block)
    with pytest.raises(ModelError, match=r"^\$\.bootstrapNAS\.training\.elasticity\.depth\.skipped_blocks\[1\]: "):
        supernet_of("residual", skipped_blocks=blocks)


@pytest.mark.parametrize("dims", [("depth",), ("kernel", "depth")])
def test_equal_shapes_are_enough_where_no_width_is_elastic(dims: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), middle, nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    expected = net[3](net[1](net[0](x)))
    depth = DepthConfig(skipped_blocks=(("1/relu/0", "2/1/relu/0"),))
    with pytest.raises(ModelError, match="entry and exit must have equal channels in every subnet"):
        Supernet(net, x[:1], ElasticityConfig(depth=depth))
    supernet = Supernet(net, x[:1], ElasticityConfig(dims, depth=depth))
    subnet = supernet.space.validate({**supernet.space.maximum, "depth:2": 0})
    with supernet.activate(subnet):
        assert torch.equal(net(x), expected)
    assert torch.equal(extract(supernet, subnet)(x), expected)


def test_equal_shapes_are_enough_where_all_widths_are_single() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    depth = DepthConfig(skipped_blocks=(("1/relu/0", "3/relu/0"),))

    def supernet_with(*widths: int) -> Supernet:
        width = WidthConfig(overwrite_groups=(("0",),), overwrite_groups_widths=(widths,))
        return Supernet(copy.deepcopy(net), torch.ones(1, 3, 8, 8), ElasticityConfig(width=width, depth=depth))

    assert "depth" in supernet_with(8).space.dimensions
    with pytest.raises(ModelError, match="equal channels in every subnet"):
        supernet_with(8, 4)


def test_named_blocks_do_not_overlap() -> None:
    blocks = (("layer2/0/relu/relu_/1", "layer2/2/relu/relu_/1"), ("layer2/1/relu/relu_/1", "layer2/2/relu/relu_/1"))
    where, message = (
        r"skipped_blocks\[1\]: ",
        r"must not overlap, but .* 'layer2/2/conv1/conv2d/0' is in `skipped_blocks\[0\]`",
    )
    with pytest.raises(ModelError, match=f"{where}blocks {message}"):
        supernet_of("residual", skipped_blocks=blocks)


class Twin(nn.Module):
    """The net without some of its parts, by hand."""

    def __init__(self, net: nn.Module, layer1: bool, layer2: int) -> None:
        super().__init__()
        self.parts = nn.Sequential(
            net.stem, net.layer1 if layer1 else nn.Identity(), net.layer2[: layer2 + 1], net.head
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts(x)


@pytest.mark.parametrize("layer1", [1, 0])
@pytest.mark.parametrize("layer2", [2, 1, 0])
def test_the_first_blocks_of_a_chain_run(layer1: int, layer2: int) -> None:
    supernet = supernet_of("residual")
    example = other_input(supernet.example)
    with torch.no_grad():
        expected = outputs(Twin(supernet.model, bool(layer1), layer2), example)
        with supernet.activate({"depth:layer1": layer1, "depth:layer2.1": layer2}):
            assert_equal(outputs(supernet.model, example), expected)


def test_each_independent_block_is_left_out_by_itself() -> None:
    supernet = supernet_of("residual", mode="independent")
    net: Any = supernet.model
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = net.head(net.layer2[2](net.layer2[0](net.layer1(net.stem(x)))))
        with supernet.activate({**supernet.space.maximum, "depth:layer2.1": 0}):
            assert torch.equal(net(x), expected)


@pytest.mark.parametrize("kept", [(1, 1, 0), (1, 0, 1), (0, 1, 1), (0, 0, 1), (0, 0, 0)])
def test_blocks_in_the_models_own_code_are_left_out(kept: tuple[int, ...]) -> None:
    supernet = supernet_of("loose")
    net: Any = supernet.model
    x = torch.randn(2, 3, 8, 8)
    subnet = {choice.name: keep for choice, keep in zip(supernet.space.choices, kept, strict=True)}
    with torch.no_grad():
        expected = net.stem(x)
        for branch, keep in zip(net.branches, kept, strict=True):
            expected = torch.relu(expected + branch(expected) if keep else expected)
        expected = net.head(expected)
        with supernet.activate(subnet):
            assert torch.equal(net(x), expected)
