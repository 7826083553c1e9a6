"""Every Python snippet of the README and the docs runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = {page: "\n".join(SNIPPET.findall(page.read_text(encoding="utf-8"))) for page in PAGES}


@pytest.mark.parametrize("page", [page for page, script in SCRIPTS.items() if script], ids=lambda page: page.name)
def test_snippets_run(page: Path, tmp_path: Path) -> None:
    # In a process of its own: snippets register things. Later snippets of a page use the names of earlier ones.
    run = subprocess.run(
        [sys.executable, "-c", SCRIPTS[page]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
