"""Names that NNCF 2 gave to operations, in configs for the same models."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from bootstrapnas_ext._nncf import trace
from bootstrapnas_ext.config import BootstrapNASConfig, DepthConfig, ElasticityConfig, NNCFConfig, WidthConfig
from bootstrapnas_ext.elasticity.nncf2_names import NNCF2Names
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.flow import create_compressed_model
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet


class Block(nn.Module):
    """A residual block with activations that are one module, called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu(self.conv1(x)))
        y += x
        return self.dropout(self.relu(y))


class Net(nn.Module):
    """Two blocks behind an activation that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU6(inplace=True))
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x)).mean((2, 3))
        return self.fc(x) * 2


EXAMPLE = torch.ones(2, 3, 8, 8)
BLOCK0, BLOCK1 = (f"Net/Sequential[blocks]/Block[{index}]" for index in (0, 1))
TRANSLATED = {
    "Net/Sequential[stem]/NNCFConv2d[0]/conv2d_0": "stem/0/conv2d/0",
    "Net/Sequential[stem]/ReLU6[1]/hardtanh_0": "stem/1/hardtanh/0",
    f"{BLOCK0}/NNCFConv2d[conv1]/conv2d_0": "blocks/0/conv1/conv2d/0",
    f"{BLOCK0}/ReLU[relu]/relu__0": "blocks/0/relu/relu_/0",
    f"{BLOCK0}/ReLU[relu]/relu__1": "blocks/0/relu/relu_/1",
    f"{BLOCK0}/__iadd___0": "blocks/0/add_/0",
    f"{BLOCK0}/Dropout[dropout]/dropout_0": "blocks/0/relu/relu_/1",
    "Net/mean_0": "/mean/0",
    "Net/NNCFLinear[fc]/linear_0": "fc/linear/0",
    "Net/__mul___0": "/mul/0",
    "Renamed/Other[fc]/linear_0": "fc/linear/0",  # classes do not count
    f"{BLOCK0}/ReLU[relu]/relu__2": None,
    "Net/NNCFLinear[fc2]/linear_0": None,
    "fc/linear/0": None,
    "fc": None,
}


def supernet_of(*dims: str, **options: Any) -> Supernet:
    return Supernet(Net(), EXAMPLE, ElasticityConfig(available_elasticity_dims=dims, **options))


@pytest.fixture(scope="module")
def names() -> NNCF2Names:
    return NNCF2Names(supernet_of("width").graph)


@pytest.mark.parametrize(("old", "own"), TRANSLATED.items())
def test_names_are_found(names: NNCF2Names, old: str, own: str | None) -> None:
    assert names.find(old) == own


def test_a_block_may_begin_with_an_input_of_the_model() -> None:
    class Residual(nn.Module):
        """A block on the second input."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

        def forward(self, scale: Tensor, x: Tensor) -> Tensor:
            return self.last(x + self.inner(x)) * scale

    blocks = (("/nncf_model_input_1", "Residual/__add___0"),)
    example = ExampleInput((torch.ones(1, 1, 1, 1), torch.ones(1, 4, 8, 8)), {})
    with pytest.warns(
        UserWarning, match=r"skipped_blocks: has names of NNCF 2; write 'x' instead of '/nncf_model_input_1'"
    ):
        supernet = Supernet(Residual(), example, ElasticityConfig(depth=DepthConfig(skipped_blocks=blocks)))
    assert supernet.config.depth.skipped_blocks == (("x", "/add/0"),)
    assert "depth" in supernet.space.dimensions
    with pytest.raises(ConfigError, match="'/nncf_model_input_2', a name of NNCF 2 that fits none"):
        Supernet(
            Residual(),
            example,
            ElasticityConfig(depth=DepthConfig(skipped_blocks=(("/nncf_model_input_2", "/add/0"),))),
        )


