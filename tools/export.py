"""
Exports any subnet of a run of the classification sample.

    python tools/export.py --run runs/digits --subnet best --output-dir exported
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, for the sample that made the run
    sys.path.append("")  # the current folder, for a model of your own

from bootstrapnas_ext import Cost, SearchSpace, Subnet
from bootstrapnas_ext.errors import SubnetError
from bootstrapnas_ext.export import FORMATS, VerificationReport
from bootstrapnas_ext.search import ACCURACY, Trial, read_search
from samples.classification.exit_codes import exit_code
from samples.classification.exporting import subnet_record
from samples.classification.pipeline import Pipeline
from samples.classification.report import benchmark_command, short
from samples.classification.run_folder import SUBNET, RunFolder, write_json
from samples.classification.settings import effective_config


def main(arguments: Sequence[str]) -> int:
    """
    Exports a subnet and returns the exit code.

    :param arguments: Without the program's name.
    """
    return exit_code(lambda: run(arguments), "Nothing was exported.")


def run(arguments: Sequence[str]) -> None:
    """
    Exports a subnet.

    :param arguments: Of the command line.
    :raises BootstrapNASError: If the user has to change something.
    """
    options = _parser().parse_args(arguments)
    folder, console = RunFolder(options.run), Console()
    folder.check_trained()
    config = effective_config(None, folder.config, weights=None, data=options.data, seed=None)
    RunFolder(options.output_dir).make()
    pipeline = Pipeline(config, folder, torch.device("cpu"), console)
    controller = pipeline.build()
    pipeline.load(controller)
    supernet = controller.supernet
    subnet = find_subnet(options.subnet, supernet.space, pipeline)
    trial, cost = find_trial(subnet, folder), supernet.cost(subnet)
    _show(console, description(options.subnet, trial, cost, supernet.cost(supernet.space.maximum)))
    exported = pipeline.deploy(controller, subnet, options.output_dir, options.format, options.ir_batch)
    record = options.output_dir / SUBNET
    write_json(record, subnet_record(subnet, trial, cost, exported))
    console.print(verification_table(exported.verification))
    _show(console, *(f"Written: {path}" for path in (*exported.files, record)))
    if "ir" in options.format:
        shape = ",".join(map(str, (1, *pipeline.settings.image_shape)))
        dynamic = ("-data_shape", f"[{shape}]") if options.ir_batch is None else ()
        latency = pipeline.nas.search.latency
        _show(console, f"To measure it: {benchmark_command(options.output_dir / 'model.xml', latency, *dynamic)}")


def find_subnet(text: str, space: SearchSpace, pipeline: Pipeline) -> Subnet:
    """
    Returns the subnet that a text names.

    :param text: ``max``, ``min``, the number of a trial, a JSON file with a subnet, or a name of a chosen subnet.
    :param space: Of the super-network.
    :param pipeline: The run, whose search is read where it is needed.
    :raises SubnetError: If there is no such subnet.
    :raises CheckpointError: If the search is needed, but missing or damaged.
    """
    if text in ("max", "min"):
        return space.maximum if text == "max" else space.minimum
    if text.endswith(".json"):
        return _read_subnet(Path(text), space)
    result = pipeline.search_result()
    if text.isdecimal():
        if int(text) >= len(result.record.trials):
            msg = f"--subnet must be a trial from 0 to {len(result.record.trials) - 1}, but got {text}."
            raise SubnetError(msg)
        return space.validate(result.record.trials[int(text)].subnet)
    chosen = result.selection.chosen
    if text not in chosen:
        msg = (
            f"--subnet must be max, min, the number of a trial, a .json file, or one of the chosen subnets "
            f"{', '.join(chosen)}, but got {text!r}."
        )
        raise SubnetError(msg)
    return space.validate(chosen[text].subnet)


def find_trial(subnet: Subnet, folder: RunFolder) -> Trial | None:
    """
    Returns the trial that measured a subnet, if there is one.

    :param subnet: The subnet.
    :param folder: Of the run, which need not have been searched.
    :raises CheckpointError: If the search is damaged.
    """
    trials = read_search(folder.trials).trials if folder.trials.exists() else ()
    return next((trial for trial in trials if trial.subnet == subnet), None)


def description(text: str, trial: Trial | None, cost: Cost, maximum: Cost) -> str:
    """
    Returns what is exported, in one line.

    :param text: What the user called it.
    :param trial: That measured it, if there is one.
    :param cost: Of the subnet.
    :param maximum: Of the maximum subnet.
    """
    macs = f"{short(cost.macs)} MACs, {100 * cost.macs / maximum.macs:.0f} % of the maximum"
    if trial is None:
        return f"Exporting {text}, which the search has not measured: {macs}"
    name = f"trial {trial.number}" if text.isdecimal() else f"{text}, trial {trial.number}"
    accuracy = f"{trial.values[ACCURACY]:.2f} % validation accuracy, " if ACCURACY in trial.values else ""
    return f"Exporting {name}: {accuracy}{macs}"


def verification_table(report: VerificationReport) -> Table:
    """
    Returns a table of the differences that the verification found.

    :param report: Of an export.
    """
    table = Table("outputs of", "largest difference", "relative", "tolerance", title="Verification")
    for name, difference in report.differences.items():
        table.add_row(
            name, f"{difference.max_absolute:.1e}", f"{difference.max_relative:.1e}", f"{difference.tolerance:.0e}"
        )
    return table


def _show(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _read_subnet(path: Path, space: SearchSpace) -> Subnet:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"The subnet file {path} cannot be read ({error}); give a subnet.json of a run."
        raise SubnetError(msg) from error
    choices = content.get("choices", content) if isinstance(content, dict) else None
    if not isinstance(choices, Mapping):
        msg = f"The subnet file {path} must hold an object with the value of each choice; give a subnet.json of a run."
        raise SubnetError(msg)
    try:
        return space.validate(choices)
    except SubnetError as error:
        msg = f"{path} is not a subnet of this run: {error}"
        raise SubnetError(msg) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Exports any subnet of a run, verified against the super-network.")
    add = parser.add_argument
    add("--run", type=Path, metavar="FOLDER", required=True, help="the run folder")
    add(
        "--subnet",
        required=True,
        help="best or another chosen subnet, max, min, the number of a trial, or a .json file with a subnet",
    )
    add("--format", nargs="+", choices=tuple(FORMATS), default=("onnx", "ir"), help="onnx and ir by default")
    add("--output-dir", type=Path, metavar="FOLDER", required=True, help="where to")
    add("--ir-batch", type=_batch, default=1, metavar="N|dynamic", help="batch size stored in the IR, 1 by default")
    add("--data", type=Path, metavar="FOLDER", help="the data of the run, if it has moved")
    return parser


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        msg = f"must be an integer >= 1 or 'dynamic', but got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
