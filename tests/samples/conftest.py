"""The run that the tests of the sample share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.samples.runs import finished_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed."""
    return finished_run(tmp_path_factory.getbasetemp())[0]


@pytest.fixture(scope="session")
def finished_output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What that run printed."""
    return finished_run(tmp_path_factory.getbasetemp())[1]


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed at will."""
    return shutil.copytree(finished, tmp_path / "copied")
