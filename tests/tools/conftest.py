"""The run that the tests of the tools share with those of the sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.samples.runs import finished_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed."""
    return finished_run(tmp_path_factory.getbasetemp())[0]
