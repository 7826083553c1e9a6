"""
Makes a super-network's checkpoint with NNCF 2.19 itself, and what 20 of its subnets compute.

    NNCF_TORCH_LEGACY_TRACING=1 python -m tests.tools.make_nncf2_checkpoint tests/tools/nncf2_checkpoint

After another folder, the files of a training are written there.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from nncf import NNCFConfig
from nncf.experimental.torch.nas.bootstrapNAS import EpochBasedTrainingAlgorithm
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
    folder.mkdir(parents=True, exist_ok=True)
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
    torch.save(controller.get_compression_state(), folder / "last_elasticity.pth")
    torch.save(network.state_dict(), folder / "last_model_weights.pth")
    found = {"images": images, "subnets": subnets, "outputs": torch.stack(outputs), "flops": flops}
    torch.save(found, folder / "outputs.pth")


def train(folder: Path) -> None:
    """
    Writes the files of a whole training whose last stage opens a part, and ``space.pth``, the search space after it.

    :param folder: Where to.
    """
    stage = {"train_dims": ["width", "depth"], "width_indicator": 2, "depth_indicator": 1, "epochs": 1}
    block = CONFIG["bootstrapNAS"]["training"]
    training = {**block, "schedule": {"list_stage_descriptions": [stage]}}
    config = NNCFConfig.from_dict({**CONFIG, "bootstrapNAS": {"training": training}})
    network = create_nncf_network(Net(), config)
    algorithm = EpochBasedTrainingAlgorithm.from_config(network, config)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    folder.mkdir(parents=True, exist_ok=True)
    algorithm.run(lambda *_: None, [0], lambda *_: (1.0, 1.0, 1.0), [0], optimizer, str(folder))
    torch.save(algorithm.elasticity_ctrl.multi_elasticity_handler.get_search_space(), folder / "space.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        train(Path(sys.argv[2]))
