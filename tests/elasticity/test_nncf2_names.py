"""Names that NNCF 2 gave to operations, in configs for the same models."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bootstrapnas_ext.config import BootstrapNASConfig, DepthConfig, ElasticityConfig, NNCFConfig, WidthConfig
from bootstrapnas_ext.elasticity.nncf2_names import NNCF2Names
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.flow import create_compressed_model
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
    with pytest.warns(UserWarning, match=r"depth\.skipped_blocks: has names of NNCF 2; write .*, and 2 more") as caught:
        supernet = supernet_of("depth", depth=DepthConfig(mode="manual", skipped_blocks=old))
    assert len(caught) == 1
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
    with pytest.warns(UserWarning, match=r"depth\.skipped_blocks: has names of NNCF 2; .*, and 8 more") as caught:
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
