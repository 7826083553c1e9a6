"""Exit codes: a user's mistake is one line, ctrl-C and SIGTERM say how to go on, a defect keeps its traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from bootstrapnas_ext.errors import ConfigError
from samples.classification.exit_codes import exit_code
from samples.classification.main import main


class _Interrupted(ModuleType):
    """A module whose import ctrl-C ends."""

    def __getattr__(self, name: str) -> None:
        raise KeyboardInterrupt


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> Callable[[], None]:
        def program() -> None:
            raise error

        return program

    assert exit_code(lambda: None, "Later.") == 0
    assert exit_code(fail(ConfigError("Do it.")), "Later.") == 2
    assert exit_code(fail(KeyboardInterrupt()), "Later.") == 130
    assert capsys.readouterr().err == "error: Do it.\nInterrupted. Later.\n"
    with pytest.raises(ZeroDivisionError, match="defect"):
        exit_code(fail(ZeroDivisionError("defect")), "Later.")


def test_sigterm_lets_a_program_clean_up(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def program() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    assert exit_code(program, "Later.") == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "Interrupted. Later.\n"


def test_interrupt_in_the_imports_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "samples.classification.command_line"
    monkeypatch.setitem(sys.modules, name, _Interrupted(name))
    assert main([]) == 130
    assert capsys.readouterr().err == "Interrupted. Add --resume to the same command to go on.\n"
