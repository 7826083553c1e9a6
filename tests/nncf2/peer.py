"""NNCF 2.19's own BootstrapNAS, asked for the subnets of this package's super-network."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from nncf import NNCFConfig
from nncf.experimental.torch.nas.bootstrapNAS.elasticity.elasticity_dim import ElasticityDim
from nncf.experimental.torch.nas.bootstrapNAS.training import progressive_shrinking_builder  # noqa: F401 - registers it
from nncf.experimental.torch.nas.bootstrapNAS.training.model_creator_helpers import (
    create_compressed_model_from_algo_names,
)
from nncf.torch.model_creation import create_nncf_network
from torch import nn

Block = tuple[str, str]


def module_of(node: str) -> str:
    """Returns the path of the module that a node's name tells: ``ResNet/Sequential[layer1]/...`` has ``layer1``."""
    return ".".join(re.findall(r"\[([^]]*)\]", node))


class Peer:
    """
    NNCF's super-network.

    :param model: Becomes the super-network.
    :param input_shape: Shape of its input.
    :param elasticity: The block of that name, in NNCF 2.19's words.
    """

    def __init__(self, model: nn.Module, input_shape: list[int], elasticity: dict[str, Any]) -> None:
        config = NNCFConfig.from_dict(
            {
                "input_info": {"sample_size": input_shape},
                "bootstrapNAS": {
                    "training": {
                        "elasticity": elasticity,
                        "progressivity_of_elasticity": elasticity["available_elasticity_dims"],
                        "batchnorm_adaptation": {"num_bn_adaptation_samples": 0},
                    }
                },
            }
        )
        network = create_nncf_network(model, config)
        controller, self.model = create_compressed_model_from_algo_names(
            network, config, ["progressive_shrinking"], dump_graphs=False
        )
        self.handler = controller.multi_elasticity_handler
        self.handler.enable_all()
        self.blocks: list[Block] = [tuple(pair) for pair in elasticity["depth"]["skipped_blocks"]]

    def activate(self, subnet: Mapping[str, int], blocks: Mapping[str, Block]) -> None:
        """
        Makes the model run a subnet.

        :param subnet: Choices of this package to values; each block is a choice of its own.
        :param blocks: For the choice of each block, its two ends in NNCF 2.19's names.
        """
        self.handler.activate_subnet_for_config(self._config(subnet, blocks))

    def macs(self) -> int:
        """Returns what the active subnet costs; NNCF counts a multiplication and an addition as two."""
        flops, _ = self.handler.count_flops_and_weights_for_active_subnet()
        assert flops % 2 == 0
        return flops // 2

    def _config(self, subnet: Mapping[str, int], blocks: Mapping[str, Block]) -> OrderedDict[ElasticityDim, Any]:
        skipped = [self.blocks.index(block) for choice, block in blocks.items() if subnet[choice] == 0]
        config: OrderedDict[ElasticityDim, Any] = OrderedDict()
        if self.handler.kernel_handler is not None:
            config[ElasticityDim.KERNEL] = self._kernels(subnet)
        config[ElasticityDim.DEPTH] = sorted(skipped)
        config[ElasticityDim.WIDTH] = self._widths(subnet)
        return config

    def _kernels(self, subnet: Mapping[str, int]) -> list[int]:
        ops = self.handler.kernel_handler._elastic_kernel_ops
        return [subnet.get(f"kernel:{module_of(op.node_name)}", op.max_kernel_size) for op in ops]

    def _widths(self, subnet: Mapping[str, int]) -> dict[int, int]:
        widths: dict[int, int] = {}
        possible = self.handler.width_handler.get_search_space()
        for group in self.handler.width_handler._pruned_module_groups_info.get_all_clusters():
            names = [f"width:{module_of(layer.node_name)}" for layer in group.elements]
            found = {subnet[name] for name in names if name in subnet} or {max(possible[group.id])}
            (widths[group.id],) = found
        return widths
