"""The database of a search: what it holds comes back, and damage is one clear error that changes nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import optuna
import pytest

from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.search import Measurement, read_search, run_search
from bootstrapnas_ext.search.storage import open_storage


@pytest.fixture(scope="module")
def original(plan, evaluate, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "trials.db"
    return run_search(plan, evaluate, num_evals=6, path=path), path


@pytest.fixture
def finished(original, path):
    """A finished search; its database is at the path."""
    record, copied = original
    shutil.copy(copied, path)
    return record


def sql(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_record_survives_storage(finished, path):
    assert read_search(path) == finished


def test_reading_changes_nothing(finished, path):
    before = path.read_bytes()
    read_search(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_optuna_reads_the_database(finished, plan, path):
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{path}")
    study._storage._backend.engine.dispose()
    assert [trial.values for trial in study.trials] == [
        [trial.values["accuracy"], trial.values["macs"]] for trial in finished.trials
    ]
    for trial, stored in zip(finished.trials, study.trials, strict=True):
        assert list(plan.space.encode(trial.subnet)) == [stored.params[name] for name in trial.subnet]


@pytest.mark.parametrize("name", ["a b", "a{b}", "a?b=c", "a%20b", "a#b", "ä"])
def test_folder_may_have_any_name(plan, evaluate, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    record = run_search(plan, evaluate, num_evals=2, path=folder / "trials.db")
    assert os.listdir(folder) == ["trials.db"]
    assert read_search(folder / "trials.db") == record


def test_relative_path(plan, evaluate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    path = (tmp_path / "trials.db").relative_to(tmp_path)
    run_search(plan, evaluate, num_evals=2, path=path)
    assert len(read_search(path).trials) == 2


def test_trial_that_another_tool_left_running_does_not_count(finished, plan, evaluate, path):
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{path}")
    study.ask()
    study._storage._backend.engine.dispose()
    assert read_search(path) == finished
    assert len(run_search(plan, evaluate, num_evals=8, path=path, resume=True).trials) == 8
    assert [trial.number for trial in read_search(path).trials] == list(range(8))


SPILL_AND_DIE = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")
connection.execute("UPDATE trial_user_attributes SET value_json = hex(randomblob(5000))")
os._exit(0)
"""


@pytest.fixture
def killed(finished, path):
    """A finished search, killed while SQLite was overwriting it; what it overwrote is in the journal."""
    before = path.read_bytes()
    subprocess.run([sys.executable, "-c", SPILL_AND_DIE, path], timeout=60, check=True)
    assert path.read_bytes() != before
    return finished


def test_kill_within_a_transaction_takes_the_transaction_back(killed, path):
    assert read_search(path) == killed


def test_journal_of_a_deleted_database_does_not_spoil_the_next(killed, plan, evaluate, path):
    path.unlink()
    plan = dataclasses.replace(plan, reference=Measurement({"macs": 1}, {"long": "x" * 50_000}))
    record = run_search(plan, evaluate, num_evals=6, path=path)
    assert record == read_search(path)
    assert record.trials == killed.trials


def test_missing_database(path):
    with pytest.raises(CheckpointError, match=r"There is no database of a search at .*trials.db; run a search first"):
        read_search(path)
    assert not path.exists()


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite_the_middle(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (truncate, "malformed|is too large|database disk image"),
        (overwrite_the_middle, "malformed|btree|page|database disk image"),
        (lambda path: path.write_bytes(b""), "it has no table 'alembic_version'"),
        (lambda path: path.write_text("this is not a database" * 100), "file is not a database"),
        (lambda path: sql(path, "DROP TABLE trials"), "it has no table 'trials'"),
        (lambda path: sql(path, "DROP TABLE trial_params"), "it has no table 'trial_params'"),
        (lambda path: sql(path, "DELETE FROM studies"), "it has no study named 'search'"),
        (lambda path: sql(path, "DELETE FROM study_user_attributes"), "KeyError: 'plan'"),
        (lambda path: sql(path, "DELETE FROM trial_params"), "KeyError: 'width:conv0'"),
        (lambda path: sql(path, "DELETE FROM trial_user_attributes"), "KeyError: 'values'"),
        (lambda path: sql(path, "UPDATE study_user_attributes SET value_json = '[1'"), "JSONDecodeError"),
        (lambda path: sql(path, "UPDATE study_user_attributes SET value_json = '{}'"), "KeyError: 'space'"),
        (lambda path: sql(path, "UPDATE alembic_version SET version_num = 'v99'"), "optuna"),
    ],
)
def test_damaged_database_is_a_clear_error_and_stays(finished, plan, evaluate, path, damage, match):
    damage(path)
    before = path.read_bytes()
    match = rf"(?s)trials.db is damaged or not the database of a search \(.*({match})"
    with pytest.raises(CheckpointError, match=match):
        read_search(path)
    with pytest.raises(CheckpointError, match=match):
        run_search(plan, evaluate, num_evals=8, path=path, resume=True)
    assert path.read_bytes() == before


def test_folder_that_is_missing_or_not_writable(plan, evaluate, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written: unable to open database file"):
        run_search(plan, evaluate, num_evals=2, path=tmp_path / "missing" / "trials.db")
    assert os.listdir(tmp_path) == []


def test_path_of_a_folder(plan, evaluate, tmp_path):
    with pytest.raises(CheckpointError, match="There is no database of a search at"):
        run_search(plan, evaluate, num_evals=2, path=tmp_path, resume=True)


def test_what_a_kill_left_of_making_a_database_is_no_obstacle(plan, evaluate, path):
    path.with_name("trials.db.partial").write_text("half of a database")
    run_search(plan, evaluate, num_evals=2, path=path)
    assert os.listdir(path.parent) == [path.name]


def test_a_trial_that_cannot_be_written_is_a_clear_error(finished, path, monkeypatch):
    def failing(self, trial):
        raise sqlite3.OperationalError("database or disk is full")

    storage = open_storage(path)
    monkeypatch.setattr(optuna.Study, "add_trial", failing)
    with pytest.raises(CheckpointError, match=r"Trial 6 cannot be written to .*trials.db: database or disk is full"):
        storage.append(storage.finished()[0])
    assert storage.record() == finished
