"""The command line of the sample, and what every program here does with an error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from bootstrapnas_ext import BootstrapNASError
from bootstrapnas_ext.errors import ConfigError
from samples.classification.exporting import export_chosen
from samples.classification.pipeline import Pipeline
from samples.classification.run_folder import EXPORT, MODES, SEARCH, TRAIN, RunFolder
from samples.classification.settings import effective_config

USER_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """
    Runs the sample and returns the exit code.

    :param arguments: Without the program's name.
    """
    return exit_code(lambda: run(arguments), "Add --resume to the same command to go on.")


def exit_code(program: Callable[[], None], when_interrupted: str) -> int:
    """
    Runs a program and tells a user's mistake in one line; defects keep their traceback.

    :param program: What to run.
    :param when_interrupted: What the user can do after ctrl-C.
    :return: 0, or 2 for a user's mistake, or 130 if the user interrupted it.
    """
    try:
        program()
    except BootstrapNASError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"Interrupted. {when_interrupted}", file=sys.stderr)
        return INTERRUPTED
    return 0


def run(arguments: Sequence[str]) -> None:
    """
    Runs the sample.

    :param arguments: Of the command line.
    :raises BootstrapNASError: If the user has to change something.
    """
    options = _parser().parse_args(arguments)
    folder, modes = RunFolder(options.output_dir), options.mode
    folder.check(modes, resume=options.resume)
    config = effective_config(
        options.config, folder.config, weights=options.weights, data=options.data, seed=options.seed
    )
    device = _device(options.device)
    folder.make()
    pipeline = Pipeline(config, folder, device, Console())
    pipeline.prepare()
    with folder.timed("build"):
        controller = pipeline.build()
    controller.supernet.summary()
    if TRAIN in modes:
        with folder.timed(TRAIN):
            pipeline.train(controller, resume=options.resume)
    pipeline.load(controller)
    if SEARCH in modes:
        with folder.timed(SEARCH):
            pipeline.search(controller, resume=options.resume)
    if EXPORT in modes:
        export_chosen(pipeline, controller)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Makes smaller and faster models of an image classifier: trains a super-network of it, searches "
        "that for the best subnets, and writes them for OpenVINO and ONNX."
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="NNCF config; may be left out for a run that is there already")
    add("--output-dir", type=Path, metavar="FOLDER", required=True, help="the run folder")
    add("--mode", nargs="+", choices=MODES, default=MODES, help="parts to run, all by default")
    add("--weights", type=Path, metavar="FILE", help="weights of the input model; wins over `weights` of the config")
    add("--data", type=Path, metavar="FOLDER", help="the data; wins over `dataset_dir` of the config")
    add("--resume", action="store_true", help="go on with the run in the folder, if there is one")
    add("--seed", type=_seed, metavar="N", help="seed of everything random; wins over `search.seed` of the config")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to train and validate")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        msg = f"must be an integer >= 0, but got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        msg = "--device cuda needs a GPU that PyTorch can use, and there is none here; use --device cpu."
        raise ConfigError(msg)
    return torch.device(name)
