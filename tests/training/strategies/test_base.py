"""What a step offers to strategies, and what holds for every one of them."""

from __future__ import annotations

import pytest

from bootstrapnas_ext.config import rules
from bootstrapnas_ext.training import STRATEGIES, Pass
from tests.training.fake_supernet import SPACE
from tests.training.steps import step_of

MAXIMUM, MINIMUM = SPACE.maximum, SPACE.minimum
OPENED = SPACE.restrict({"width": 2, "depth": 2})


@pytest.mark.parametrize(
    ("source", "learns", "imitates", "maximum_imitates"),
    [
        (None, Pass(MINIMUM), Pass(MINIMUM, "maximum", 0.0), Pass(MAXIMUM)),
        ("none", Pass(MINIMUM), Pass(MINIMUM), Pass(MAXIMUM)),
        ("maximum", Pass(MINIMUM, "maximum"), Pass(MINIMUM, "maximum", 0.0), Pass(MAXIMUM, "maximum")),
        (
            "input_model",
            Pass(MINIMUM, "input_model"),
            Pass(MINIMUM, "input_model", 0.0),
            Pass(MAXIMUM, "input_model", 0.0),
        ),
    ],
)
def test_who_teaches(source: str | None, learns: Pass, imitates: Pass, maximum_imitates: Pass) -> None:
    step = step_of(source=source)
    assert step.learns(MINIMUM) == learns
    assert step.imitates(MINIMUM) == imitates
    assert step.imitates(MAXIMUM) == maximum_imitates, "it has nothing to learn from itself"


def test_configs_know_the_strategies() -> None:
    assert set(STRATEGIES) == rules.STRATEGIES


@pytest.mark.parametrize("name", STRATEGIES)
def test_step_is_a_function_of_seed_and_index(name: str) -> None:
    strategy = STRATEGIES.get(name)
    steps = [strategy(step_of(index)) for index in range(20)]
    assert steps == [strategy(step_of(index)) for index in range(20)]
    assert len(set(steps)) > 10
    assert steps != [strategy(step_of(index, seed=1)) for index in range(20)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_subnets_stay_for_as_long_as_the_sample_rate_says(name: str) -> None:
    strategy = STRATEGIES.get(name)
    steps = [strategy(step_of(index, sample_rate=3)) for index in range(12)]
    assert steps == [strategy(step_of(index // 3)) for index in range(12)]


@pytest.mark.parametrize("name", set(STRATEGIES) - {"random"})
def test_subnets_are_what_the_stage_has_opened(name: str) -> None:
    strategy = STRATEGIES.get(name)
    seen = {one.subnet for index in range(200) for one in strategy(step_of(index, OPENED))}
    for choice in OPENED.choices:
        assert {subnet[choice.name] for subnet in seen} == set(choice.values)
