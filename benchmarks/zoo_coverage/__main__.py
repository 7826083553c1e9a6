"""Which models become super-networks, how exactly, and how much smaller they get: each model in a process of its own.

.. code-block:: console

    python -m benchmarks.zoo_coverage --models timm transformers --no-ir --output zoo.jsonl --markdown zoo.md
    python -m benchmarks.zoo_coverage --models torchvision/resnet18 vit_tiny_patch16_224 my_module:my_function --check

A function of your own takes no arguments and returns a model and its example input: a tensor, a tuple of positional
arguments or a dictionary of keyword arguments. If it returns only a model, that gets one image of 224 by 224.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from benchmarks.zoo_coverage.table import Row, faults, markdown_table, rich_table


def main(command_line: Sequence[str] | None = None) -> int:
    arguments = _arguments(command_line)
    if arguments.one:
        _measure_one(arguments)
        return 0
    from benchmarks.zoo_coverage.models import find

    try:
        names = find(arguments.models)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    rows = _read(arguments.output) if arguments.resume else {}
    if not arguments.resume and arguments.output:
        arguments.output.write_text("")
    for row in _run_all([name for name in names if name not in rows], arguments):
        rows[row["model"]] = row
        if arguments.output:
            with arguments.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
    found = [rows[name] for name in names]
    Console(width=None if sys.stdout.isatty() else 240).print(rich_table(found))
    if arguments.markdown:
        arguments.markdown.write_text(markdown_table(found))
    bad = sum(bool(faults(row)) for row in found)
    if bad and not arguments.check:
        print(f"{bad} of {len(found)} models have a fault; with --check that is exit code 1, without it is 0.")
    return int(arguments.check and bad > 0)


def _arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo_coverage", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    zoos = "zoos (torchvision, torchvision-other, timm, transformers), names, or module:function"
    what.add_argument("--models", nargs="+", help=zoos)
    what.add_argument("--one", help="measure one model in this process and print its row")
    parser.add_argument("--output", type=Path, help="JSON lines, written as soon as they are known")
    parser.add_argument("--markdown", type=Path, help="the table for a document")
    parser.add_argument("--resume", action="store_true", help="skip models that are in the output file")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a model has a fault; without it with 0")
    parser.add_argument("--subnets", type=int, default=5, help="random subnets that are compared, besides the minimum")
    parser.add_argument("--ir-subnets", type=int, help="the same for OpenVINO IR; as many if not given")
    parser.add_argument("--no-ir", action="store_true", help="leave OpenVINO IR out")
    parser.add_argument("--large-subnets", type=int, default=1, help="subnets of models over 200 M parameters")
    parser.add_argument("--timeout", type=float, default=900, help="seconds per model")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads per model")
    return parser.parse_args(command_line)


def _measure_one(arguments: argparse.Namespace) -> None:
    from benchmarks.zoo_coverage.measure import Effort, measure

    ir_subnets = arguments.subnets if arguments.ir_subnets is None else arguments.ir_subnets
    effort = Effort(
        arguments.subnets, None if arguments.no_ir else ir_subnets, arguments.large_subnets, arguments.threads
    )
    measure(arguments.one, effort, lambda row: print(json.dumps(row), flush=True))


def _run_all(names: Sequence[str], arguments: argparse.Namespace) -> Iterator[Row]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    with progress, ThreadPoolExecutor(arguments.jobs) as pool:
        task = progress.add_task("models", total=len(names))
        futures = [pool.submit(_run_one, name, arguments) for name in names]
        for future in as_completed(futures):
            row = future.result()
            progress.update(task, advance=1)
            progress.console.print(Text(f"{row['model']}: {'; '.join(faults(row)) or 'ok'}"))
            yield row


def _run_one(name: str, arguments: argparse.Namespace) -> Row:
    """Runs this program on one model and returns its last row, with why it ended if that was early."""
    command = [sys.executable, "-m", "benchmarks.zoo_coverage", "--one", name]
    for option in ("subnets", "ir_subnets", "large_subnets", "threads"):
        value = getattr(arguments, option)
        command += [] if value is None else [f"--{option.replace('_', '-')}", str(value)]
    command += ["--no-ir"] if arguments.no_ir else []
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.timeout, env=environment)
        printed, ended = done.stdout, _ending(done)
    except subprocess.TimeoutExpired as error:
        printed, ended = (error.stdout or b"").decode(), f"Timeout: it took over {arguments.timeout:g} s"
    row = _last_row(printed) or {"model": name, "stage": "start", "error": None}
    return row if row["error"] or row["stage"] == "done" else row | {"error": ended}


def _last_row(printed: str) -> Row | None:
    # Libraries print too, and a process that was killed may have left half a line.
    lines = [line for line in printed.split("\n")[:-1] if line.startswith('{"model": ')]
    return json.loads(lines[-1]) if lines else None


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"Crash: the process ended by {signal.Signals(-done.returncode).name}"
    last = next(iter(done.stderr.strip().splitlines()[-1:]), "nothing on stderr")
    return f"Exit: the process ended with code {done.returncode} ({last})"


def _read(path: Path | None) -> dict[str, Row]:
    if path is None or not path.exists():
        return {}
    return {row["model"]: row for row in map(json.loads, path.read_text().splitlines())}


if __name__ == "__main__":
    sys.exit(main())
