"""Ignored and target scopes, groups that the config names, and settings for some layers only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bootstrapnas_ext.config import (
    BootstrapNASConfig,
    DepthConfig,
    ElasticityConfig,
    KernelConfig,
    KernelOverride,
    WidthConfig,
    WidthOverride,
)
from bootstrapnas_ext.elasticity.width_rules import width_values
from bootstrapnas_ext.errors import ConfigError, ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_close, assert_equal, build, other_input, outputs


def supernet_of(net: str, *dims: str, **options: Any) -> Supernet:
    model, example = build(net)
    return Supernet(model, example, ElasticityConfig(available_elasticity_dims=dims, **options))


def choices(supernet: Supernet) -> dict[str, tuple[int, ...]]:
    return {choice.name: choice.values for choice in supernet.space.choices}


def elastic(supernet: Supernet) -> set[str]:
    return {choice.name.partition(":")[2] for choice in supernet.space.choices}


# The net "residual": the stem and layer1 share a group of channels, and so do the blocks of layer2.
WIDTHS = {"stem.0", "layer1.conv1", "layer2.0.conv1", "layer2.0.conv2", "layer2.1.conv1", "layer2.2.conv1"}
BLOCKS = {"layer1", "layer2.1", "layer2.2"}
INDEPENDENT = DepthConfig(mode="independent")
KERNELS = {"stem.0", "layer1.conv1", "layer1.conv2"} | {f"layer2.{i}.conv{j}" for i in range(3) for j in (1, 2)}


def test_what_is_elastic_without_scopes() -> None:
    assert elastic(supernet_of("residual", "width")) == WIDTHS
    assert elastic(supernet_of("residual", "depth", depth=INDEPENDENT)) == BLOCKS
    assert elastic(supernet_of("residual", "kernel")) == KERNELS


@pytest.mark.parametrize(
    ("scopes", "widths", "blocks", "kernels"),
    [
        ("layer1.conv1", {"layer1.conv1"}, {"layer1"}, {"layer1.conv1"}),
        ("layer1/conv1/conv2d/0", {"layer1.conv1"}, {"layer1"}, {"layer1.conv1"}),
        ("layer1.conv1.weight", {"layer1.conv1"}, {"layer1"}, {"layer1.conv1"}),
        ("layer1", {"stem.0", "layer1.conv1"}, {"layer1"}, {"layer1.conv1", "layer1.conv2"}),
        ("layer1.bn1", set(), {"layer1"}, set()),  # it makes no channels of its own
        (("stem", "layer2.1.conv1"), {"stem.0", "layer2.1.conv1"}, {"layer2.1"}, {"stem.0", "layer2.1.conv1"}),
        (r"{re}layer2\.[01]\.conv1", {"layer2.0.conv1", "layer2.1.conv1"}, {"layer2.1"}, None),
        (r"{re}layer2/[01]/conv1/.*", {"layer2.0.conv1", "layer2.1.conv1"}, {"layer2.1"}, None),
        (r"{re}.*conv1", WIDTHS - {"stem.0", "layer2.0.conv2"}, BLOCKS, None),
        ("{type}linear", set(), set(), set()),
        ((), set(), set(), set()),
    ],
)
def test_ignored_scopes(scopes: Any, widths: set[str], blocks: set[str], kernels: set[str] | None) -> None:
    assert WIDTHS - elastic(supernet_of("residual", "width", ignored_scopes=scopes)) == widths
    left = supernet_of("residual", "kernel", ignored_scopes=scopes)
    assert KERNELS - elastic(left) == (widths if kernels is None else kernels)
    # Another dimension, so that there is something elastic even where all blocks are ignored.
    found = supernet_of("residual", "depth", "kernel", ignored_scopes=scopes, depth=INDEPENDENT)
    assert BLOCKS - {name.partition(":")[2] for name in choices(found) if name.startswith("depth:")} == blocks


@pytest.mark.parametrize(
    ("scopes", "widths", "blocks", "kernels"),
    [
        ("layer2", WIDTHS - {"stem.0", "layer1.conv1"}, {"layer2.1", "layer2.2"}, 6),
        ("layer2.2.conv1", {"layer2.2.conv1"}, {"layer2.2"}, 1),
        ("layer1.conv2", {"stem.0"}, {"layer1"}, 1),  # the stem makes the same channels
        ("{type}conv2d", WIDTHS, BLOCKS, 9),
        (
            ("layer1.conv1", r"{re}layer2\.1.*"),
            {"layer1.conv1", "layer2.1.conv1", "layer2.0.conv2"},
            {"layer1", "layer2.1"},
            3,
        ),
    ],
)
def test_target_scopes(scopes: Any, widths: set[str], blocks: set[str], kernels: int) -> None:
    assert elastic(supernet_of("residual", "width", target_scopes=scopes)) == widths
    found = elastic(supernet_of("residual", "depth", target_scopes=scopes, depth=INDEPENDENT))
    assert found == blocks
    assert len(choices(supernet_of("residual", "kernel", target_scopes=scopes))) == kernels


def test_static_layers_have_the_entry_as_their_reason() -> None:
    supernet = supernet_of("residual", "width", "depth", "kernel", ignored_scopes=("stem", "layer1"))
    reasons = supernet.static_layers()
    tied = "ignored by `ignored_scopes` (entry 'stem' names 'stem.0' of the same group)"
    assert reasons["width"]["stem.0"] == reasons["width"]["layer1.conv2"] == tied
    assert reasons["width"]["layer1.conv1"] == "ignored by `ignored_scopes` (entry 'layer1')"
    assert reasons["depth"] == {"layer1": "ignored by `ignored_scopes` (entry 'layer1')"}
    assert reasons["kernel"]["layer1.conv2"] == "ignored by `ignored_scopes` (entry 'layer1')"
    targeted = supernet_of("residual", "width", "depth", "kernel", target_scopes="layer2.1").static_layers()
    assert targeted["width"]["stem.0"] == "not among `target_scopes`"
    assert targeted["depth"] == {"layer1": "not among `target_scopes`", "layer2.2": "not among `target_scopes`"}
    assert targeted["kernel"]["stem.0"] == "not among `target_scopes`"


def test_an_ignored_block_cuts_its_chain() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1)) for _ in range(5)
            )

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + block(x)
            return x.mean()

    config = ElasticityConfig(("depth",), depth=DepthConfig(min_block_size=3, ignored_scopes="blocks.2"))
    supernet = Supernet(Net(), ExampleInput((torch.randn(2, 4, 6, 6),)), config)
    assert sorted(values for values in choices(supernet).values()) == [(2, 1, 0), (2, 1, 0)]
    net: Any = supernet.model
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad(), supernet.activate(supernet.space.minimum):
        assert torch.equal(net(x), (x + net.blocks[2](x)).mean())


def test_scopes_of_a_dimension_come_in_addition() -> None:
    supernet = supernet_of(
        "residual",
        "width",
        "kernel",
        ignored_scopes="layer1",
        width=WidthConfig(ignored_scopes=("layer2.1",)),
        kernel=KernelConfig(ignored_scopes="stem"),
    )
    found = choices(supernet)
    assert {name for name in found if name.startswith("width:")} == {
        f"width:{name}" for name in ("layer2.0.conv1", "layer2.2.conv1")
    }
    assert {f"kernel:{name}" for name in KERNELS} - set(found) == {
        f"kernel:{name}" for name in ("stem.0", "layer1.conv1", "layer1.conv2")
    }


def test_subnets_with_scopes_are_right() -> None:
    supernet = supernet_of("residual", "width", "depth", "kernel", ignored_scopes=("layer1.conv1", "layer2.2"))
    example = other_input(supernet.example)
    with torch.no_grad():
        assert_equal(outputs(supernet.model, example), outputs(build("residual")[0], example))
        small = extract(supernet, supernet.space.minimum)
        with supernet.activate(supernet.space.minimum):
            assert_close(outputs(supernet.model, example), outputs(small, example))
    shapes = {name: tuple(tensor.shape) for name, tensor in small.state_dict().items()}
    assert shapes["layer1.conv1.weight"] == (16, 4, 3, 3)
    assert shapes["layer2.0.conv1.weight"] == (4, 4, 1, 1)
    assert shapes["layer2.2.conv1.weight"] == (24, 24, 3, 3)


def read(block: dict[str, Any], **top: Any) -> ElasticityConfig:
    config = {"bootstrapNAS": {"training": {"elasticity": block}}, **top}
    return BootstrapNASConfig.from_nncf(config).training.elasticity


@pytest.mark.parametrize(
    ("block", "top", "line"),
    [
        (
            {"ignored_scopes": ["stem", "layer1.conv3"]},
            {},
            r"\$\.bootstrapNAS\.training\.elasticity\.ignored_scopes: must name something in the model, but got "
            r"'layer1\.conv3', which names nothing; did you mean 'layer1\.conv[12]'\?",
        ),
        ({"width": {"target_scopes": "layr1"}}, {}, r"elasticity\.width\.target_scopes: .*did you mean 'layer1'\?"),
        ({"depth": {"ignored_scopes": "layr1"}}, {}, r"elasticity\.depth\.ignored_scopes: .*did you mean 'layer1'\?"),
        ({"kernel": {"ignored_scopes": "layr1"}}, {}, r"elasticity\.kernel\.ignored_scopes: .*did you mean 'layer1'\?"),
        ({}, {"ignored_scopes": "haed"}, r"^\$\.ignored_scopes: must name .*did you mean 'head'\?"),
        ({"target_scopes": "stem"}, {"target_scopes": ["haed"]}, r"^\$\.target_scopes: must name .*'head'\?"),
        ({"ignored_scopes": "{type}conv2"}, {}, r"'\{type\}conv2', which names nothing; did you mean 'conv2d'\?"),
        (
            {"ignored_scopes": "{re}^conv1"},
            {},
            r"'\{re\}\^conv1', which names nothing; names are paths of modules",
        ),
        ({"width": {"overrides": {"layr1": {}}}}, {}, r"width\.overrides\.layr1: .*did you mean 'layer1'\?"),
        (
            {"kernel": {"overrides": {"layer2.0.downsample": {}}}},
            {},
            r"overrides\['layer2\.0\.downsample'\]: must name a layer with a kernel",
        ),
        ({"width": {"overrides": {"{type}relu": {}}}}, {}, r"overrides.*: must name a layer with a width"),
    ],
)
def test_a_scope_that_names_nothing_is_an_error(block: dict[str, Any], top: dict[str, Any], line: str) -> None:
    model, example = build("residual")
    with pytest.raises(ConfigError, match=line):
        Supernet(model, example, read(block, **top))


def test_an_invalid_expression_is_an_error_in_python_too() -> None:
    with pytest.raises(ConfigError, match=r"elasticity\.ignored_scopes: must be a regular expression after '\{re\}'"):
        supernet_of("residual", "width", ignored_scopes="{re}(")


def test_a_module_that_does_nothing_may_be_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Identity(), nn.Conv2d(16, 4, 1))
    config = ElasticityConfig(("width",), ignored_scopes="1")
    supernet = Supernet(model, ExampleInput((torch.randn(2, 3, 8, 8),)), config)
    assert elastic(supernet) == {"0"}


def test_scopes_of_the_top_level_count() -> None:
    config = read(
        {"ignored_scopes": "layer2", "target_scopes": "layer1"}, ignored_scopes="stem", target_scopes=["head"]
    )
    assert config.ignored_scopes == ("stem", "layer2")
    assert config.target_scopes == ("head", "layer1")
    model, example = build("residual")
    supernet = Supernet(model, example, read({"available_elasticity_dims": ["width"]}, ignored_scopes=["layer2"]))
    assert elastic(supernet) == {"stem.0", "layer1.conv1"}


def test_overwritten_groups_alone_are_elastic() -> None:
    width = WidthConfig(
        overwrite_groups=(("stem", "layer1.conv2"), ("layer2.1.conv1",)), overwrite_groups_widths=((5, 16, 9), (24, 7))
    )
    supernet = supernet_of("residual", "width", width=width)
    assert choices(supernet) == {"width:stem.0": (16, 9, 5), "width:layer2.1.conv1": (24, 7)}
    assert supernet.static_layers()["width"]["layer1.conv1"] == "not among `overwrite_groups`"
    example = other_input(supernet.example)
    with torch.no_grad(), supernet.activate(supernet.space.minimum):
        assert [tensor.shape for tensor in outputs(supernet.model, example)] == [(3, 5)]


def test_overwritten_groups_without_widths_have_those_of_the_settings() -> None:
    width = WidthConfig(overwrite_groups=(("layer1.conv2",),), width_multipliers=(1, 0.5))
    assert choices(supernet_of("residual", "width", width=width)) == {"width:stem.0": (16, 8)}


@pytest.mark.parametrize(
    ("groups", "widths", "line"),
    [
        (
            (("stem",), ("layer1.conv1", "layer2.0.conv1")),
            None,
            r"overwrite_groups\[1\]: must name layers that share exactly one group of channels, but got "
            r"\['layer1\.conv1', 'layer2\.0\.conv1'\], that is the layers \['layer1\.conv1', 'layer2\.0\.conv1'\], "
            r"which share 0",
        ),
        ((("layer1.bn1",),), None, r"that is the layers \[\], which share 0"),
        (
            (("head",),),
            None,
            r"overwrite_groups\[0\]: must be layers whose width can be elastic, .*output of the model",
        ),
        (
            (("stem",), ("layer1.conv2",)),
            None,
            r"overwrite_groups\[1\]: must be other channels than those of the lists",
        ),
        ((("stm",),), None, r"overwrite_groups\[0\]: must name something in the model, .*did you mean 'stem'"),
        (
            (("stem",),),
            ((32, 8),),
            r"overwrite_groups_widths\[0\]: widths must contain 16, the width of 'stem\.0', and only "
            r"multiples of 1 up to it, but got \[32, 8\]",
        ),
        ((("stem",),), ((8, 4),), r"widths must contain 16, the width of 'stem\.0'.*but got \[8, 4\]"),
    ],
)
def test_wrong_groups_are_errors(groups: Any, widths: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        supernet_of("residual", "width", width=WidthConfig(overwrite_groups=groups, overwrite_groups_widths=widths))


def test_a_group_that_is_named_and_ignored_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"that of \['stem'\] is not: ignored by .* \(entry 'layer1' names"):
        supernet_of("residual", "width", ignored_scopes="layer1", width=WidthConfig(overwrite_groups=(("stem",),)))


def test_a_block_that_is_named_and_ignored_is_an_error() -> None:
    blocks = (("stem/2/relu/0", "layer1/relu/relu_/1"),)
    with pytest.raises(ModelError, match=r"skipped_blocks\[0\]: a block must be allowed by the scopes, but 'layer1'"):
        supernet_of("residual", "depth", ignored_scopes="layer1", depth=DepthConfig(skipped_blocks=blocks))


def test_layers_that_make_several_groups_name_none() -> None:
    with pytest.raises(ConfigError, match=r"\['depthwise'\], that is the layers \['depthwise.0'\], which share 2"):
        supernet_of("concat_depthwise", "width", width=WidthConfig(overwrite_groups=(("depthwise",),)))
    width = WidthConfig(overwrite_groups=(("depthwise", "two"),), overwrite_groups_widths=((24, 8),))
    assert choices(supernet_of("concat_depthwise", "width", width=width)) == {"width:two": (24, 8)}


@pytest.mark.parametrize(
    ("base", "override", "expected"),
    [
        ({}, {"widths": (7, 24)}, (24, 7)),
        ({}, {"width_multipliers": (0.5, 1)}, (24, 12)),
        ({}, {"max_num_widths": 2}, (24, 16)),
        ({}, {"divisor": 2}, (24, 18, 12, 6)),
        ({}, {"min_width": 10, "width_step": 5}, (24, 19, 14)),
        ({"width_multipliers": (1, 0.5)}, {"width_step": 4, "min_width": 16}, (24, 20, 16)),
        ({"width_multipliers": (1, 0.5)}, {"divisor": 1, "min_width": 4}, (24, 12)),
        ({"width_step": 4, "min_width": 16}, {"width_multipliers": (1, 0.75)}, (24, 16)),
        ({"width_step": 4, "min_width": 16}, {"max_num_widths": 2}, (24, 20)),
        ({}, {}, (24, 16, 12, 4)),
    ],
)
def test_widths_of_one_layer(base: dict[str, Any], override: dict[str, Any], expected: tuple[int, ...]) -> None:
    width = WidthConfig(**base, overrides={"layer2.1.conv1": WidthOverride(**override)})
    found = choices(supernet_of("residual", "width", width=width))
    assert found["width:layer2.1.conv1"] == expected
    without = choices(supernet_of("residual", "width", width=WidthConfig(**base)))
    assert {**found, "width:layer2.1.conv1": ()} == {**without, "width:layer2.1.conv1": ()}


def test_overrides_of_one_group_agree() -> None:
    def width(**one: Any) -> WidthConfig:
        two = WidthOverride(width_multipliers=(1, 0.5))
        return WidthConfig(overrides={"stem": WidthOverride(**one), "layer1.conv2": two})

    assert choices(supernet_of("residual", "width", width=width(width_multipliers=(1, 0.5))))["width:stem.0"] == (16, 8)
    line = (
        r"width\.overrides\['layer1\.conv2'\]: must say the same about 'stem\.0' as \$\..*\.overrides\.stem, because "
        r"they share it, but got \{'width_multipliers': \(1, 0\.5\)\} and \{'widths': \(16, 4\)\}; remove one"
    )
    with pytest.raises(ConfigError, match=line):
        supernet_of("residual", "width", width=width(widths=(16, 4)))


def test_overwritten_widths_and_overrides_agree() -> None:
    width = WidthConfig(
        overwrite_groups=(("stem",),),
        overwrite_groups_widths=((16, 4),),
        overrides={"stem": WidthOverride(widths=(16, 8))},
    )
    with pytest.raises(ConfigError, match=r"overwrite_groups_widths\[0\]: must say the same about 'stem\.0'"):
        supernet_of("residual", "width", width=width)


def test_widths_of_grouped_convolutions_are_whole_groups() -> None:
    def width(*widths: int) -> WidthConfig:
        return WidthConfig(overrides={"stem": WidthOverride(widths=widths)})

    assert choices(supernet_of("grouped", "width", width=width(32, 16)))["width:stem.0"] == (4, 2)  # of 8 channels each
    with pytest.raises(ConfigError, match=r"overrides\.stem: widths must .*multiples of 8 up to it, but"):
        supernet_of("grouped", "width", width=width(32, 12))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({"kernel_sizes": (1, 5)}, (5, 1)),
        ({"min_kernel_size": 3}, (5, 3)),
        ({"max_num_kernels": 2}, (5, 3)),
        ({}, (5, 3, 1)),
    ],
)
def test_kernels_of_one_layer(override: dict[str, Any], expected: tuple[int, ...]) -> None:
    kernel = KernelConfig(overrides={"layers.4": KernelOverride(**override)})
    found = choices(supernet_of("chain", "kernel", kernel=kernel))
    assert found == {"kernel:layers.0": (3, 1), "kernel:layers.4": expected}


def test_one_kernel_size_is_static() -> None:
    kernel = KernelConfig(overrides={"layers.4": KernelOverride(kernel_sizes=(5,))})
    supernet = supernet_of("chain", "kernel", kernel=kernel)
    assert supernet.static_layers()["kernel"]["layers.4"] == "`kernel_sizes` has no smaller one"


@pytest.mark.parametrize("sizes", [(3, 1), (5, 4), (7, 5), (5, 2)])
def test_impossible_kernel_sizes_are_errors(sizes: tuple[int, ...]) -> None:
    kernel = KernelConfig(overrides={"layers.4": KernelOverride(kernel_sizes=sizes)})
    with pytest.raises(ConfigError, match=r"kernel_sizes: must contain 5, the size of 'layers\.4', and no other than"):
        supernet_of("chain", "kernel", kernel=kernel)


def test_kernel_sizes_do_not_need_negative_padding() -> None:
    kernel = KernelConfig(overrides={"0": KernelOverride(kernel_sizes=(7, 3))})
    config = ElasticityConfig(("kernel",), kernel=kernel)
    model = nn.Sequential(nn.Conv2d(3, 4, 7, padding=1))
    with pytest.raises(ConfigError, match=r"no other than \[7, 5\], which keep the size of its output"):
        Supernet(model, ExampleInput((torch.randn(1, 3, 9, 9),)), config)


@given(
    size=st.integers(64, 2048),
    parts=st.lists(st.floats(0.01, 0.99), max_size=4),
)
def test_divisor_is_one_setting(size: int, parts: list[float]) -> None:
    for multipliers in (None, (1.0, *parts)):
        widths = width_values(size, 1, WidthConfig(width_multipliers=multipliers, divisor=16))
        assert widths[0] == size
        assert all(width % 16 == 0 for width in widths[1:])


def test_divisor_counts_in_every_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 100, 1), nn.ReLU(), nn.Conv2d(100, 2, 1))
    for multipliers in (None, (1.0, 0.9, 0.7, 0.4, 0.2)):
        width = WidthConfig(divisor=16, width_multipliers=multipliers)
        supernet = Supernet(model, ExampleInput((torch.randn(2, 3, 8, 8),)), ElasticityConfig(("width",), width=width))
        assert {values[0] for values in choices(supernet).values()} == {64, 100}
        assert all(value % 16 == 0 for values in choices(supernet).values() for value in values[1:])
        supernet.release()


def test_widths_of_attention_are_whole_heads() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(8, 32) for _ in range(3))
            self.out = nn.Linear(32, 8)

        def forward(self, x: Tensor) -> Tensor:
            heads = [layer(x).view(2, 5, 4, 8).transpose(1, 2) for layer in (self.query, self.key, self.value)]
            return self.out(nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(2, 5, -1))

    def supernet(*widths: int) -> Supernet:
        width = WidthConfig(overrides={"value": WidthOverride(widths=widths)})
        return Supernet(Attention(), torch.randn(2, 5, 8), ElasticityConfig(("width",), width=width))

    assert choices(supernet(32, 8)) == {"width:query": (4, 1)}  # heads of 8 channels
    with pytest.raises(ConfigError, match=r"overrides\.value: widths must contain 32, .*multiples of 8 up to it, but"):
        supernet(32, 12)
