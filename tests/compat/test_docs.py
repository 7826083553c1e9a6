"""The page for those who come from NNCF 2 names everything that came over."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrapnas_ext.compat import nncf2
from tests.config.test_nncf2 import CASES

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")
NAMES = [
    name for name in vars(nncf2) if name[0] != "_" and type(vars(nncf2)[name]).__name__ not in ("module", "_Feature")
]


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("key", sorted({path.rpartition(".")[2] for path, *_ in CASES}))
def test_keys(key: str) -> None:
    assert f"{key}`" in PAGE or f"{key}." in PAGE
