"""The search-progression plot: what is drawn, and that a picture is there for any search."""

from __future__ import annotations

import os

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.report.plots import plot_search_progression
from bootstrapnas_ext.search import OBJECTIVES, Measurement, SearchPlan, SearchRecord, SearchSettings, Trial
from bootstrapnas_ext.space import Choice, SearchSpace, Subnet

SPACE = SearchSpace((Choice("width:conv0", tuple(range(64, 0, -1)), "width"),))
INPUT = Measurement({"accuracy": 92.0, "macs": 65, "latency_ms": 9, "parameters": 40})


def record(*names, count=20, reference=INPUT, accuracy=lambda number: 95 - number / 10):
    trials = tuple(
        Trial(
            n,
            Subnet({"width:conv0": 64 - n}),
            {"accuracy": accuracy(n), "macs": 64.0 - n, "latency_ms": 9 - n / 10, "parameters": 64.0 - n},
        )
        for n in range(count)
    )
    return SearchRecord(SearchPlan(SPACE, tuple(map(OBJECTIVES.get, names)), SearchSettings(), reference), trials)


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """Draws, and returns the figure that was saved."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw)))

    def draw(record, chosen):
        path = tmp_path / "search_progression.png"
        plot_search_progression(record, chosen, path)
        assert os.listdir(tmp_path) == [path.name]
        assert imread(path).std() > 0.01
        return figures[-1]

    return draw


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_panel_a_cost_with_its_unit(figure):
    drawn = figure(record("macs", "accuracy", "latency_ms", "parameters"), {})
    *panels, colour_bar = drawn.axes
    assert [axes.get_xlabel() for axes in panels] == ["MACs", "Latency (ms)", "Parameters"]
    assert panels[0].get_ylabel() == "Top-1 accuracy (%)"
    assert colour_bar.get_ylabel() == "Trial"


def test_trials_get_darker_and_the_marked_ones_are_named(figure):
    search = record("accuracy", "macs")
    chosen = {"best": search.trials[7], "lowest_latency_ms": search.trials[7], "most_accurate": search.trials[0]}
    drawn = figure(search, chosen)
    assert legend(drawn) == [
        "Pareto front",
        "Input model",
        "best, lowest_latency_ms (trial 7)",
        "most_accurate (trial 0)",
    ]
    dots, input_model, best, _ = drawn.axes[0].collections
    brightness = dots.to_rgba(dots.get_array())[:, :3].sum(axis=1)
    assert (brightness[1:] < brightness[:-1]).all()
    assert input_model.get_offsets().tolist() == [[65, 92]]
    assert best.get_offsets().tolist() == [[57, 95 - 0.7]]


def test_front_of_the_panel(figure):
    search = record("accuracy", "macs", count=6, accuracy=lambda n: [90, 70, 95, 60, 80, 50][n])
    (front,) = figure(search, {}).axes[0].lines
    assert front.get_xydata().tolist() == [[59, 50], [60, 80], [62, 95]]


def test_failed_subnets_do_not_squeeze_the_others(figure):
    search = record("accuracy", "macs", count=20, accuracy=lambda n: 10 if n == 3 else 95 - n / 10)
    axes = figure(search, {}).axes[0]
    assert 90 < axes.get_ylim()[0] < 92.0
    assert [text.get_text() for text in axes.texts] == ["1 trial further down not shown"]
    axes = figure(search, {"best": search.trials[3]}).axes[0]
    assert axes.get_ylim()[0] < 10
    assert not axes.texts


@pytest.mark.parametrize("count", [1, 2, 64])
@pytest.mark.parametrize("accuracy", [lambda n: 90.0, lambda n: 90.0 + n])
@pytest.mark.parametrize("reference", [None, Measurement({"accuracy": 91}), INPUT])
def test_any_search_can_be_drawn(figure, count, accuracy, reference):
    search = record("accuracy", "latency_ms", count=count, reference=reference, accuracy=accuracy)
    assert ("Input model" in legend(figure(search, {"best": search.trials[-1]}))) == (reference is INPUT)


def test_without_accuracy_the_first_objective_takes_its_place(figure):
    axes = figure(record("latency_ms", "macs"), {}).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("MACs", "Latency (ms)")


def test_plot_that_cannot_be_written(tmp_path):
    with pytest.raises(CheckpointError, match=r"plot\.png cannot be written \(.*choose another folder"):
        plot_search_progression(record("accuracy", "macs"), {}, tmp_path / "missing" / "plot.png")


def test_nothing_to_plot(tmp_path):
    with pytest.raises(CheckpointError, match="nothing to plot: the search has no finished trial"):
        plot_search_progression(record("accuracy", "macs", count=0), {}, tmp_path / "plot.png")
    assert os.listdir(tmp_path) == []
