"""Writes what is made from the config dataclasses: ``schemas/bootstrapnas.schema.json`` and the tables of the docs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bootstrapnas_ext.config.document import documented, schema_text
from bootstrapnas_ext.errors import BootstrapNASError

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
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
