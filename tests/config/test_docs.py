"""Every JSON snippet of the README and the docs is a config, and the typical one is one of the sample's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bootstrapnas_ext.config import NNCFConfig
from samples.classification.settings import settings_of

ROOT = Path(__file__).parents[2]
SNIPPET = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = [
    pytest.param(text, id=f"{page.name}-{index}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for index, text in enumerate(SNIPPET.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("text", SNIPPETS)
def test_snippet_is_a_config(text: str) -> None:
    assert "bootstrapNAS" in NNCFConfig.from_dict(json.loads(text))


def test_the_sample_takes_the_typical_config() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    typical = NNCFConfig.from_dict(json.loads(SNIPPET.findall(page)[1]))
    assert settings_of(typical).model == "resnet56"
