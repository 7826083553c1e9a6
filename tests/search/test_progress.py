"""What a search shows while it runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bootstrapnas_ext.search import OBJECTIVES, search_progress

OBJECTIVE_LIST = [OBJECTIVES.get("accuracy"), OBJECTIVES.get("latency_ms")]


def shown(trial, terminal, numbers, total):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, color_system=None, legacy_windows=False)
    with search_progress(total, OBJECTIVE_LIST, console) as on_trial:
        for number in numbers:
            on_trial(trial(number, accuracy=90 + number / 100, latency_ms=2))
    return output.getvalue()


def test_lines_now_and_then_without_a_terminal(trial):
    lines = shown(trial, False, range(50), 50).splitlines()
    assert [line.split(",")[0] for line in lines] == [f"search {done}/50" for done in range(5, 51, 5)]
    assert lines[-1] == "search 50/50, about 0 s left, trial 49: accuracy 90.49 %, latency_ms 2 ms"


@pytest.mark.parametrize("terminal", [True, False])
def test_resumed_search_counts_the_trials_of_before(trial, terminal):
    output = shown(trial, terminal, range(40, 50), 50)
    assert "50/50" in output
    assert "accuracy 90.49 %, latency_ms 2 ms" in output


def test_bar_of_a_search_that_ends_early_stays_where_it_was(trial):
    assert "3/50" in shown(trial, True, range(3), 50)


def test_short_search_has_a_line_for_every_trial(trial):
    assert len(shown(trial, False, range(3), 3).splitlines()) == 3
