"""Subnets in NNCF 2's form: what the multi-elasticity handler says and does."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from enum import Enum
from typing import Any

import pytest
import torch

from bootstrapnas_ext.compat.nncf2 import ElasticityDim, MultiElasticityHandler
from bootstrapnas_ext.compat.nncf2 import dimensions as dimensions_module
from bootstrapnas_ext.config import DepthConfig, ElasticityConfig, KernelConfig, WidthConfig
from bootstrapnas_ext.errors import SubnetError
from bootstrapnas_ext.supernet import Supernet
from tests.compat.nncf2.nas_script import Net

WIDTH, KERNEL, DEPTH = ElasticityDim.WIDTH, ElasticityDim.KERNEL, ElasticityDim.DEPTH
# What NNCF 2.19 makes of this net: kernels of 3 and more, widths in steps of 4.
NNCF2 = ElasticityConfig(width=WidthConfig(min_width=4, width_step=4), kernel=KernelConfig(min_kernel_size=3))


def handler_of(**options: Any) -> MultiElasticityHandler:
    config = ElasticityConfig(**options) if options else NNCF2
    return MultiElasticityHandler(Supernet(Net(), torch.ones(1, 3, 8, 8), config), seed=0)


@pytest.fixture
def handler() -> MultiElasticityHandler:
    return handler_of()


def test_search_space_and_variables(handler: MultiElasticityHandler) -> None:
    widths = [16, 12, 8, 4]
    assert handler.get_available_elasticity_dims() == [WIDTH, KERNEL, DEPTH]
    assert handler.get_search_space() == {
        "width": {0: widths, 1: widths, 2: widths},
        "kernel": [[3], [5, 3], [3], [5, 3], [3]],
        "depth": [[1], [0, 1], []],
    }
    assert handler.width_search_space == {0: widths, 1: widths, 2: widths}
    assert handler.kernel_search_space == [[3], [5, 3], [3], [5, 3], [3]]
    assert handler.depth_search_space == [[1], [0, 1], []]
    assert handler.get_design_vars_info() == (9, [3, 3, 3, 0, 1, 0, 1, 0, 2])


def test_largest_and_smallest(handler: MultiElasticityHandler) -> None:
    maximum = {WIDTH: {0: 16, 1: 16, 2: 16}, KERNEL: [3, 5, 3, 5, 3], DEPTH: []}
    minimum = {WIDTH: {0: 4, 1: 4, 2: 4}, KERNEL: [3, 3, 3, 3, 3], DEPTH: [0, 1]}
    assert handler.get_active_config() == handler.get_maximum_config() == OrderedDict(maximum)
    handler.activate_minimum_subnet()
    assert handler.get_active_config() == handler.get_minimum_config() == OrderedDict(minimum)
    assert handler.supernet.active == handler.supernet.space.minimum
    handler.activate_maximum_subnet()
    assert handler.supernet.active == handler.supernet.space.maximum
    handler.activate_random_subnet()
    assert handler.supernet.active != handler.supernet.space.maximum
    handler.activate_supernet()
    assert handler.supernet.active == handler.supernet.space.maximum


def test_a_config_activates_what_it_says(handler: MultiElasticityHandler) -> None:
    config = OrderedDict([(WIDTH, {0: 8, 1: 4, 2: 12}), (KERNEL, [3, 3, 3, 5, 3]), (DEPTH, [1])])
    handler.activate_subnet_for_config(config)
    assert handler.get_active_config() == config
    assert dict(handler.supernet.active) == {
        "width:stem": 8,
        "width:blocks.0.conv1": 4,
        "width:blocks.1.conv1": 12,
        "kernel:blocks.0.conv1": 3,
        "kernel:blocks.1.conv1": 5,
        "depth:blocks.0": 1,
    }
    handler.activate_subnet_for_config({DEPTH: []})
    assert handler.get_active_config() == {**config, DEPTH: []}


def test_only_the_last_blocks_of_a_chain_are_skipped(handler: MultiElasticityHandler) -> None:
    handler.activate_subnet_for_config({DEPTH: [0]})
    assert handler.get_active_config()[DEPTH] == []


def test_variables_of_a_search_are_a_config(handler: MultiElasticityHandler) -> None:
    assert handler.get_config_from_pymoo([0, 3, 1, 0, 1, 0, 0, 0, 2]) == OrderedDict(
        [(WIDTH, {0: 16, 1: 4, 2: 12}), (KERNEL, [3, 3, 3, 5, 3]), (DEPTH, [])]
    )


def test_every_subnet_has_variables_of_its_own() -> None:
    handler = handler_of(available_elasticity_dims=("kernel", "depth"))
    handler.open(["kernel", "depth"], handler.supernet.space.restrict({"kernel": 2, "depth": 2}))
    _, largest = handler.get_design_vars_info()
    every = list(itertools.product(*(range(last + 1) for last in largest)))
    assert len(every) == handler.enabled_space.size
    for variables in every:
        subnet = handler.subnet_of(handler.get_config_from_pymoo(variables))
        assert handler.variables_of(subnet) == variables


@pytest.mark.parametrize("variables", [[0], [0] * 10, [0, 3, 1, 0, 1, 0, 0, 0, 3], [-1] + [0] * 8])
def test_variables_that_are_no_subnet(handler: MultiElasticityHandler, variables: Any) -> None:
    with pytest.raises(
        SubnetError, match=r"must be 9 indices from 0 to at most \[3, 3, 3, 0, 1, 0, 1, 0, 2\], but got"
    ):
        handler.get_config_from_pymoo(variables)


def test_random_configs_are_in_the_space_and_repeat_with_the_seed() -> None:
    one, other = handler_of(), handler_of()
    configs = [one.get_random_config() for _ in range(5)]
    assert configs == [other.get_random_config() for _ in range(5)]
    assert all(one.config_of(one.subnet_of(config)) == config for config in configs)
    assert len({str(config) for config in configs}) > 1


def test_flops_are_twice_the_macs_of_one_sample(handler: MultiElasticityHandler) -> None:
    config = NNCF2
    batch = MultiElasticityHandler(Supernet(Net(), torch.ones(4, 3, 8, 8), config), seed=0)
    for one in (handler, batch):
        flops, weights = one.count_flops_and_weights_for_active_subnet()
        cost = handler.supernet.cost(handler.supernet.space.maximum)
        assert (flops, weights) == (2 * cost.macs, cost.weights)


def test_disabled_dimensions_stay(handler: MultiElasticityHandler) -> None:
    handler.disable_all()
    assert handler.get_active_config() == handler.get_search_space() == {}
    handler.enable_elasticity(DEPTH)
    handler.activate_minimum_subnet()
    assert handler.supernet.active["depth:blocks.0"] == 0
    assert handler.supernet.active["width:stem"] == 16
    handler.enable_all()
    handler.disable_elasticity(DEPTH)
    assert list(handler.get_active_config()) == [WIDTH, KERNEL]
    assert handler.get_design_vars_info() == (8, [3, 3, 3, 0, 1, 0, 1, 0])


def test_one_dimension_alone(handler: MultiElasticityHandler) -> None:
    assert handler.width_handler is not None
    assert handler.kernel_handler is not None
    handler.width_handler.activate_subnet_for_config({1: 8})
    assert handler.get_active_config()[WIDTH] == {0: 16, 1: 8, 2: 16}
    handler.kernel_handler.activate_subnet_for_config([3, 3, 3, 3, 3])
    handler.width_handler.activate_supernet()
    assert handler.get_active_config()[WIDTH] == {0: 16, 1: 16, 2: 16}
    assert handler.get_active_config()[KERNEL] == [3, 3, 3, 3, 3]
    handler.kernel_handler.activate_maximum_subnet()
    handler.width_handler.activate_minimum_subnet()
    smallest = {WIDTH: {0: 4, 1: 4, 2: 4}, KERNEL: [3, 5, 3, 5, 3], DEPTH: []}
    assert handler.get_active_config() == smallest
    handler.kernel_handler.activate_random_subnet()
    assert handler.get_active_config()[WIDTH] == smallest[WIDTH]
    width = handler_of(available_elasticity_dims=("width",))
    assert width.depth_handler is None
    assert width.get_available_elasticity_dims() == [WIDTH]


def test_groups_have_the_order_of_the_config() -> None:
    groups = (("blocks.1.conv1",), ("stem", "blocks.0.conv2"), ("blocks.0.conv1",))
    width = WidthConfig(overwrite_groups=groups, overwrite_groups_widths=((16, 8), (16,), (16, 4)))
    handler = handler_of(available_elasticity_dims=("width",), width=width)
    assert handler.width_search_space == {0: [16, 8], 1: [16], 2: [16, 4]}
    handler.activate_subnet_for_config({WIDTH: {0: 8, 1: 16, 2: 4}})
    assert dict(handler.supernet.active) == {"width:blocks.1.conv1": 8, "width:blocks.0.conv1": 4}
    assert handler.get_active_config() == {WIDTH: {0: 8, 1: 16, 2: 4}}
    with pytest.raises(SubnetError, match="'width:stem' is not elastic and must be 16, but got 8"):
        handler.activate_subnet_for_config({WIDTH: {1: 8}})


def test_blocks_have_the_order_of_the_config() -> None:
    ends = ["stem/conv2d/0", "blocks/0/relu/relu_/1", "blocks/1/relu/relu_/1"]
    blocks = ((ends[1], ends[2]), (ends[0], ends[1]))
    handler = handler_of(available_elasticity_dims=("depth",), depth=DepthConfig(skipped_blocks=blocks))
    assert handler.depth_search_space == [[0], [0, 1], []]
    handler.activate_subnet_for_config({DEPTH: [0]})
    assert dict(handler.supernet.active) == {"depth:blocks.0": 1}
    assert handler.get_active_config() == {DEPTH: [0]}


def test_channels_are_sorted(handler: MultiElasticityHandler) -> None:
    width = handler.width_handler
    assert isinstance(width, dimensions_module.WidthHandler)
    weight = handler.supernet.model.get_parameter("blocks.0.conv1.weight")
    width.reorganize_weights()
    sums = weight.abs().sum((1, 2, 3))
    assert torch.equal(sums, sums.sort(descending=True).values)
    assert width.get_group_id_by_node_name("blocks.0.conv1") == 1
    assert width.get_group_id_by_node_name("fc") is None


def test_dimensions_by_other_enumerations_and_by_name(handler: MultiElasticityHandler) -> None:
    theirs = Enum("ElasticityDim", {"WIDTH": "width", "DEPTH": "depth"})
    config = {theirs.WIDTH: {0: 8}, "kernel": [3, 3, 3, 5, 3], theirs.DEPTH: [1]}
    handler.activate_subnet_for_config(config)
    assert handler.get_active_config() == {WIDTH: {0: 8, 1: 16, 2: 16}, KERNEL: config["kernel"], DEPTH: [1]}
    assert handler.get_active_config()["depth"] == [1]
    handler.disable_elasticity(theirs.WIDTH)
    handler.disable_elasticity("kernel")
    assert list(handler.get_active_config()) == [DEPTH]
    with pytest.raises(
        SubnetError, match="must be one of the elastic ones, 'width', 'kernel', 'depth', but got 'deep'"
    ):
        handler.enable_elasticity("deep")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("stem", 0),
        ("Net/NNCFConv2d[stem]/conv2d_0", 0),
        ("Net/Sequential[blocks]/Block[0]/NNCFConv2d[conv2]/conv2d_0", 0),  # joined with the stem by an addition
        ("blocks/1/conv2/conv2d/0", 0),
        ("Net/Sequential[blocks]/Block[1]/NNCFConv2d[conv1]/conv2d_0", 2),
        ("Net/NNCFLinear[fc]/linear_0", None),
        ("Net/Sequential[blocks]/Block[0]/ReLU[relu]/relu__0", None),
        ("Net/NNCFConv2d[other]/conv2d_0", None),
    ],
)
def test_groups_are_found_by_names(handler: MultiElasticityHandler, name: str, group: int | None) -> None:
    width = handler.width_handler
    assert isinstance(width, dimensions_module.WidthHandler)
    assert width.get_group_id_by_node_name(name) == group


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widths": {0: 8}}, "one of the elastic ones, 'width', 'kernel', 'depth', but got 'widths'"),
        ({WIDTH: {7: 8}}, "A group of channels must be a number below 3, but got 7"),
        ({WIDTH: {0: 5}}, r"must be one of \[16, 12, 8, 4\], but got 5"),
        ({KERNEL: [3]}, "has 1 kernel sizes, but this super-network has 5 kernels"),
        ({KERNEL: [3, 5, 3, 1, 3]}, r"must be one of \[5, 3\], but got 1"),
        ({KERNEL: [1, 5, 3, 5, 3]}, "'kernel:stem' is not elastic and must be 3, but got 1"),
        ({DEPTH: [2]}, r"A skipped block must be a number below 2, but got \[2\]"),
    ],
)
def test_what_is_not_in_the_space(handler: MultiElasticityHandler, config: Any, message: str) -> None:
    with pytest.raises(SubnetError, match=message):
        handler.activate_subnet_for_config(config)
    assert handler.supernet.active == handler.supernet.space.maximum


def test_more_depths_than_a_list_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimensions_module, "_MOST_DEPTHS", 3)
    handler = handler_of(available_elasticity_dims=("depth",), depth=DepthConfig(mode="independent"))
    with pytest.raises(SubnetError, match="list of all combinations, of which there are 4 here; use"):
        handler.get_search_space()
    assert handler.get_random_config()[DEPTH] in ([], [0], [1], [0, 1])
    assert handler.get_design_vars_info() == (2, [1, 1])
    assert handler.get_config_from_pymoo([1, 0]) == {DEPTH: [0]}
    assert handler.variables_of(handler.subnet_of({DEPTH: [0]})) == (1, 0)


def test_indicators_restrict_what_is_proposed(handler: MultiElasticityHandler) -> None:
    width, depth = handler.width_handler, handler.depth_handler
    assert isinstance(width, dimensions_module.WidthHandler)
    assert isinstance(depth, dimensions_module.DepthHandler)
    assert (width.width_num_params_indicator, depth.depth_indicator) == (-1, 2)
    width.width_num_params_indicator, depth.depth_indicator = 2, 1
    assert (width.width_num_params_indicator, depth.depth_indicator) == (2, 1)
    assert handler.get_search_space()["width"] == {0: [16, 12], 1: [16, 12], 2: [16, 12]}
    assert handler.get_search_space()["depth"] == [[1], []]
    assert handler.get_minimum_config() == {WIDTH: {0: 12, 1: 12, 2: 12}, KERNEL: [3, 3, 3, 3, 3], DEPTH: [1]}
    assert handler.enabled_space.size == 2**3 * 2**2 * 2
    other = handler_of()
    other.load_state(handler.get_state())
    assert other.get_search_space() == handler.get_search_space()
    width.width_num_params_indicator = -1
    assert width.get_search_space()[0] == [16, 12, 8, 4]
    with pytest.raises(SubnetError, match="indicator` must be at least 1, or -1 for all widths, but got 0"):
        width.width_num_params_indicator = 0
    with pytest.raises(SubnetError, match="number of blocks that may be skipped, at least 0, but got -1"):
        depth.depth_indicator = -1


def test_what_a_stage_opens_travels_with_the_state(handler: MultiElasticityHandler) -> None:
    space = handler.supernet.space.restrict({"width": 2, "depth": 2})
    handler.open(["width", "depth"], space)
    other = handler_of()
    other.load_state(handler.get_state())
    for one in (handler, other):
        assert one.get_search_space() == {
            "width": {0: [16, 12], 1: [16, 12], 2: [16, 12]},
            "depth": [[1], []],
        }
        assert one.get_minimum_config() == {WIDTH: {0: 12, 1: 12, 2: 12}, DEPTH: [1]}
