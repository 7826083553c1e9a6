"""Every Python snippet of the README and the docs runs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = {page: "\n".join(SNIPPET.findall(page.read_text(encoding="utf-8"))) for page in PAGES}
OPTIONAL = ("transformers",)
"""Packages that the snippets of a page may import and that are not installed with this one."""


@pytest.mark.parametrize("page", [page for page, script in SCRIPTS.items() if script], ids=lambda page: page.name)
def test_snippets_run(page: Path, tmp_path: Path) -> None:
    for package in OPTIONAL:
        if f"from {package} import" in SCRIPTS[page] and find_spec(package) is None:
            pytest.skip(f"needs {package}")
    # In a process of its own: snippets register things. Later snippets of a page use the names of earlier ones.
    run = subprocess.run(
        [sys.executable, "-c", SCRIPTS[page]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_snippet_for_nncf_3_runs(tmp_path: Path) -> None:
    # That for NNCF 2.19, which follows, is run by the tests of that host.
    snippet = next(re.finditer(r"^```py\n(.*?)^```$", PAGES[0].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    model = "from torch import nn\nmodel = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))\n"
    run = subprocess.run(
        [sys.executable, "-c", model + snippet[1]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
