"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrapnas_ext.writing import whole_file


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_all_is_as_before(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as partial:
            partial.write_text("ne")
            raise error("full")

    with pytest.raises(error, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_before_the_first_byte_is_the_one_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.txt\.partial"), whole_file(tmp_path / "none" / "a.txt") as partial:
        partial.write_text("new")
