"""The Pareto front, against its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrapnas_ext.search import OBJECTIVES, Trial, pareto_front
from bootstrapnas_ext.space import Subnet

OBJECTIVE_LISTS = [("accuracy", "macs"), ("macs", "accuracy", "latency_ms"), ("macs",)]
# Few different values, so that ties and duplicates are common.
trials = st.lists(
    st.fixed_dictionaries({name: st.integers(0, 3) for name in ("accuracy", "macs", "latency_ms")}), max_size=12
).map(lambda rows: [Trial(number, Subnet({"width:conv0": number}), values) for number, values in enumerate(rows)])


def dominates(a, b, objectives):
    pairs = [(o.direction, a.values[o.name], b.values[o.name]) for o in objectives]
    better = [x > y if direction == "maximize" else x < y for direction, x, y in pairs]
    return any(better) and all(is_better or x == y for is_better, (_, x, y) in zip(better, pairs, strict=True))


@pytest.mark.parametrize("names", OBJECTIVE_LISTS)
@given(trials=trials)
def test_front_is_what_nothing_dominates(names, trials):
    objectives = [OBJECTIVES.get(name) for name in names]
    expected = [t for t in trials if not any(dominates(other, t, objectives) for other in trials)]
    assert list(pareto_front(trials, objectives)) == expected


def test_equal_trials_are_on_the_front_together(trial):
    objectives = [OBJECTIVES.get("accuracy"), OBJECTIVES.get("macs")]
    a, b, worse = trial(0, accuracy=90, macs=5), trial(1, accuracy=90, macs=5), trial(2, accuracy=90, macs=6)
    assert pareto_front([worse, a, b], objectives) == (a, b)
