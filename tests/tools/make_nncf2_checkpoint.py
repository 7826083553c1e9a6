"""
Makes a super-network's checkpoint with NNCF 2.19 itself, and what 20 of its subnets compute.

    NNCF_TORCH_LEGACY_TRACING=1 python -m tests.tools.make_nncf2_checkpoint tests/tools/nncf2_checkpoint
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from nncf import NNCFConfig
from nncf.experimental.torch.nas.bootstrapNAS.training.model_creator_helpers import (
    create_compressed_model_from_algo_names,
)
from nncf.torch.model_creation import create_nncf_network

from tests.tools.nncf2_net import CONFIG, Net

SUBNETS = 20


def main(folder: Path) -> None:
    """
    Writes the two files that a training writes, and ``outputs.pth``.

    :param folder: Where to; made if it is not there.
    """
    torch.manual_seed(0)
    random.seed(0)
    config = NNCFConfig.from_dict(CONFIG)
    network = create_nncf_network(Net(), config)
    training, network = create_compressed_model_from_algo_names(
        network, config, ["progressive_shrinking"], dump_graphs=False
    )
    controller = training.elasticity_controller
    handler = controller.multi_elasticity_handler
    handler.enable_all()
    handler.depth_handler.depth_indicator = 2
    with torch.no_grad():
        for name, tensor in network.state_dict().items():  # as after a training
            if tensor.is_floating_point() and not name.endswith("nncf_padding_value"):
                tensor += 0.1 * torch.rand_like(tensor)
    network.eval()
    images = torch.rand(2, 3, 8, 8)
    subnets, outputs, flops = [], [], []
    for _ in range(SUBNETS):
        handler.activate_random_subnet()
        active = handler.get_active_config()
        subnets.append({dim.value: value for dim, value in active.items()})
        with torch.no_grad():
            outputs.append(network(images))
        flops.append(handler.count_flops_and_weights_for_active_subnet())
    handler.activate_supernet()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(controller.get_compression_state(), folder / "last_elasticity.pth")
    torch.save(network.state_dict(), folder / "last_model_weights.pth")
    found = {"images": images, "subnets": subnets, "outputs": torch.stack(outputs), "flops": flops}
    torch.save(found, folder / "outputs.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
