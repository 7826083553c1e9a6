"""Shows how far a search is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bootstrapnas_ext.search.objectives import Objective
from bootstrapnas_ext.search.trial import Trial

_LINES = 10
"""Lines of a whole search where there is no terminal."""


@contextmanager
def search_progress(
    total: int, objectives: Sequence[Objective], console: Console | None = None
) -> Iterator[Callable[[Trial], None]]:
    """
    Gives the ``on_trial`` of a search: a bar with the time left in a terminal, a line now and then elsewhere.

    .. code-block:: python

        with search_progress(num_evals, plan.objectives) as on_trial:
            run_search(plan, evaluate, num_evals=num_evals, path=path, on_trial=on_trial)

    :param total: Trials at the end, those of before a resumption included.
    :param objectives: Whose values are shown.
    :param console: Where to; ``None`` is standard error.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total, objectives, console)
        return
    columns = (
        TextColumn("search"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)

        def on_trial(trial: Trial) -> None:
            if progress.tasks[0].completed != trial.number:
                # Resumed: the trials of before took no time of now.
                progress.reset(task, total=total, completed=trial.number)
            progress.update(task, advance=1, description=_text(trial, objectives))

        yield on_trial


def _lines(total: int, objectives: Sequence[Objective], console: Console) -> Callable[[Trial], None]:
    start, first = time.monotonic(), -1

    def on_trial(trial: Trial) -> None:
        nonlocal first
        done = trial.number + 1
        first = trial.number if first < 0 else first
        if done == total or done * _LINES // total > trial.number * _LINES // total:
            left = (time.monotonic() - start) / (done - first) * (total - done)
            text = f"trial {trial.number}: {_text(trial, objectives)}"
            console.print(
                f"search {done}/{total}, about {left:.0f} s left, {text}",
                soft_wrap=True,
                markup=False,
            )

    return on_trial


def _text(trial: Trial, objectives: Sequence[Objective]) -> str:
    return ", ".join(f"{objective.name} {objective.format(trial.values[objective.name])}" for objective in objectives)
