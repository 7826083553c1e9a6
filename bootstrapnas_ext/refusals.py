"""Finds by trial what the model's own code does not let be smaller.

Code may look at sizes in ways that no operation shows: it compares them to numbers of its own, it asks what modules
are, it keeps results of earlier calls. Such code fails in a smaller subnet, and then the fewest choices are looked for
that have to stay at their maximum.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bootstrapnas_ext.errors import first_line
from bootstrapnas_ext.space import Subnet

_NOT_THE_MODELS = {__name__.partition(".")[0], "nncf", "torch"}
"""Packages whose frames do not tell where the model's code has failed."""


def refused_choices(
    runs: Mapping[str, int], subnet: Mapping[str, int], attempt: Callable[[Subnet], object]
) -> dict[str, str]:
    """
    Returns choices that must stay as they are in one subnet, so that another one runs with all others as given.

    Each costs as many attempts as bisecting the choices takes.

    :param runs: A subnet that runs.
    :param subnet: Another one.
    :param attempt: Runs a subnet, and raises any error if that fails.
    :return: For each of the choices what went wrong without it.
    :raises Exception: What the attempt with the first subnet raises.
    """
    attempt(Subnet(runs))
    refused: dict[str, str] = {}
    while True:
        names = [name for name in runs if name not in refused and runs[name] != subnet[name]]
        found = _first_refused(runs, subnet, names, attempt)
        if found is None:
            return refused
        refused[found[0]] = found[1]


def _first_refused(
    runs: Mapping[str, int], subnet: Mapping[str, int], names: Sequence[str], attempt: Callable[[Subnet], object]
) -> tuple[str, str] | None:
    """Returns the first name, in order, with which a subnet that runs becomes one that does not, and the reason."""

    def failure(count: int) -> str | None:
        try:
            attempt(Subnet({**runs, **{name: subnet[name] for name in names[:count]}}))
        except Exception as error:  # whatever the model's own code raises
            return f"the model does not run with less of it: {_told(error)}"
        return None

    reason = failure(len(names))
    if reason is None:
        return None
    good, bad = 0, len(names)
    while bad - good > 1:
        middle = (good + bad) // 2
        found = failure(middle)
        if found is None:
            good = middle
        else:
            bad, reason = middle, found
    return names[bad - 1], reason


def _told(error: Exception) -> str:
    """Returns what an error says; and of one without text, such as a bare ``assert``, where it was raised."""
    text = first_line(error)
    if str(error).strip():
        return text
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _NOT_THE_MODELS:
            return f"{text} in {Path(frame.f_code.co_filename).name}, line {line}"
    return text
