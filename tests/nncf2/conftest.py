"""These tests need NNCF 2.19, with its legacy tracing: ``make test-nncf2`` runs them in an environment of their own."""

from __future__ import annotations

import nncf
import pytest

collect_ignore_glob = [] if nncf.__version__.startswith("2.") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """NNCF 2.19 says of its own function that it is deprecated, and leaves a pool of threads behind."""
    for item in items:
        if "nncf2" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*create_compressed_model:FutureWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:.*multiprocessing.pool"))
