"""The command line of the sample."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console

from bootstrapnas_ext import NNCFConfig, processes
from bootstrapnas_ext.errors import ConfigError
from samples.classification.exporting import export_chosen
from samples.classification.pipeline import Pipeline
from samples.classification.run_folder import EXPORT, MODES, SEARCH, TRAIN, RunFolder
from samples.classification.settings import effective_config, naming


def run(arguments: Sequence[str]) -> None:
    """
    Runs the sample.

    :param arguments: Of the command line.
    :raises BootstrapNASError: If the user has to change something.
    """
    options = _parser().parse_args(arguments)
    with _processes(options.device) as device:
        _run(options, device)


def _run(options: argparse.Namespace, device: torch.device) -> None:
    folder = RunFolder(options.output_dir)
    with processes.first_before_others():
        if processes.rank() == 0:
            folder.check(options.mode, resume=options.resume)
    config = effective_config(
        options.config, folder.config, weights=options.weights, data=options.data, seed=options.seed
    )
    processes.wait_for_all()  # all have read the folder as it was
    with naming(options.config or folder.config):
        _run_modes(options, config, folder, device)


def _run_modes(options: argparse.Namespace, config: NNCFConfig, folder: RunFolder, device: torch.device) -> None:
    modes, is_first = options.mode, processes.rank() == 0
    with processes.first_before_others():
        folder.make()
        pipeline = Pipeline(config, folder, device, Console(quiet=not is_first))
        pipeline.prepare()
    with folder.timed("build"):
        controller = pipeline.build()
    if is_first:
        controller.supernet.summary()
    if TRAIN in modes:
        with folder.timed(TRAIN):
            pipeline.train(controller, resume=options.resume)
    if not is_first:
        return
    pipeline.load(controller)
    if SEARCH in modes:
        with folder.timed(SEARCH):
            pipeline.search(controller, resume=options.resume)
    if EXPORT in modes:
        export_chosen(pipeline, controller)
    else:
        pipeline.say(_what_is_next(folder, modes))


def _what_is_next(folder: RunFolder, modes: Sequence[str]) -> str:
    """Returns what there is now and how to go on, after a run without an export."""
    program = os.path.relpath(Path(__file__).with_name("main.py"))
    if SEARCH in modes:
        written, rest = f"{folder.trials}, all trials, and {folder.plot}", (EXPORT,)
    else:
        written, rest = f"{folder.supernet}, the trained super-network", (SEARCH, EXPORT)
    command = shlex.join(["python", program, "--output-dir", str(folder.path), "--mode", *rest])
    return f"Written: {written}\nNext: {command}"


@contextmanager
def _processes(kind: str) -> Iterator[torch.device]:
    """Joins the processes that ``torchrun`` has started, if it has, and gives the device of this one."""
    device = _device(kind)
    if "LOCAL_RANK" not in os.environ:
        yield device
        return
    if kind == "cuda":
        device = torch.device(kind, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # The others wait while the first one trains an input model.
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=timedelta(days=7))
    try:
        yield device
    finally:
        dist.destroy_process_group()


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
