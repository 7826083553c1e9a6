"""NNCF 2.19's own BootstrapNAS and this package make the same subnets of the same model, and count the same.

Differences that are meant, and are no part of the comparison: NNCF's depth is any set of skipped blocks, here it is so
with the mode "independent" only; NNCF leaves kernels of 3x3 as they are, here they become 1x1 unless `min_kernel_size`
is 3; NNCF's defaults are widths in steps of 32, here they are parts of the layer's own width, and those of layers of
few channels are no multiples of 8.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

import nncf.torch
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import bootstrapnas_ext  # noqa: F401 - registers the algorithm
from tests.nncf2.peer import Block, Peer
from tests.zoo import randomize_norms

SHAPE = [1, 3, 32, 32]


@dataclass(frozen=True)
class Case:
    """
    A model with explicit choices.

    :param name: Name in torchvision.
    :param blocks: The ends of each block that may be skipped, in NNCF 2.19's names.
    :param width: The block of that name.
    :param kernels: Whether it has kernels that NNCF 2.19 makes smaller.
    """

    name: str
    blocks: tuple[Block, ...]
    width: dict[str, Any]
    kernels: bool


def _resnet_block(layer: int, block: int) -> Block:
    before, last = (
        f"ResNet/Sequential[layer{layer}]/Bottleneck[{number}]/ReLU[relu]/relu__2" for number in (block - 1, block)
    )
    return before, last


def _mobile_block(index: int) -> Block:
    before, last = (
        f"MobileNetV2/Sequential[features]/InvertedResidual[{number}]/__add___0" for number in (index - 1, index)
    )
    return before, last


CASES = (
    Case(
        "resnet50",
        (_resnet_block(1, 2), _resnet_block(2, 3), _resnet_block(3, 5), _resnet_block(4, 2)),
        width={"width_multipliers": [1, 0.75, 0.5], "min_width": 8},
        kernels=True,
    ),
    Case(
        "mobilenet_v2",
        tuple(map(_mobile_block, (6, 10, 13, 16))),
        width={"width_step": 16, "min_width": 16},
        kernels=False,
    ),
)


def _here(node: str) -> str:
    """Returns the name of an operation of NNCF 2.19 in NNCF's present graph."""
    modules = re.findall(r"\[([^]]*)\]", node)
    function, _, number = node.rpartition("/")[2].rpartition("_")
    kind = {"relu_": "relu_", "__add__": "add"}.get(function, function)
    return "/".join([*modules, kind, number])


def _elasticity(case: Case, blocks: list[list[str]], **depth: Any) -> dict[str, Any]:
    dims = ["width", "depth", *(["kernel"] if case.kernels else [])]
    return {
        "available_elasticity_dims": dims,
        "width": copy.deepcopy(case.width),
        "depth": {"skipped_blocks": blocks, **depth},
        **({"kernel": {"max_num_kernels": 2}} if case.kernels else {}),
    }


def _ours(case: Case, model: nn.Module) -> Any:
    blocks = [list(map(_here, block)) for block in case.blocks]
    elasticity = _elasticity(case, blocks, mode="independent")
    if case.kernels:
        elasticity["kernel"]["min_kernel_size"] = 3
    block = {"training": {"elasticity": elasticity}}
    config = nncf.NNCFConfig.from_dict({"input_info": {"sample_size": SHAPE}, "bootstrapNAS": block})
    controller, _ = nncf.torch.create_compressed_model(model, config, dump_graphs=False)
    return controller.supernet


def _path(node: str) -> str:
    return ".".join(re.findall(r"\[([^]]*)\]", node.rpartition("/")[0])).removesuffix(".relu")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_and_macs_of_fifty_subnets_agree(case: Case) -> None:
    torch.manual_seed(0)
    model = randomize_norms(torchvision.models.get_model(case.name, num_classes=10)).eval()
    peer = Peer(copy.deepcopy(model), SHAPE, _elasticity(case, [list(block) for block in case.blocks]))
    supernet = _ours(case, model)
    choices = {
        choice.name: block
        for block in case.blocks
        for choice in supernet.space.choices
        if choice.dimension == "depth" and choice.name.removeprefix("depth:") in (_here(block[1]), _path(block[1]))
    }
    assert len(choices) == len(case.blocks)
    x: Tensor = torch.randn(2, *SHAPE[1:])
    rng = np.random.default_rng(0)
    subnets = [supernet.space.maximum, supernet.space.minimum]
    subnets += [supernet.space.sample(rng) for _ in range(50 - len(subnets))]
    for subnet in subnets:
        peer.activate(subnet, choices)
        with torch.no_grad(), supernet.activate(subnet):
            torch.testing.assert_close(supernet.model(x), peer.model(x), rtol=1e-5, atol=1e-5)
        assert supernet.cost(subnet).macs == peer.macs()
