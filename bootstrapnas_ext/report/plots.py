"""The search-progression plot: accuracy over cost, one panel a cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.search import ACCURACY, Measurement, Objective, SearchRecord, Trial, pareto_front
from bootstrapnas_ext.writing import whole_file

# Light to dark and never white, so that the first trials can still be seen.
_EARLY_TO_LATE = LinearSegmentedColormap.from_list("early_to_late", ["#c6dbef", "#6baed6", "#2171b5", "#08204a"])
_FRONT, _INPUT, _CHOSEN = "#e6550d", "#31a354", ("#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22")
_MARKERS = "sDPXv"


def plot_search_progression(record: SearchRecord, chosen: Mapping[str, Trial], path: Path) -> None:
    """
    Draws accuracy over each cost: later trials darker, the Pareto front of the two, the input model and the chosen
    subnets marked. Without accuracy among the objectives, the first of them takes its place.

    Trials far below the others are left out of the picture, and it says how many, as they would squeeze the rest.

    :param record: Of a search with at least one trial.
    :param chosen: Name to trial, for example :attr:`bootstrapnas_ext.search.Selection.labelled`.
    :param path: Of the PNG file; a file there is replaced.
    :raises CheckpointError: If there are no trials, or the picture cannot be written.
    """
    if not record.trials:
        msg = "There is nothing to plot: the search has no finished trial. Resume it (`resume=True`, --resume) first."
        raise CheckpointError(msg)
    objectives = record.plan.objectives
    quality = next((o for o in objectives if o.name == ACCURACY), objectives[0])
    costs = [o for o in objectives if o is not quality]

    figure = Figure(figsize=(1.6 + 5.4 * len(costs), 5.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, cost in zip(panels, costs, strict=True):
        dots = _trials(axes, record.trials, cost, quality)
        _front(axes, record.trials, cost, quality)
        _marks(axes, record.plan.reference, chosen, cost, quality)
        _label(axes, cost)
    panels[0].set_ylabel(_axis_label(quality))
    _leave_out(panels[0], record, chosen, quality)
    figure.colorbar(dots, ax=panels, label="Trial", pad=0.01, ticks=MaxNLocator(integer=True))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _save(figure, path)


def _trials(axes: Axes, trials: Sequence[Trial], cost: Objective, quality: Objective) -> PathCollection:
    return axes.scatter(
        _values(trials, cost),
        _values(trials, quality),
        c=[trial.number for trial in trials],
        cmap=_EARLY_TO_LATE,
        s=22,
        linewidths=0,
        zorder=2,
    )


def _front(axes: Axes, trials: Sequence[Trial], cost: Objective, quality: Objective) -> None:
    front = sorted(pareto_front(trials, [cost, quality]), key=lambda trial: trial.values[cost.name])
    axes.plot(
        _values(front, cost),
        _values(front, quality),
        color=_FRONT,
        linewidth=1.3,
        drawstyle="steps-post",
        zorder=3,
        label="Pareto front",
    )


def _marks(
    axes: Axes, reference: Measurement | None, chosen: Mapping[str, Trial], cost: Objective, quality: Objective
) -> None:
    def mark(values: Mapping[str, float], label: str, color: str, marker: str, size: float, layer: int = 4) -> None:
        axes.scatter(
            values[cost.name],
            values[quality.name],
            s=size,
            color=color,
            marker=marker,
            edgecolors="white",
            linewidths=0.8,
            zorder=layer,
            label=label,
        )

    if reference is not None and {cost.name, quality.name} <= set(reference.values):
        mark(reference.values, "Input model", _INPUT, "*", 210, layer=5)
    for number, names in enumerate(_names(chosen)):
        trial = chosen[names[0]]
        label = f"{', '.join(names)} (trial {trial.number})"
        mark(trial.values, label, _CHOSEN[number % len(_CHOSEN)], _MARKERS[number % len(_MARKERS)], 85)


def _names(chosen: Mapping[str, Trial]) -> list[list[str]]:
    """Returns the names of each chosen trial, as one trial may be chosen for more than one reason."""
    names: dict[int, list[str]] = {}
    for name, trial in chosen.items():
        names.setdefault(trial.number, []).append(name)
    return list(names.values())


def _label(axes: Axes, cost: Objective) -> None:
    axes.set_xlabel(_axis_label(cost))
    if not cost.unit:
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.grid(alpha=0.25, linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _axis_label(objective: Objective) -> str:
    label = objective.label or objective.name
    return f"{label} ({objective.unit})" if objective.unit else label


def _leave_out(axes: Axes, record: SearchRecord, chosen: Mapping[str, Trial], quality: Objective) -> None:
    """Cuts off what is far below the lower quartile, where below is worse; never what is marked."""
    values = np.array(_values(record.trials, quality))
    marked = [trial.values[quality.name] for trial in chosen.values()]
    if record.plan.reference is not None and quality.name in record.plan.reference.values:
        marked.append(record.plan.reference.values[quality.name])
    lower, upper = np.percentile(values, [25, 75])
    floor = min(lower - 3 * (upper - lower), *marked)
    count = int((values < floor).sum())
    if quality.direction == "minimize" or not count or lower == upper:
        return
    shown = [*values[values >= floor], *marked]
    margin = 0.05 * (max(shown) - min(shown))
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    text = f"{count} {'trial' if count == 1 else 'trials'} further down not shown"
    axes.text(0.99, 0.015, text, transform=axes.transAxes, ha="right", fontsize=8, color="0.35")


def _values(trials: Sequence[Trial], objective: Objective) -> list[float]:
    return [trial.values[objective.name] for trial in trials]


def _save(figure: Figure, path: Path) -> None:
    try:
        with whole_file(path) as partial:
            figure.savefig(partial, format="png")
    except OSError as error:
        msg = f"The plot {path} cannot be written ({error}); make room, or choose another folder."
        raise CheckpointError(msg) from error
