"""
Trains, searches and exports smaller versions of an image classifier.

    python samples/classification/main.py --config samples/classification/configs/digits.json --output-dir runs/digits
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the repository, of which the sample is a package
    sys.path.append("")  # the current folder, for a model of your own

from samples.classification.exit_codes import RESUME, exit_code


def main(arguments: Sequence[str]) -> int:
    """
    Runs the sample and returns the exit code.

    :param arguments: Without the program's name.
    """

    def program() -> None:
        from samples.classification.command_line import run  # takes seconds

        run(arguments)

    return exit_code(program, RESUME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
