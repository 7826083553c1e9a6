"""Search with a function that measures accuracy, by NNCF 2's names."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from bootstrapnas_ext.calibration import Calibration
from bootstrapnas_ext.compat.nncf2.controllers import ElasticityController
from bootstrapnas_ext.compat.nncf2.evaluators import AccuracyEvaluator, BaseEvaluator, EvaluatorHandler, MACsEvaluator
from bootstrapnas_ext.compat.nncf2.handler import SubnetConfig
from bootstrapnas_ext.config import BNAdaptationInitArgs, BootstrapNASConfig, NNCFConfig, SearchConfig
from bootstrapnas_ext.errors import BootstrapNASError, CheckpointError, ConfigError
from bootstrapnas_ext.report.plots import plot_search_progression
from bootstrapnas_ext.search import (
    ACCURACY,
    Measurement,
    Objective,
    SearchPlan,
    SearchRecord,
    SearchSettings,
    Selection,
    Trial,
    run_search,
    select,
)
from bootstrapnas_ext.space import SearchSpace, Subnet
from bootstrapnas_ext.training.checkpoint import make_folder, save_tensors

_logger = logging.getLogger(__name__)

_NOT_GIVEN = 100
_TRIALS = "trials.db"


@dataclass(frozen=True)
class BatchnormAdaptation:
    """
    Recalibrates norm statistics.

    :param calibration: Does it.
    """

    calibration: Calibration

    def run(self, model: nn.Module) -> None:
        """
        Recalibrates a model in place, as its active subnet needs it.

        :param model: A super-network's model.
        """
        self.calibration(model)


class BaseSearchAlgorithm:
    """
    Searches a super-network for the smallest subnet that is accurate enough.

    :param model: The super-network's model.
    :param elasticity_ctrl: Its controller.
    :param nncf_config: How to search, and where norm statistics come from.
    :param verbose: Whether each trial is logged.
    """

    def __init__(
        self, model: nn.Module, elasticity_ctrl: ElasticityController, nncf_config: NNCFConfig, verbose: bool = True
    ) -> None:
        self._model = model
        self._elasticity_ctrl = elasticity_ctrl
        self._handler = elasticity_ctrl.multi_elasticity_handler
        self._config = BootstrapNASConfig.from_nncf(nncf_config).search
        self._log_dir = Path(nncf_config.get("log_dir", "."))
        self._verbose = verbose
        self._folder = Path()
        self._handlers: list[EvaluatorHandler] = []
        self._result: tuple[SearchRecord, Selection] | None = None
        self.acc_delta = self._config.acc_delta
        self.search_records: list[list[Any]] = []
        self.bad_requests: list[tuple[SubnetConfig, SubnetConfig]] = []
        self.best_config: SubnetConfig | None = None
        self.best_vals: list[float | None] | None = None
        self.bn_adaptation = _adaptation(elasticity_ctrl, nncf_config, self._config.batchnorm_adaptation)

    @classmethod
    def from_config(
        cls, model: nn.Module, elasticity_ctrl: ElasticityController, nncf_config: NNCFConfig
    ) -> BaseSearchAlgorithm:
        """
        Returns the search that a config describes.

        :param model: The super-network's model.
        :param elasticity_ctrl: Its controller.
        :param nncf_config: The config.
        """
        return cls(model, elasticity_ctrl, nncf_config)

    @classmethod
    def from_checkpoint(
        cls, model: nn.Module, elasticity_ctrl: ElasticityController, bn_adapt_args: Any, resuming_checkpoint_path: Any
    ) -> BaseSearchAlgorithm:
        """
        Always fails, as in NNCF 2.

        :param model: The super-network's model.
        :param elasticity_ctrl: Its controller.
        :param bn_adapt_args: Where norm statistics come from.
        :param resuming_checkpoint_path: Of a training.
        :raises ConfigError: Always: what is searched how is in the config.
        """
        msg = (
            "A search is made from a config: use `from_config`; `SearchAlgorithm` in `bootstrapnas_ext` goes on with "
            "the trials of a search that was cut off."
        )
        raise ConfigError(msg)

    @property
    def search_params(self) -> SearchConfig:
        """What the config says about the search, to be read; :attr:`acc_delta` may be set."""
        return self._config

    @property
    def num_vars(self) -> int:
        """Number of variables."""
        return self._handler.get_design_vars_info()[0]

    @property
    def vars_lower(self) -> list[int]:
        """The smallest index of each variable's values."""
        return [0] * self.num_vars

    @property
    def vars_upper(self) -> list[int]:
        """The largest index of each variable's values."""
        return self._handler.get_design_vars_info()[1]

    @property
    def evaluator_handlers(self) -> list[EvaluatorHandler]:
        """
        What is measured: first the cost, then the accuracy.

        :raises BootstrapNASError: Before :meth:`run`.
        """
        if not self._handlers:
            raise BootstrapNASError(_RUN_FIRST)
        return self._handlers

    @property
    def efficiency_evaluator_handler(self) -> EvaluatorHandler:
        """Measures the cost."""
        return self.evaluator_handlers[0]

    @property
    def accuracy_evaluator_handler(self) -> EvaluatorHandler:
        """Measures the accuracy."""
        return self.evaluator_handlers[1]

    def run(
        self,
        validate_fn: Callable[[nn.Module, Any], float],
        val_loader: Any,
        checkpoint_save_dir: str | Path,
        efficiency_evaluator: BaseEvaluator | None = None,
        ref_acc: float | None = _NOT_GIVEN,
        tensorboard_writer: Any = None,
        evaluator_checkpoint: Any = None,
    ) -> tuple[ElasticityController, SubnetConfig, list[float]]:
        """
        Searches what the handler has enabled; dimensions that are not stay as they are active. Then it activates the
        best subnet with norm statistics of its own. If no subnet is accurate enough, that is the maximum.

        Trials go into a new ``trials.db``: a search overwrites what another one left in the folder, as in NNCF 2, since
        nothing tells whether the functions measured the same then. What an evaluator remembers is not measured again.

        :param validate_fn: Called with the model, which runs a subnet, and the loader; returns top-1 in percent.
        :param val_loader: For ``validate_fn``.
        :param checkpoint_save_dir: The folder of ``trials.db`` and ``subnetwork_best.pth``; made if it is not there.
        :param efficiency_evaluator: Measures the cost of the active subnet; millions of MACs if not given.
        :param ref_acc: Accuracy that subnets are compared with; 100 or a negative number for what the config says, or
            that of the maximum.
        :param tensorboard_writer: Not needed.
        :param evaluator_checkpoint: Not needed: give the state to the evaluator by ``update_from_state``.
        :return: The controller, the best subnet, and its cost and its accuracy.
        :raises BootstrapNASError: If no dimension is enabled, a trial fails, or the folder cannot be written to.
        """
        self._folder = Path(checkpoint_save_dir)
        make_folder(self._folder)
        space = self._handler.enabled_space
        if space.size == 1:
            msg = (
                "There is one subnet only, so nothing can be searched: enable a dimension by "
                "`multi_elasticity_handler.enable_elasticity(dim)` or `enable_all()` first."
            )
            raise BootstrapNASError(msg)
        self._activate(space.maximum)
        efficiency = efficiency_evaluator or MACsEvaluator(
            lambda: self._handler.count_flops_and_weights_for_active_subnet()[0] / 2e6
        )
        accuracy = AccuracyEvaluator(self._model, validate_fn, val_loader)
        self._handlers = [EvaluatorHandler(efficiency), EvaluatorHandler(accuracy)]
        efficiency.begin_search(space)
        plan = self._plan(space, efficiency.name)
        record = run_search(
            plan,
            self._measure,
            num_evals=self._config.num_evals,
            path=_made_free(self._folder / _TRIALS),
            on_trial=self._log if self._verbose else None,
        )
        given = self._config.ref_acc if ref_acc in (_NOT_GIVEN, None) or ref_acc < 0 else ref_acc
        selection = select(record.trials, plan.objectives, plan.reference, acc_delta=self.acc_delta, ref_acc=given)
        self._result = record, selection
        self.search_records = [self._record(trial) for trial in record.trials]
        return self._finish(selection, space.maximum)

    def search_progression_to_csv(self, filename: str = "search_progression.csv") -> None:
        """
        Writes a line for each trial: subnet, name and value of the cost, name and value of the accuracy.

        :param filename: Its name, in the config's ``log_dir``.
        """
        with self._log_file(filename).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(self.search_records)

    def evaluators_to_csv(self) -> None:
        """Writes ``cache_<name>.csv`` for cost and accuracy into the config's ``log_dir``."""
        make_folder(self._log_dir)
        for handler in self.evaluator_handlers:
            handler.evaluator.export_cache_to_csv(self._log_dir)

    def save_evaluators_state(self) -> None:
        """Writes ``evaluators_state.pth``: what was measured of which subnet."""
        states = [handler.evaluator.get_state() for handler in self.evaluator_handlers]
        save_tensors(self._folder / "evaluators_state.pth", states)

    def visualize_search_progression(self, filename: str = "search_progression") -> None:
        """
        Draws accuracy over cost of all trials.

        :param filename: Name of the picture without ``.png``, in the config's ``log_dir``.
        :raises BootstrapNASError: Before :meth:`run`.
        """
        if self._result is None:
            raise BootstrapNASError(_RUN_FIRST)
        record, selection = self._result
        plot_search_progression(record, selection.labelled, self._log_file(f"{filename}.png"))

    def _log_file(self, name: str) -> Path:
        make_folder(self._log_dir)
        return self._log_dir / name

    def _plan(self, space: SearchSpace, cost: str) -> SearchPlan:
        efficiency, accuracy = self._handlers
        return SearchPlan(
            space,
            (Objective(ACCURACY, "%", "maximize", "Top-1 accuracy"), Objective(cost, "", "minimize")),
            SearchSettings(**{field.name: getattr(self._config, field.name) for field in fields(SearchSettings)}),
            Measurement({ACCURACY: -accuracy.input_model_value, cost: efficiency.input_model_value}),
        )

    def _measure(self, subnet: Subnet) -> Measurement:
        self._activate(subnet)
        variables = self._handler.variables_of(subnet)
        cost, accuracy = (handler.value_of(variables) for handler in self._handlers)
        return Measurement({ACCURACY: -accuracy, self._handlers[0].name: cost})

    def _activate(self, subnet: Subnet) -> None:
        self._handler.supernet.set_active(subnet)
        if self.bn_adaptation is not None:
            self.bn_adaptation.run(self._model)

    def _log(self, trial: Trial) -> None:
        found = ", ".join(f"{name} {value:.4g}" for name, value in trial.values.items())
        _logger.info("trial %d: %s", trial.number, found)

    def _record(self, trial: Trial) -> list[Any]:
        efficiency, accuracy = self._handlers
        cost = trial.values[efficiency.name]
        return [self._handler.config_of(trial.subnet), efficiency.name, cost, accuracy.name, -trial.values[ACCURACY]]

    def _finish(self, selection: Selection, maximum: Subnet) -> tuple[ElasticityController, SubnetConfig, list[float]]:
        efficiency, accuracy = self._handlers
        if selection.satisfied:
            best = selection.best
            self._activate(best.subnet)
            found = [best.values[efficiency.name], best.values[ACCURACY]]
            self.best_vals = [found[0], -found[1]]
        else:
            _logger.warning("%s So the maximum subnet is activated.", selection.reason)
            self._activate(maximum)
            found = [abs(efficiency.input_model_value), abs(accuracy.input_model_value)]
            self.best_vals = [None, None]
        self.best_config = self._handler.get_active_config()
        self._save_best(self.best_config, found)
        return self._elasticity_ctrl, self.best_config, found

    def _save_best(self, config: SubnetConfig, found: Sequence[float]) -> None:
        plain = {dim.value: value for dim, value in config.items()}
        contents = {"best_acc1": found[1], "best_efficiency": found[0], "subnet_config": plain}
        save_tensors(self._folder / "subnetwork_best.pth", contents)


_RUN_FIRST = "Nothing was searched yet; call `run` first."

SearchAlgorithm = NSGA2SearchAlgorithm = RNSGA2SearchAlgorithm = BaseSearchAlgorithm


def _made_free(path: Path) -> Path:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        msg = f"{path} cannot be overwritten: {error}. Choose a folder that you may write to."
        raise CheckpointError(msg) from error
    return path


def _adaptation(
    controller: ElasticityController, nncf_config: NNCFConfig, adaptation: Any
) -> BatchnormAdaptation | None:
    """Returns what recalibrates norm statistics, with the samples of this config or of that of the super-network."""
    native = controller.controller
    own = native.nncf_config
    if nncf_config.has_extra_struct(BNAdaptationInitArgs) and not own.has_extra_struct(BNAdaptationInitArgs):
        own.register_extra_structs([nncf_config.get_extra_struct(BNAdaptationInitArgs)])
    calibration = native.calibration(adaptation)
    return None if calibration is None or not adaptation.num_bn_adaptation_samples else BatchnormAdaptation(calibration)
