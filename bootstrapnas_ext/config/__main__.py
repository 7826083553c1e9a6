"""Writes what is made from the config dataclasses: ``schemas/bootstrapnas.schema.json`` and the tables of the docs."""

from __future__ import annotations

import sys
from pathlib import Path

from bootstrapnas_ext.config.document import documented, schema_text
from bootstrapnas_ext.errors import BootstrapNASError
from bootstrapnas_ext.writing import whole_file

SCHEMA = Path("schemas/bootstrapnas.schema.json")
DOCS = Path("docs/config.md")


def main() -> int:
    """Writes both files under the current folder, the root of the repository; returns the exit code."""
    try:
        _write(SCHEMA, schema_text())
        _write(DOCS, documented(DOCS.read_text(encoding="utf-8")))
    except (OSError, BootstrapNASError) as error:
        print(f"{error}; run it in the root of the repository", file=sys.stderr)
        return 2
    return 0


def _write(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
