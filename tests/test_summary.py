"""The table of a super-network."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from bootstrapnas_ext import ExampleInput, Supernet
from bootstrapnas_ext.space import Choice, SearchSpace
from bootstrapnas_ext.summary import _count, supernet_table


def make() -> Supernet:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 5, 1))
    return Supernet(model, ExampleInput((torch.randn(1, 3, 6, 6),)))


def test_it_shows_choices_costs_and_reasons() -> None:
    supernet = make()
    console = Console(width=100, file=io.StringIO())
    with console.capture() as capture:
        console.print(supernet_table(supernet))
    text = capture.get()
    assert "Super-network of 4 subnets" in text
    assert "16, 12, 8, 4" in text
    assert f"{supernet.cost(supernet.space.maximum).macs:,}" in text
    assert "output of the model" in text
    assert "less padding than 0" in text


def test_summary_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    make().summary()
    assert "Super-network of 4 subnets" in capsys.readouterr().out


def printed(renderable: object) -> str:
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


class Described(Supernet):
    """Has one static layer, with any name and reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 5, 1)), torch.randn(1, 3, 6, 6))
        self._static = {"width": {name: reason}}

    def static_layers(self) -> dict[str, dict[str, str]]:
        return self._static


@pytest.mark.parametrize("reason", ["size [/1] differs", "[bold]", ":x: is no icon", "[2, 3]"])
def test_texts_are_shown_as_they_are(reason: str) -> None:
    assert reason in printed(supernet_table(Described("layer", reason)))


def test_long_names_are_shown_to_their_end() -> None:
    name = "model.encoder.layer.11.attention.output.dense_with_a_very_long_name_indeed.last_part_counts"
    text = printed(
        supernet_table(Described(name, "a reason of some words that also needs much of the width of a line"))
    )
    assert "…" not in text
    rows = [line.split("│") for line in text.splitlines() if line.count("│") == 4]
    assert name in "".join(row[2].strip() for row in rows)


def test_sizes_of_any_magnitude_are_readable() -> None:
    huge = SearchSpace(tuple(Choice(f"c{i}", (4, 3, 2, 1), "width") for i in range(1000))).size
    assert [_count(size) for size in (12, 1234567, 5 * 10**30, huge)] == [
        "12",
        "1,234,567",
        "5.00 x 10^30",
        "over 10^300",
    ]
