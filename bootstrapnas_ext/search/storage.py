"""The database of a search: its plan and every finished trial, in SQLite through Optuna."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.search._optuna import quiet
from bootstrapnas_ext.search.plan import SearchPlan
from bootstrapnas_ext.search.proposal import subnet_of
from bootstrapnas_ext.search.trial import Trial
from bootstrapnas_ext.writing import whole_file

_STUDY = "search"
_PLAN = "plan"
# Optuna would add tables that are missing, which a damaged database must be spared.
_TABLES = {"alembic_version", "version_info", "studies", "trials"} | {
    *(f"study_{part}" for part in ("directions", "system_attributes", "user_attributes")),
    *(f"trial_{part}" for part in ("params", "values", "system_attributes", "user_attributes")),
}
_DATABASE_ERRORS = (OSError, sqlite3.Error, SQLAlchemyError, optuna.exceptions.StorageInternalError)


@dataclass(frozen=True)
class SearchRecord:
    """
    What a search has found so far.

    :param plan: What the search is of.
    :param trials: The finished trials, in order.
    """

    plan: SearchPlan
    trials: tuple[Trial, ...]

    @property
    def exhausted(self) -> bool:
        """Whether every subnet of the space was measured, so that more evaluations would find nothing."""
        return len(self.trials) == self.plan.space.size


class TrialStorage:
    """
    The open database of a search, see :func:`open_storage`.

    :param path: Of the database, for messages.
    :param study: Optuna's view of it.
    :raises CheckpointError: If the database does not hold the plan and the trials of a search.
    """

    def __init__(self, path: Path, study: optuna.Study) -> None:
        self._path = path
        self._study = study
        try:
            self.plan = SearchPlan.from_json(study.user_attrs[_PLAN])
            self.trials = [trial_of(self.plan, number, trial) for number, trial in enumerate(self.finished())]
        except (*_DATABASE_ERRORS, LookupError, TypeError, ValueError) as error:
            raise _unreadable(path, f"{type(error).__name__}: {error}") from error

    def finished(self) -> list[FrozenTrial]:
        """Returns the finished trials as Optuna keeps them, in order."""
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def append(self, finished: FrozenTrial) -> Trial:
        """
        Stores a finished trial, in one transaction, so that the database never holds a part of a trial.

        :param finished: As :meth:`~bootstrapnas_ext.search.proposal.Proposer.tell` returned it.
        :raises CheckpointError: If it cannot be written, or another search has written to the database.
        """
        try:
            if len(self.finished()) != len(self.trials):
                msg = (
                    f"Another search writes to {self._path} at the same time; stop the other one and resume this "
                    "one (`resume=True`, --resume), or choose another folder for one of them."
                )
                raise CheckpointError(msg)
            self._study.add_trial(finished)
        except _DATABASE_ERRORS as error:
            msg = (
                f"Trial {len(self.trials)} cannot be written to {self._path}: {error.__cause__ or error}. Make room, "
                "or make the folder writable, and resume (`resume=True`, --resume)."
            )
            raise CheckpointError(msg) from error
        self.trials.append(trial_of(self.plan, len(self.trials), finished))
        return self.trials[-1]

    def record(self) -> SearchRecord:
        """Returns the plan and the trials so far."""
        return SearchRecord(self.plan, tuple(self.trials))


def trial_of(plan: SearchPlan, number: int, trial: FrozenTrial) -> Trial:
    """
    Returns a finished trial without the machinery around it.

    :param plan: What the search is of.
    :param number: Of the trial among the finished ones; Optuna also counts what was given up.
    :param trial: As Optuna keeps it.
    """
    values, attributes = trial.user_attrs["values"], trial.user_attrs["attributes"]
    return Trial(number, subnet_of(plan.space, trial), values, attributes)


def begins(path: Path, *, resume: bool) -> bool:
    """
    Returns whether a search at a path begins, rather than goes on.

    :param path: Of the database, which need not be there.
    :param resume: Whether the search may go on with what is there.
    :raises CheckpointError: If something is there, and the search may not go on with it.
    """
    if path.exists() and not resume:
        msg = f"{path} holds a search already; resume it (`resume=True`, --resume), or choose another folder."
        raise CheckpointError(msg)
    return not path.exists()


def create_storage(path: Path, plan: SearchPlan) -> None:
    """
    Makes the database of a new search, without trials.

    :param path: Of the database; nothing is there.
    :param plan: What the search is of.
    :raises CheckpointError: If the database cannot be written.
    """
    try:
        with whole_file(path) as partial:
            partial.unlink(missing_ok=True)
            with quiet():
                study = optuna.create_study(
                    study_name=_STUDY, storage=_rdb(partial, "rwc"), directions=[o.direction for o in plan.objectives]
                )
            study.set_user_attr(_PLAN, plan.to_json())
            # Of a database that was killed and then deleted; SQLite would apply it to this one.
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    except _DATABASE_ERRORS as error:
        msg = f"{path} cannot be written: {error.__cause__ or error}. Choose a folder that you may write to."
        raise CheckpointError(msg) from error


def open_storage(path: Path) -> TrialStorage:
    """
    Opens the database of a search. It need not be closed: no connection outlives a transaction.

    :param path: Of the database, made by :func:`create_storage`.
    :raises CheckpointError: If it is not there, is damaged, or is of something else. It is left as it is.
    """
    if not path.is_file():
        msg = f"There is no database of a search at {path}; run a search first, or name the folder of one."
        raise CheckpointError(msg)
    try:
        _check(path)
        study = optuna.load_study(study_name=_STUDY, storage=_rdb(path, "rw"))
    except KeyError as error:
        raise _unreadable(path, f"it has no study named {_STUDY!r}") from error
    # Optuna has no class of its own for a database of another version of it.
    except (*_DATABASE_ERRORS, RuntimeError) as error:
        raise _unreadable(path, str(error.__cause__ or error)) from error
    return TrialStorage(path, study)


def read_search(path: Path) -> SearchRecord:
    """
    Returns what a search, finished or not, has found so far.

    :param path: Of its database.
    :raises CheckpointError: If it is not there, is damaged, or is of something else. It is left as it is.
    """
    return open_storage(path).record()


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or not the database of a search ({reason}). It was left as it is; restore it from a copy, "
        "or choose another folder."
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode={mode}", uri=True)


def _check(path: Path) -> None:
    # Not read-only: after a kill, SQLite has to take back the transaction that was not finished.
    with closing(_connect(path, "rw")) as connection:
        faults = [row[0] for row in connection.execute("PRAGMA quick_check")]
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if faults != ["ok"]:
        raise _unreadable(path, faults[0])
    if missing := sorted(_TABLES - tables):
        raise _unreadable(path, f"it has no table {missing[0]!r}")


def _rdb(path: Path, mode: str) -> RDBStorage:
    # A creator instead of a URL: Optuna and SQLAlchemy give `{`, `?` and `%` in the name of a folder a meaning.
    return RDBStorage("sqlite://", engine_kwargs={"creator": lambda: _connect(path, mode), "poolclass": NullPool})
