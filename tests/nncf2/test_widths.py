"""Widths of layers, as NNCF 2.19 and this package make them of the same config."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from nncf.experimental.torch.nas.bootstrapNAS.elasticity.elastic_width import ElasticOutputWidthOp, ElasticWidthParams

from bootstrapnas_ext.config import BootstrapNASConfig
from bootstrapnas_ext.elasticity.width_rules import width_values

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
ROW = re.compile(r"\| `(?P<keys>\".*?)` \| (?P<channels>\d+) \| (?P<before>[\d, ]+) \| (?P<now>[\d, ]+) \|")
ROWS = [found.groupdict() for found in map(ROW.fullmatch, PAGE.read_text(encoding="utf-8").splitlines()) if found]


def before(keys: dict[str, Any], channels: int) -> list[int]:
    widths: list[int] = ElasticOutputWidthOp._generate_width_list(channels, ElasticWidthParams.from_config(dict(keys)))
    return widths


def now(keys: dict[str, Any], channels: int) -> list[int]:
    config = BootstrapNASConfig.from_nncf({"bootstrapNAS": {"training": {"elasticity": {"width": keys}}}})
    return list(width_values(channels, 1, config.training.elasticity.width))


@pytest.mark.parametrize("keys", [{"width_step": 8}, {"min_width": 4}, {"min_width": 20, "width_step": 3}])
@pytest.mark.parametrize("most", [None, 3])
def test_steps_are_the_same(keys: dict[str, int], most: int | None) -> None:
    given = {**keys, **({} if most is None else {"max_num_widths": most})}
    for channels in range(1, 130):
        assert now(given, channels) == before(given, channels), channels


def test_the_page_has_examples() -> None:
    assert len(ROWS) == 4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["keys"])
def test_examples_that_differ_are_as_the_page_says(row: dict[str, str]) -> None:
    keys, channels = json.loads(f"{{{row['keys']}}}"), int(row["channels"])
    assert before(keys, channels) == json.loads(f"[{row['before']}]")
    assert now(keys, channels) == json.loads(f"[{row['now']}]")
