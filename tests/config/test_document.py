"""The page about the config: its tables are the generated ones, its examples are valid, and the command writes both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bootstrapnas_ext.config import BootstrapNASConfig, NNCFConfig
from bootstrapnas_ext.config.__main__ import DOCS, SCHEMA, main
from bootstrapnas_ext.config.document import BEGIN, END, documented, key_tables, schema_text
from bootstrapnas_ext.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / DOCS).read_text(encoding="utf-8")


def test_tables_of_the_page_are_the_generated_ones() -> None:
    assert documented(PAGE) == PAGE, "run `make schema`"


@pytest.mark.parametrize("example", re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL))
def test_examples_are_valid(example: str) -> None:
    BootstrapNASConfig.from_nncf(NNCFConfig.from_dict(json.loads(example)))


def test_error_lines_of_the_page_are_the_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = {"training": {"elasticity": {"width": {"widht_step": 16}}}, "search": {"num_evals": 20}}
    Path("digits.json").write_text(json.dumps({"bootstrapNAS": block}), encoding="utf-8")
    with pytest.raises(ConfigError, match="widht_step") as caught:
        NNCFConfig.from_json("digits.json")
    assert f"```text\n{caught.value}\n```" in PAGE


def test_tables_have_a_row_for_every_key() -> None:
    tables = key_tables()
    row = "| `epochs` | integer >= 1 | `1` | How long the stage takes. |"
    assert row in tables
    assert tables.index("list_stage_descriptions[]`\n") < tables.index(row)
    assert "| `sample_size` | array of integer >= 1 | required |" in tables
    assert "### `$.bootstrapNAS.search.constraints.<name>`" in tables


def test_the_text_around_the_tables_stays() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert documented(page) == f"before\n{BEGIN}\n\n{key_tables()}\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["", BEGIN, END])
def test_a_page_without_marks_is_refused(page: str) -> None:
    with pytest.raises(ConfigError, match="must have the lines"):
        documented(page)


def test_the_command_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SCHEMA.parent.mkdir()
    DOCS.parent.mkdir()
    DOCS.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    assert main() == 0
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()
    assert key_tables() in DOCS.read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.rglob("*.*")} == {SCHEMA.name, DOCS.name}


def test_the_command_elsewhere_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main() == 2
    assert "run it in the root of the repository" in capsys.readouterr().err
