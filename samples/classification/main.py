"""
Trains, searches and exports smaller versions of an image classifier.

    python samples/classification/main.py --config samples/classification/configs/digits.json --output-dir runs/digits
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the repository, of which the sample is a package
    sys.path.append("")  # the current folder, for a model of your own

from samples.classification.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
