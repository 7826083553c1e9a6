"""SIGTERM and Ctrl-C: what runs finishes its step and saves, and then the signal does what it would have done."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """
    Keeps signals that would end the process until the end of a ``with`` block, which then lets them act.

    A second signal acts at once. Python handles signals in the main thread only; in another one, nothing is kept.

    .. code-block:: python

        with Interruption() as interruption:
            while not interruption.asked:
                step()
            save()
    """

    def __init__(self) -> None:
        self._found: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether there was a signal."""
        return self._found is not None

    @property
    def name(self) -> str:
        """The name of the signal; empty if there was none."""
        return "" if self._found is None else self._found.name

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._keep) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._let_go()
        if self._found is not None and kind is None:
            signal.raise_signal(self._found)

    def _keep(self, number: int, _: FrameType | None) -> None:
        self._found = signal.Signals(number)
        self._let_go()

    def _let_go(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it is not Python's
        self._before = {}
