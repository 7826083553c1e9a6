"""SIGTERM and Ctrl-C: what runs finishes its step and saves, and then the signal does what it would have done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """
    Keeps signals that would end the process until the end of a ``with`` block, which then lets them act.

    A second signal acts at once, and one that is ignored stays so. Python handles signals in the main thread only; in
    another one, nothing is kept. If the signal has ended workers of a data loader too, PyTorch's complaint about that,
    which may come anywhere, is left out.

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
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._keep)
            complain = signal.getsignal(signal.SIGCHLD)
            if callable(complain):
                self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, partial(self._child_ended, complain))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number in tuple(self._before):
            self._restore(number)
        if self._found is not None and kind is None:
            signal.raise_signal(self._found)

    def _keep(self, number: int, _: FrameType | None) -> None:
        self._found = signal.Signals(number)
        for kept in SIGNALS:
            self._restore(kept)

    def _child_ended(self, complain: Callable[[int, FrameType | None], Any], number: int, frame: Any) -> None:
        if not self.asked:
            complain(number, frame)

    def _restore(self, number: signal.Signals) -> None:
        if number in self._before:
            handler = self._before.pop(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it is not Python's
