"""Running a search: the same trials always, whatever interrupts it, and no subnet twice."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import signal
import subprocess
import sys

import pytest

from bootstrapnas_ext.errors import BootstrapNASError, CheckpointError, ConfigError, DataError, RegistryError
from bootstrapnas_ext.search import (
    Measurement,
    SearchSettings,
    read_search,
    run_search,
)
from bootstrapnas_ext.space import Choice, SearchSpace

NUM_EVALS = 26


def small_space(size):
    return SearchSpace((Choice("c", tuple(range(size, 0, -1)), "width"),))


@pytest.fixture(scope="module")
def uninterrupted(plan, evaluate, tmp_path_factory):
    return run_search(plan, evaluate, num_evals=NUM_EVALS, path=tmp_path_factory.mktemp("run") / "trials.db")


def test_first_trials_are_the_maximum_and_the_minimum(uninterrupted, space):
    assert [trial.subnet for trial in uninterrupted.trials[:2]] == [space.maximum, space.minimum]


def test_trials_hold_what_the_evaluation_returned_and_no_subnet_twice(uninterrupted, evaluate):
    assert [trial.number for trial in uninterrupted.trials] == list(range(NUM_EVALS))
    assert len({trial.subnet for trial in uninterrupted.trials}) == NUM_EVALS
    for trial in uninterrupted.trials:
        measurement = evaluate(trial.subnet)
        assert (trial.values, trial.attributes) == (measurement.values, measurement.attributes)


def test_same_seed_same_trials_and_other_seed_other_trials(uninterrupted, plan, evaluate, path, tmp_path):
    assert run_search(plan, evaluate, num_evals=NUM_EVALS, path=path) == uninterrupted
    other = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, seed=6))
    trials = run_search(other, evaluate, num_evals=NUM_EVALS, path=tmp_path / "other.db").trials
    assert {trial.subnet for trial in trials} != {trial.subnet for trial in uninterrupted.trials}


@pytest.mark.parametrize("allowed", [1, 4, 9])
def test_interrupted_often_and_resumed_ends_the_same(uninterrupted, plan, evaluate, path, allowed):
    finished = []

    def interrupted(subnet):
        if len(finished) == allowed:
            raise KeyboardInterrupt
        return evaluate(subnet)

    for _ in range(2):
        finished.clear()
        with pytest.raises(KeyboardInterrupt):
            run_search(plan, interrupted, num_evals=NUM_EVALS, path=path, resume=True, on_trial=finished.append)
    assert read_search(path).trials == uninterrupted.trials[: 2 * allowed]
    record = run_search(plan, evaluate, num_evals=NUM_EVALS, path=path, resume=True)
    assert record == uninterrupted == read_search(path)


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.orm import Session
from bootstrapnas_ext.search import run_search
from bootstrapnas_ext.space import Subnet

plan, trials, where = pickle.load(sys.stdin.buffer)
measurements = {Subnet(values): measurement for values, measurement in trials}
calls = flushes = 0

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def evaluate(subnet):
    global calls
    calls += 1
    if calls == 12 and where == "evaluation":
        kill()
    if calls == 12:
        event.listen(Session, "after_flush", count_flush)
    return measurements[subnet]

def count_flush(*_):
    global flushes
    flushes += 1
    if flushes == 4:
        kill()

run_search(plan, evaluate, num_evals=26, path=Path(sys.argv[1]))
"""


@pytest.mark.parametrize("where", ["evaluation", "transaction"])
def test_killed_and_resumed_ends_the_same(uninterrupted, plan, evaluate, path, where):
    measurements = [(dict(trial.subnet), evaluate(trial.subnet)) for trial in uninterrupted.trials]
    process = subprocess.run(
        [sys.executable, "-c", KILLED, path], input=pickle.dumps((plan, measurements, where)), timeout=60, check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert read_search(path).trials == uninterrupted.trials[:11]
    assert run_search(plan, evaluate, num_evals=NUM_EVALS, path=path, resume=True) == uninterrupted


def test_resuming_measures_only_what_is_missing(uninterrupted, plan, evaluate, path):
    run_search(plan, evaluate, num_evals=20, path=path)
    reported = []
    record = run_search(plan, evaluate, num_evals=NUM_EVALS, path=path, resume=True, on_trial=reported.append)
    assert record == uninterrupted
    assert tuple(reported) == record.trials[20:]

    def forbidden(subnet):
        raise AssertionError(subnet)

    assert run_search(plan, forbidden, num_evals=10, path=path, resume=True) == record


def test_resuming_nothing_begins(plan, evaluate, path):
    assert len(run_search(plan, evaluate, num_evals=3, path=path, resume=True).trials) == 3


def test_trial_is_stored_before_it_is_reported(plan, evaluate, path):
    stored = []
    run_search(plan, evaluate, num_evals=3, path=path, on_trial=lambda _: stored.append(len(read_search(path).trials)))
    assert stored == [1, 2, 3]


def test_resuming_keeps_the_reference_that_the_search_began_with(plan, evaluate, path):
    run_search(plan, evaluate, num_evals=2, path=path)
    noisy = dataclasses.replace(plan, reference=Measurement({"accuracy": 1, "macs": 1}))
    assert run_search(noisy, evaluate, num_evals=3, path=path, resume=True).plan == plan


@pytest.mark.parametrize("size", [1, 2, 5])
def test_exhausted_space_ends_the_search(plan, evaluate, path, caplog, size):
    plan = dataclasses.replace(plan, space=small_space(size))
    with caplog.at_level(logging.WARNING):
        record = run_search(plan, evaluate, num_evals=size + 1, path=path)
    assert record.exhausted
    assert {trial.subnet["c"] for trial in record.trials} == set(range(1, size + 1))
    assert f"All {size} subnets of the space were measured" in caplog.text


def test_search_that_found_enough_does_not_claim_exhaustion(plan, evaluate, path, caplog):
    assert not run_search(plan, evaluate, num_evals=3, path=path).exhausted
    assert caplog.text == ""


def test_failing_evaluation_names_the_trial_and_keeps_the_others(plan, evaluate, path):
    def failing(subnet):
        if subnet["width:conv0"] == 8:
            raise DataError("The validation set is empty.")
        return evaluate(subnet)

    with pytest.raises(DataError, match=r'Trial 1 failed: The validation set is empty. .*"width:conv0": 8'):
        run_search(plan, failing, num_evals=NUM_EVALS, path=path)
    assert len(read_search(path).trials) == 1


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ({"accuracy": 90.0}, ConfigError, r"Trial 0 failed: The objective 'macs' is not among .*\['accuracy'\]"),
        ({"accuracy": float("nan"), "macs": 1}, BootstrapNASError, "must be finite, but accuracy is nan"),
        ({"accuracy": 90.0, "macs": float("inf")}, BootstrapNASError, "must be finite, but macs is inf"),
    ],
)
def test_impossible_measurement_is_an_error(plan, path, values, error, match):
    with pytest.raises(error, match=match):
        run_search(plan, lambda _: Measurement(values), num_evals=2, path=path)
    assert read_search(path).trials == ()


