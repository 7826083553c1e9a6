"""Objectives: what is known, and that a user can add to it."""

from __future__ import annotations

import dataclasses

from bootstrapnas_ext.search import OBJECTIVES, Measurement, Objective, SearchSettings, run_search


def test_known_objectives():
    assert {name: (OBJECTIVES.get(name).unit, OBJECTIVES.get(name).direction) for name in OBJECTIVES} == {
        "accuracy": ("%", "maximize"),
        "macs": ("", "minimize"),
        "parameters": ("", "minimize"),
        "latency_ms": ("ms", "minimize"),
    }


def test_less_loss_is_better():
    assert OBJECTIVES.get("accuracy").loss(90) < OBJECTIVES.get("accuracy").loss(80)
    assert OBJECTIVES.get("macs").loss(80) < OBJECTIVES.get("macs").loss(90)


def test_values_for_people():
    assert OBJECTIVES.get("accuracy").format(93.456) == "93.46 %"
    assert OBJECTIVES.get("macs").format(12.0) == "12"


def test_objective_from_outside(plan, path, monkeypatch):
    monkeypatch.setattr(OBJECTIVES, "_entries", dict(OBJECTIVES._entries))
    OBJECTIVES.register("energy_j")(Objective("energy_j", "J", "minimize"))
    plan = dataclasses.replace(
        plan, objectives=(plan.objectives[0], OBJECTIVES.get("energy_j")), settings=SearchSettings(population=4)
    )
    record = run_search(
        plan, lambda subnet: Measurement({"accuracy": 50, "energy_j": sum(subnet.values())}), num_evals=8, path=path
    )
    assert record.trials[1].values["energy_j"] == sum(plan.space.minimum.values())
