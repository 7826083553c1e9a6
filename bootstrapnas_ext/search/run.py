"""Runs a search: propose, measure, store, until enough subnets were measured."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

from bootstrapnas_ext.errors import BootstrapNASError, CheckpointError, ConfigError
from bootstrapnas_ext.search.algorithms import ALGORITHMS
from bootstrapnas_ext.search.plan import SearchPlan
from bootstrapnas_ext.search.proposal import Proposer
from bootstrapnas_ext.search.storage import SearchRecord, TrialStorage, begins, create_storage, open_storage
from bootstrapnas_ext.search.trial import Measurement, Trial
from bootstrapnas_ext.space import Subnet

_logger = logging.getLogger(__name__)

Evaluate = Callable[[Subnet], Measurement]
"""Measures a subnet. What it returns should depend on the subnet alone, not on the subnets before it, or a search that
was resumed ends with other trials."""


def run_search(
    plan: SearchPlan,
    evaluate: Evaluate,
    *,
    num_evals: int,
    path: Path,
    resume: bool = False,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchRecord:
    """
    Searches until the database holds enough trials, or every subnet of the space was measured.

    The first trials are the maximum and the minimum subnet. No subnet is measured twice. Every finished trial is stored
    at once, and a trial that was cut off is forgotten: a search that was killed and resumed ends with the same trials
    as one that was not. The same plan and the same measurements give the same trials.

    :param plan: What the search is of.
    :param evaluate: Measures a subnet: a finite value for every objective, and whatever else is worth keeping.
    :param num_evals: How many trials there are to be, at least 1; those of before a resumption count.
    :param path: Of the database.
    :param resume: Whether to go on with the database at the path; without one there, the search begins.
    :param on_trial: Is told of every trial after it was stored, for example to show progress.
    :return: All trials, also those of before a resumption.
    :raises RegistryError: If the algorithm is not registered.
    :raises CheckpointError: If there is a database already and ``resume`` is false, or it cannot be resumed. It is left
        as it is.
    :raises BootstrapNASError: If the evaluation raises it; the message then also says which trial it was.
    """
    if num_evals < 1:
        msg = f"`num_evals >= 1` must hold, but got {num_evals}."
        raise ConfigError(msg)
    ALGORITHMS.get(plan.settings.algorithm)  # An unknown one must not leave a database behind.
    storage = _open(plan, path, resume)
    proposer = Proposer(plan, storage.finished())
    while len(storage.trials) < num_evals:
        proposal = proposer.ask()
        if proposal is None:
            _logger.warning("All %d subnets of the space were measured, so the search ends.", plan.space.size)
            break
        optuna_trial, subnet = proposal
        measurement = _measure(plan, evaluate, subnet, number=len(storage.trials))
        trial = storage.append(proposer.tell(optuna_trial, measurement))
        if on_trial is not None:
            on_trial(trial)
    return storage.record()


def _open(plan: SearchPlan, path: Path, resume: bool) -> TrialStorage:
    if begins(path, resume=resume):
        create_storage(path, plan)
    storage = open_storage(path)
    if differences := storage.plan.differences(plan):
        msg = (
            f"{path} holds another search and cannot be resumed: {'; '.join(differences)}. Use the settings and the "
            "super-network of that search, or choose another folder."
        )
        raise CheckpointError(msg)
    return storage


def _measure(plan: SearchPlan, evaluate: Evaluate, subnet: Subnet, number: int) -> Measurement:
    try:
        measurement = evaluate(subnet)
        _check(plan, measurement)
    except BootstrapNASError as error:
        # The class of the error stays, so that who handles it by its class still can.
        error.args = (f"Trial {number} failed: {error} The subnet is {json.dumps(dict(subnet))}.",)
        raise
    return measurement


def _check(plan: SearchPlan, measurement: Measurement) -> None:
    for objective in plan.objectives:
        if objective.name not in measurement.values:
            msg = (
                f"The objective {objective.name!r} is not among the measurements {sorted(measurement.values)}; measure "
                "it, or take it off the objectives."
            )
            raise ConfigError(msg)
        if not math.isfinite(measurement.values[objective.name]):
            msg = (
                f"Every objective must be finite, but {objective.name} is {measurement.values[objective.name]}; check "
                "what measures it and the weights of the super-network, then go on (`resume=True`, --resume)."
            )
            raise BootstrapNASError(msg)
