"""What a search is of: checked, comparable, and the same after a round trip through JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.search import OBJECTIVES, SearchPlan, SearchSettings


def test_plan_survives_json(plan):
    assert SearchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    measured = dataclasses.replace(plan, measured_with={"names": ("accuracy", "macs")})
    assert SearchPlan.from_json(json.loads(json.dumps(measured.to_json()))) == measured
    bare = dataclasses.replace(plan, reference=None)
    assert SearchPlan.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def test_equal_plans_have_no_differences(plan):
    assert plan.differences(dataclasses.replace(plan, reference=None)) == []


@pytest.mark.parametrize("names", [[], ["macs"], ["accuracy", "macs", "accuracy"]])
def test_objectives_are_two_or_more(space, names):
    with pytest.raises(ConfigError, match="`objectives` must be two or more different names, but got"):
        SearchPlan(space, tuple(map(OBJECTIVES.get, names)), SearchSettings())


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"population": 1}, "`population >= 2` must hold, but got 1"),
        ({"seed": -1}, "`seed >= 0` must hold, but got -1"),
        ({"crossover_prob": 1.5}, "`0 <= crossover_prob <= 1` must hold, but got 1.5"),
        ({"crossover_eta": 0.0}, "`crossover_eta > 0` must hold, but got 0.0"),
        ({"mutation_eta": -1.0}, "`mutation_eta > 0` must hold, but got -1.0"),
        ({"mutation_prob": -0.1}, "`0 <= mutation_prob <= 1` must hold, but got -0.1"),
    ],
)
def test_impossible_settings(values, match):
    with pytest.raises(ConfigError, match=match):
        SearchSettings(**values)
