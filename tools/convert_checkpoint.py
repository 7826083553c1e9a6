"""
Turns a super-network that NNCF 2.19 has trained into one of this package. NNCF 2.19 need not be installed.

    python tools/convert_checkpoint.py --config config.json --model resnet50 --num-classes 10 \\
        --elasticity last_elasticity.pth --weights last_model_weights.pth --output-dir converted
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, for the sample's models
    sys.path.append("")  # the current folder, for a model of your own

from bootstrapnas_ext import BootstrapNASController, NNCFConfig, create_compressed_model
from bootstrapnas_ext.compat.nncf2 import ElasticityController
from bootstrapnas_ext.compat.nncf2.checkpoints import convert, read_checkpoint
from bootstrapnas_ext.flow import example_input
from bootstrapnas_ext.training.checkpoint import make_folder, save_checkpoint, save_tensors
from samples.classification.exit_codes import exit_code
from samples.classification.models import create_model
from samples.classification.run_folder import write_json

CONFIG, SUPERNET = "config.json", "supernet.pt"
ELASTICITY, WEIGHTS = "last_elasticity.pth", "last_model_weights.pth"
DEFAULT_CLASSES = 1000


def main(arguments: Sequence[str]) -> int:
    """
    Converts a super-network and returns the exit code.

    :param arguments: Without the program's name.
    """
    return exit_code(lambda: run(arguments), "Nothing was converted.")


def run(arguments: Sequence[str]) -> None:
    """
    Converts a super-network.

    :param arguments: Of the command line.
    :raises BootstrapNASError: If the user has to change something.
    """
    options = _parser().parse_args(arguments)
    config = NNCFConfig.from_json(options.config)
    classes = options.num_classes or config.get("num_classes", DEFAULT_CLASSES)
    model = create_model(options.model, classes)
    old = convert(
        model,
        example_input(model, config),
        _part_of(read_checkpoint(options.elasticity), "training_algo_state"),
        _part_of(read_checkpoint(options.weights), "model_state"),
    )
    config = with_elasticity(config, old.elasticity, old.supernet.space.dimensions)
    # What is written is what the new config makes, not what was converted, so that it must be the same.
    controller, model = create_compressed_model(create_model(options.model, classes), config, dump_graphs=False)
    controller.supernet.load_state_dict(old.supernet.state_dict())
    write(options.output_dir, config, controller, old.opened)
    console = Console()
    size = controller.supernet.space.size
    console.print(f"A super-network of {size:,} subnets.", highlight=False)
    for name in (CONFIG, SUPERNET, ELASTICITY, WEIGHTS):
        console.print(f"Written: {options.output_dir / name}", highlight=False, soft_wrap=True)


def _part_of(checkpoint: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns a part of a ``supernet_last.pth``; what is none, is the part itself."""
    part: dict[str, Any] = checkpoint.get(key, checkpoint)
    return part


def with_elasticity(config: Mapping[str, Any], block: dict[str, Any], dims: Sequence[str]) -> NNCFConfig:
    """
    Returns a config that makes the converted super-network.

    :param config: That of the old super-network.
    :param block: Its ``elasticity``.
    :param dims: Dimensions that stages can train, since the model has something elastic of them.
    """
    nas = dict(config.get("bootstrapNAS", {}))
    training = {**nas.get("training", {}), "elasticity": block}
    stages = training.get("schedule", {}).get("list_stage_descriptions")
    if stages is not None:
        kept = [
            {**stage, "train_dims": [dim for dim in stage.get("train_dims", dims) if dim in dims]} for stage in stages
        ]
        kept = [stage for stage in kept if stage["train_dims"]]
        training["schedule"] = {"list_stage_descriptions": kept} if kept else {}
    scopes = ("ignored_scopes", "target_scopes")  # the block says layer by layer what is elastic
    others = {key: value for key, value in config.items() if key not in scopes}
    return NNCFConfig.from_dict({**others, "bootstrapNAS": {**nas, "training": training}})


def write(folder: Path, config: NNCFConfig, controller: BootstrapNASController, opened: Mapping[str, Any]) -> None:
    """
    Writes config and super-network, for :func:`bootstrapnas_ext.training.load_supernet` and for scripts with the names
    of NNCF 2.

    :param folder: Where to; made if it is not there.
    :param config: The config.
    :param controller: The controller of the super-network.
    :param opened: What scripts with the names of NNCF 2 search, since it was trained.
    :raises CheckpointError: If a file cannot be written.
    """
    make_folder(folder)
    elasticity = ElasticityController(controller)
    elasticity.multi_elasticity_handler.load_state(opened)
    save_checkpoint(folder / SUPERNET, {"supernet": controller.supernet.state_dict()})
    save_tensors(folder / ELASTICITY, elasticity.get_compression_state())
    save_tensors(folder / WEIGHTS, controller.supernet.model.state_dict())
    write_json(folder / CONFIG, config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Turns a super-network of NNCF 2.19 into one of this package.")
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", required=True, help="the NNCF config that it was made with")
    add("--model", required=True, help="the model that it was made of: of torchvision, or module.path:function")
    add("--num-classes", type=int, metavar="N", help="classes of the model; those of the config if not given, or 1000")
    add("--elasticity", type=Path, metavar="FILE", required=True, help="its last_elasticity.pth, or supernet_last.pth")
    add("--weights", type=Path, metavar="FILE", required=True, help="its last_model_weights.pth, or supernet_last.pth")
    add("--output-dir", type=Path, metavar="FOLDER", required=True, help="where to")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