class Spelled(nn.Module):
    """The same functions as operators, methods, functions and modules, in place and not, and some that do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dropout = nn.Conv2d(3, 16, 1), nn.Dropout(0.1)
        self.relu6, self.silu, self.threshold = nn.ReLU6(True), nn.SiLU(), nn.Threshold(0.1, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv(x)
        x = self.threshold(self.silu(self.relu6(a * 1)))
        x = torch.add(x, a) + a
        x = x.add(a)
        x += a
        x = x.add_(a) + 1
        x = F.relu6(F.hardtanh(2 * x * a / 3))
        x = x.mul(a)
        x *= a
        x = 1 - (2 / x) ** 2
        x -= a
        x = F.relu(F.dropout(-x, 0.1, self.training).relu(), inplace=True)
        x = F.dropout(self.dropout(x).relu_().neg(), 0.1, self.training)
        x = x.flatten(2) @ a.flatten(2).transpose(1, 2)
        return x.flatten(1).flatten(1).mean(1, keepdim=True)


# In the order of execution, as NNCF 2.19 names them; tests/nncf2/test_names.py compares it with that.
SPELLED = {
    "Spelled/NNCFConv2d[conv]/conv2d_0": "conv/conv2d/0",
    "Spelled/__mul___0": "/mul/0",
    "Spelled/ReLU6[relu6]/hardtanh_0": "relu6/hardtanh/0",
    "Spelled/SiLU[silu]/silu_0": "silu/silu/0",
    "Spelled/Threshold[threshold]/threshold_0": "threshold/_threshold/0",
    "Spelled/add_0": "/add/0",
    "Spelled/__add___0": "/add/1",
    "Spelled/add_1": "/add/2",
    "Spelled/__iadd___0": "/add_/0",
    "Spelled/add__0": "/add_/1",
    "Spelled/__add___1": "/add/3",
    "Spelled/__rmul___0": "/mul/1",
    "Spelled/__mul___1": "/mul/2",
    "Spelled/__truediv___0": "/div/0",
    "Spelled/hardtanh_0": "/hardtanh/0",
    "Spelled/relu6_0": "/relu6/0",
    "Spelled/mul_0": "/mul/3",
    "Spelled/__imul___0": "/mul_/0",
    "Spelled/__rtruediv___0": "/__rdiv__/0",
    "Spelled/__pow___0": "/pow/0",
    "Spelled/__rsub___0": "/__rsub__/0",
    "Spelled/__isub___0": "/sub_/0",
    "Spelled/__neg___0": "/neg/0",
    "Spelled/dropout_0": "/neg/0",  # what does nothing stands for what it gets
    "Spelled/relu_0": "/relu/0",
    "Spelled/relu__0": "/relu_/0",
    "Spelled/Dropout[dropout]/dropout_0": "/relu_/0",
    "Spelled/relu__1": "/relu_/1",
    "Spelled/neg_0": "/neg/1",
    "Spelled/dropout_1": "/neg/1",
    "Spelled/flatten_0": "/flatten/0",
    "Spelled/flatten_1": "/flatten/1",
    "Spelled/transpose_0": "/transpose/0",
    "Spelled/__matmul___0": "/matmul/0",
    "Spelled/flatten_2": "/flatten/2",
    "Spelled/flatten_3": "/flatten/2",
    "Spelled/mean_0": "/mean/0",
}


def test_functions_are_counted_as_the_code_writes_them() -> None:
    before = dict(vars(torch.Tensor))
    graph = trace(Spelled(), (EXAMPLE,), {})
    assert dict(vars(torch.Tensor)) == before
    names = NNCF2Names(graph)
    assert {old: names.find(old) for old in SPELLED} == SPELLED
    assert set(SPELLED.values()) == graph.op_index.keys()


class Mixed(nn.Module):
    """A block that ends by adding in place, after an addition that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = (nn.Conv2d(channels, 16, 3, padding=1) for channels in (3, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.conv1(x)
        y += self.conv2(y)
        return y.mean((2, 3))


def test_a_block_ends_at_the_operation_that_was_named() -> None:
    torch.manual_seed(0)
    model = Mixed().eval()
    depth = DepthConfig(skipped_blocks=(("Mixed/NNCFConv2d[stem]/conv2d_0", "Mixed/__iadd___0"),))
    with pytest.warns(UserWarning, match=r"'/add_/0' instead of 'Mixed/__iadd___0'$"):
        supernet = Supernet(model, EXAMPLE, ElasticityConfig(available_elasticity_dims=("depth",), depth=depth))
    with torch.no_grad(), supernet.activate(supernet.space.minimum):
        assert torch.equal(model(EXAMPLE), model.stem(EXAMPLE).mean((2, 3)))


def test_a_pattern_may_name_operators(names: NNCF2Names) -> None:
    assert names.matching(r".*/__iadd___0", Net()) == ["blocks/0/add_/0", "blocks/1/add_/0"]
    with pytest.warns(UserWarning, match=r"elasticity\.ignored_scopes: .*'blocks/0/add_/0'"):
        supernet = supernet_of("depth", ignored_scopes=r"{re}Block\[0\]/__iadd__")
    assert {choice.name for choice in supernet.space.choices} == {"depth:blocks.1"}


def test_the_warning_names_the_key_that_has_the_name() -> None:
    old = f"{BLOCK0}/NNCFConv2d[conv1]/conv2d_0"
    settings = {"input_info": {"sample_size": [1, 3, 8, 8]}, "ignored_scopes": [old], "bootstrapNAS": {}}
    message = r"^\$\.ignored_scopes: has names of NNCF 2; write 'blocks/0/conv1/conv2d/0' instead of"
    with pytest.warns(UserWarning, match=message):
        create_compressed_model(Net().eval(), NNCFConfig.from_dict(settings))
    settings["ignored_scopes"] = ["Net/NNCFLinear[fc]/linear_9"]
    with pytest.raises(ConfigError, match=r"^\$\.ignored_scopes: must name operations of the model"):
        create_compressed_model(Net().eval(), NNCFConfig.from_dict(settings))


def test_a_pattern_is_searched_for_in_the_long_names(names: NNCF2Names) -> None:
    assert names.matching(r"Block\[1\]/NNCFConv2d", Net()) == ["blocks/1/conv1/conv2d/0", "blocks/1/conv2/conv2d/0"]
    assert names.matching(r"^Net/NNCFLinear\[fc\]/linear_0$", Net()) == ["fc/linear/0"]


def test_the_warning_names_the_line_that_called_the_package() -> None:
    blocks = [["Net/Sequential[stem]/ReLU6[1]/hardtanh_0", f"{BLOCK0}/ReLU[relu]/relu__1"]]
    elasticity = {"available_elasticity_dims": ["depth"], "depth": {"mode": "manual", "skipped_blocks": blocks}}
    settings = {"input_info": {"sample_size": [1, 3, 8, 8]}, "bootstrapNAS": {"training": {"elasticity": elasticity}}}
    with pytest.warns(UserWarning, match=r"depth\.skipped_blocks: has names of NNCF 2") as caught:
        create_compressed_model(Net().eval(), NNCFConfig.from_dict(settings))
    assert [warning.filename for warning in caught] == [__file__]


def test_blocks_by_old_names_are_those_by_own_names() -> None:
    old = (
        ("Net/Sequential[stem]/ReLU6[1]/hardtanh_0", f"{BLOCK0}/ReLU[relu]/relu__1"),
        (f"{BLOCK0}/ReLU[relu]/relu__1", f"{BLOCK1}/ReLU[relu]/relu__1"),
    )
    own = (("stem/1/hardtanh/0", "blocks/0/relu/relu_/1"), ("blocks/0/relu/relu_/1", "blocks/1/relu/relu_/1"))
    with pytest.warns(UserWarning, match=r"depth\.skipped_blocks: has names of NNCF 2; write ") as caught:
        supernet = supernet_of("depth", depth=DepthConfig(mode="manual", skipped_blocks=old))
    assert len(caught) == 1
    pairs = dict(zip((name for block in old for name in block), (name for block in own for name in block), strict=True))
    assert all(f"{today!r} instead of {name!r}" in str(caught[0].message) for name, today in pairs.items())
    assert caught[0].filename == __file__
    assert supernet.config.depth.skipped_blocks == own
    assert supernet.space.choices[0].values == (2, 1, 0)
    assert supernet.space == supernet_of("depth", depth=DepthConfig(skipped_blocks=own)).space


def test_groups_and_scopes_by_old_names() -> None:
    groups = ((f"{BLOCK0}/NNCFConv2d[conv1]/conv2d_0",), (f"{BLOCK1}/NNCFConv2d[conv1]/conv2d_0",))
    width = WidthConfig(overwrite_groups=groups, overwrite_groups_widths=((16, 8), (16, 4)))
    with pytest.warns(UserWarning, match=r"width\.overwrite_groups: has names of NNCF 2; write 'blocks/0/conv1/"):
        supernet = supernet_of("width", width=width)
    assert {choice.name: choice.values for choice in supernet.space.choices} == {
        "width:blocks.0.conv1": (16, 8),
        "width:blocks.1.conv1": (16, 4),
    }
    with pytest.warns(UserWarning, match=r"elasticity\.ignored_scopes: has names of NNCF 2; write \['blocks/0/conv1"):
        supernet = supernet_of("kernel", ignored_scopes=r"{re}NNCFConv2d\[conv1\]")
    assert {choice.name for choice in supernet.space.choices} == {
        "kernel:stem.0",
        "kernel:blocks.0.conv2",
        "kernel:blocks.1.conv2",
    }


def test_importance_by_old_names_for_every_weight(tmp_path: Path) -> None:
    path = tmp_path / "importance.pth"
    scores = {f"{BLOCK0}/NNCFConv2d[conv1]/conv2d_0": torch.arange(16.0)}
    scores |= {f"{BLOCK1}/NNCFConv2d[conv1]/conv2d_0": torch.arange(16.0).view(16, 1, 1, 1).expand(16, 16, 3, 3)}
    torch.save(scores, path)
    width = WidthConfig(
        filter_importance="external",
        external_importance_path=str(path),
        overwrite_groups=(("blocks.0.conv1",), ("blocks.1.conv1",)),
    )
    supernet = supernet_of("width", width=width)
    before = {name: tensor.clone() for name, tensor in supernet.model.state_dict().items()}
    supernet.reorganize()
    after = supernet.model.state_dict()
    for name in ("blocks.0.conv1.weight", "blocks.1.conv1.weight"):
        assert torch.equal(after[name], before[name].flip(0))


def test_what_is_no_old_name_is_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = ElasticityConfig(ignored_scopes=("{re}conv1", "stem"), width=WidthConfig(target_scopes="blocks"))
        assert Supernet(Net(), EXAMPLE, config).config == config


@pytest.mark.parametrize("scope", [f"{BLOCK0}/ReLU[relu]/relu__7", "VGG/Sequential[features]/NNCFConv2d[0]/conv2d_0"])
def test_a_name_of_another_model_is_one_error(scope: str) -> None:
    message = rf"elasticity\.ignored_scopes: must name operations of the model, but got '{re.escape(scope)}', a name of"
    with pytest.raises(ConfigError, match=message):
        supernet_of("kernel", ignored_scopes=scope)


def test_the_published_blocks_of_resnet50() -> None:
    def pair(layer: int, block: int) -> list[str]:
        path = f"ResNet/Sequential[layer{layer}]/Bottleneck"
        return [f"{path}[{index}]/ReLU[relu]/relu__2" for index in (block - 1, block)]

    elasticity = {
        "available_elasticity_dims": ["width", "depth"],
        "width": {"max_num_widths": 4, "min_out_channels": 32, "width_step": 32, "width_multipliers": [1, 0.8, 0.6]},
        "depth": {"mode": "manual", "skipped_blocks": [pair(1, 2), pair(2, 2), pair(2, 3), pair(3, 5), pair(4, 2)]},
    }
    training = {"elasticity": elasticity, "progressivity_of_elasticity": ["depth", "width"]}
    old = {"input_info": {"sample_size": [1, 3, 32, 32]}, "bootstrapNAS": {"training": training}}
    with pytest.warns(UserWarning, match=r"width\.min_out_channels: is the older name of `min_width`"):
        config = NNCFConfig.from_dict(old)
    with pytest.warns(UserWarning, match=r"depth\.skipped_blocks: has names of NNCF 2; write ") as caught:
        controller, _ = create_compressed_model(torchvision.models.resnet50(num_classes=10), config)
    assert len(caught) == 1
    depths = [choice for choice in controller.supernet.space.choices if choice.dimension == "depth"]
    assert {choice.name: choice.values for choice in depths} == {
        "depth:layer1.2": (1, 0),
        "depth:layer2.2": (2, 1, 0),
        "depth:layer3.5": (1, 0),
        "depth:layer4.2": (1, 0),
    }
    assert BootstrapNASConfig.from_nncf(config).training.elasticity.width.min_width == 32