def test_existing_search_is_not_overwritten(plan, evaluate, path):
    record = run_search(plan, evaluate, num_evals=3, path=path)
    with pytest.raises(CheckpointError, match=r"holds a search already; resume it \(`resume=True`, --resume\), or"):
        run_search(plan, evaluate, num_evals=3, path=path)
    assert read_search(path) == record


def test_wrong_settings_make_no_database(plan, evaluate, path):
    with pytest.raises(ConfigError, match="`num_evals >= 1` must hold, but got 0"):
        run_search(plan, evaluate, num_evals=0, path=path)
    unknown = dataclasses.replace(plan, settings=SearchSettings("NSGA"))
    with pytest.raises(RegistryError, match=r"no search algorithm named 'NSGA'. Did you mean 'NSGA2'"):
        run_search(unknown, evaluate, num_evals=1, path=path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: {"settings": dataclasses.replace(p.settings, seed=9)}, "seed is 5 there, but 9 here"),
        (lambda p: {"settings": dataclasses.replace(p.settings, algorithm="random")}, "algorithm is 'NSGA2' there"),
        (lambda p: {"objectives": p.objectives[::-1]}, "objectives are accuracy .*, macs .* there, but macs .*, acc"),
        (
            lambda p: {"measured_with": {"weights": "b", "latency": {"threads": 1}}},
            "weights is 'a' there, but 'b' here",
        ),
        (lambda p: {"measured_with": {"weights": "a", "latency": {"threads": 2}}}, "latency.threads is 1 there, but 2"),
        (lambda p: {"measured_with": {"weights": "a"}}, "latency is {'threads': 1} there, but None here"),
        (lambda p: {"space": small_space(2)}, "'width:conv0' exists only there"),
        (lambda p: {"space": SearchSpace((*p.space.choices, *small_space(2).choices))}, "'c' exists only here"),
        (lambda p: {"space": SearchSpace(p.space.choices[::-1])}, "another order"),
        (
            lambda p: {"space": p.space.restrict({"width": 2, "depth": None})},
            r"'width:conv0' is one of \[32, 24, 16, 8\] there, but \[32, 24\] here",
        ),
    ],
)
def test_another_search_cannot_be_resumed(plan, evaluate, path, change, match):
    plan = dataclasses.replace(plan, measured_with={"weights": "a", "latency": {"threads": 1}})
    run_search(plan, evaluate, num_evals=3, path=path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=rf"holds another search and cannot be resumed: .*{match}"):
        run_search(dataclasses.replace(plan, **change(plan)), evaluate, num_evals=3, path=path, resume=True)
    assert path.read_bytes() == before


def test_two_searches_of_one_database_are_noticed(plan, evaluate, path):
    def intruding(subnet):
        run_search(plan, evaluate, num_evals=3, path=path, resume=True)
        return evaluate(subnet)

    run_search(plan, evaluate, num_evals=2, path=path)
    with pytest.raises(CheckpointError, match=r"Another search writes to .* at the same time"):
        run_search(plan, intruding, num_evals=4, path=path, resume=True)
    assert [trial.number for trial in read_search(path).trials] == [0, 1, 2]


def test_nothing_is_printed(plan, evaluate, path, capfd):
    run_search(plan, evaluate, num_evals=6, path=path)
    assert capfd.readouterr() == ("", "")


def test_search_needs_no_torch():
    code = "import sys, bootstrapnas_ext.search; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
