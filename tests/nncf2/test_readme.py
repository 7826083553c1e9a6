"""What the README shows for NNCF 2.19 runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
MODEL = "from torch import nn\nmodel = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))\n"


def test_the_snippets_for_both_hosts_run(tmp_path: Path) -> None:
    snippets = re.findall(r"^```py\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        code = f"{MODEL}{snippet}\nprint(controller.supernet.space.size)"
        environment = {**os.environ, "NNCF_TORCH_LEGACY_TRACING": "1", "PYTHONPATH": str(README.parent)}
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert int(run.stdout.split()[-1]) > 1
