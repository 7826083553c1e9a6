"""What every test starts from: one thread, so that results and times do not depend on the machine, and fixed seeds."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# The same examples in every run, and no time limit that a busy machine would break.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator of the test's own."""
    return np.random.default_rng(0)
