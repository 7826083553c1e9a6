"""Training and search for those who have no loop of their own: both are made from a config and run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from bootstrapnas_ext.calibration import Calibration
from bootstrapnas_ext.config import NNCFConfig, SearchConfig
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.evaluation import top1_accuracy
from bootstrapnas_ext.evaluation.measures import Candidate, Context, measure_candidate
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.flow import BootstrapNASController
from bootstrapnas_ext.report.plots import plot_search_progression
from bootstrapnas_ext.search import (
    OBJECTIVES,
    SearchPlan,
    SearchRecord,
    SearchSettings,
    Selection,
    Trial,
    pareto_front,
    run_search,
    search_progress,
    select,
)
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training import BEST, LAST, ExtractedAccuracy, Trainer, TrainingResult, load_supernet

CHECKPOINTS = "checkpoints"
TRIALS = "trials.db"
PLOT = "search_progression.png"


class EpochBasedTrainingAlgorithm:
    """
    Trains a super-network through the stages of its config.

    .. code-block:: python

        training = EpochBasedTrainingAlgorithm.from_config(controller, nncf_config)
        training.run(train_loader, val_loader, optimizer, output_dir="run")

    :param controller: Of the super-network.
    """

    def __init__(self, controller: BootstrapNASController) -> None:
        self._controller = controller

    @classmethod
    def from_config(cls, controller: BootstrapNASController, nncf_config: NNCFConfig) -> EpochBasedTrainingAlgorithm:
        """
        Returns the training that a config describes.

        :param controller: What ``create_compressed_model`` returned for this config.
        :param nncf_config: The config.
        :raises ConfigError: If the controller was made from another config.
        """
        _check_same(controller, nncf_config)
        return cls(controller)

    def run(
        self,
        train_loader: Any,
        val_loader: Iterable[tuple[Any, Tensor]],
        optimizer: torch.optim.Optimizer,
        output_dir: str | Path,
        *,
        criterion: Callable[[Any, Tensor], Tensor] | None = None,
        resume: bool = False,
        bf16: bool = False,
        console: Console | None = None,
    ) -> TrainingResult:
        """
        Trains, with a progress bar, TensorBoard logs, and checkpoints ``checkpoints/last.pt`` and ``best.pt``.

        Afterwards the super-network is the best one, with its maximum active.

        :param train_loader: Batches of inputs and targets to train on.
        :param val_loader: Batches to measure accuracy on after each epoch.
        :param optimizer: Over ``controller.supernet.parameters()``.
        :param output_dir: The run folder.
        :param criterion: The loss of outputs and targets; cross entropy if not given.
        :param resume: Whether to go on from ``checkpoints/last.pt``, if it is there.
        :param bf16: Whether to run forward passes under autocast to bfloat16.
        :param console: Where progress is shown; standard error if not given.
        :raises BootstrapNASError: If the data, a checkpoint or a loss is wrong.
        """
        controller, folder = self._controller, Path(output_dir)
        supernet = controller.supernet
        calibration = controller.calibration(controller.config.training.batchnorm_adaptation)
        evaluate = ExtractedAccuracy(
            extract=partial(extract, supernet),
            recalibrate=calibration or _leave,
            top1=partial(top1_accuracy, loader=val_loader, device=supernet.device),
        )
        trainer = Trainer(
            supernet,
            controller.scheduler,
            train_loader,
            criterion or nn.CrossEntropyLoss(),
            optimizer,
            distillation=controller.loss,
            evaluate=evaluate,
            bf16=bf16,
        )
        checkpoints = folder / CHECKPOINTS
        last = checkpoints / LAST
        result = trainer.run(
            checkpoints,
            folder / "tensorboard",
            resume=last if resume and last.exists() else None,
            console=console or Console(stderr=True),
        )
        load_supernet(supernet, checkpoints / BEST)
        return result


@dataclass(frozen=True)
class SearchResult:
    """
    What a search found: pure functions of its stored trials.

    :param record: The plan and all trials.
    :param front: Trials that no other is better than in every objective.
    :param selection: The chosen subnets.
    """

    record: SearchRecord
    front: tuple[Trial, ...]
    selection: Selection


class SearchAlgorithm:
    """
    Searches a super-network for the subnets that its config asks for.

    .. code-block:: python

        search = SearchAlgorithm.from_config(controller, nncf_config)
        result = search.run(val_loader, output_dir="run")
        controller.multi_elasticity_handler.activate_subnet(result.selection.best.subnet)

    :param controller: Of the super-network.
    """

    def __init__(self, controller: BootstrapNASController) -> None:
        self._controller = controller

    @classmethod
    def from_config(cls, controller: BootstrapNASController, nncf_config: NNCFConfig) -> SearchAlgorithm:
        """
        Returns the search that a config describes.

        :param controller: What ``create_compressed_model`` returned for this config.
        :param nncf_config: The config.
        :raises ConfigError: If the controller was made from another config.
        """
        _check_same(controller, nncf_config)
        return cls(controller)

    def run(
        self,
        val_loader: Iterable[tuple[Any, Tensor]],
        output_dir: str | Path,
        *,
        resume: bool = False,
        console: Console | None = None,
    ) -> SearchResult:
        """
        Searches, with a progress bar; trials go into ``trials.db``, the plot into ``search_progression.png``.

        :param val_loader: Batches of inputs and targets to measure accuracy on.
        :param output_dir: The run folder.
        :param resume: Whether to go on with the trials that are there.
        :param console: Where progress is shown; standard error if not given.
        :raises BootstrapNASError: If a setting is wrong, or a trial fails.
        """
        controller, folder = self._controller, Path(output_dir)
        config = controller.config.search
        context = Context(
            accuracy=partial(top1_accuracy, loader=val_loader, device=controller.supernet.device),
            example=controller.supernet.example,
            latency=config.latency,
        )
        objectives = tuple(OBJECTIVES.get(name) for name in config.objectives)
        names = (*config.objectives, *config.constraints, "macs", "parameters")
        plan = SearchPlan(
            controller.supernet.space,
            objectives,
            SearchSettings(
                algorithm=config.algorithm,
                population=config.population,
                crossover_prob=config.crossover_prob,
                crossover_eta=config.crossover_eta,
                mutation_prob=config.mutation_prob,
                mutation_eta=config.mutation_eta,
                seed=config.seed,
            ),
            measure_candidate(self._input_model(context), names),
        )
        # One for all trials, since it keeps its samples.
        recalibrate = controller.calibration(config.batchnorm_adaptation)
        folder.mkdir(parents=True, exist_ok=True)
        with search_progress(min(config.num_evals, plan.space.size), objectives, console) as on_trial:
            record = run_search(
                plan,
                lambda subnet: measure_candidate(self._candidate(subnet, recalibrate, context), names),
                num_evals=config.num_evals,
                path=folder / TRIALS,
                resume=resume,
                on_trial=on_trial,
            )
        result = summarize(record, config)
        plot_search_progression(record, result.selection.chosen, folder / PLOT)
        return result

    def _input_model(self, context: Context) -> Candidate:
        controller = self._controller
        device = controller.supernet.device
        return Candidate(
            make=lambda: controller.input_model.to(device),
            cost=controller.supernet.cost(controller.supernet.space.maximum),
            context=context,
        )

    def _candidate(self, subnet: Subnet, recalibrate: Calibration | None, context: Context) -> Candidate:
        supernet = self._controller.supernet
        return Candidate(
            make=partial(extract, supernet, subnet, recalibrate), cost=supernet.cost(subnet), context=context
        )


def summarize(record: SearchRecord, config: SearchConfig) -> SearchResult:
    """
    Returns the Pareto front and the chosen subnets of a search.

    :param record: The plan and all trials.
    :param config: Its ``ref_acc``, ``acc_delta`` and ``constraints`` choose.
    """
    constraints = {
        name: {key: value for key, value in asdict(limits).items() if value is not None}
        for name, limits in config.constraints.items()
    }
    selection = select(
        record.trials,
        record.plan.objectives,
        record.plan.reference,
        acc_delta=config.acc_delta,
        ref_acc=config.ref_acc,
        constraints=constraints,
    )
    return SearchResult(record, pareto_front(record.trials, record.plan.objectives), selection)


def _leave(_: nn.Module) -> None:
    """Leaves norm statistics as they are, where there is no data to recalibrate them with."""


def _check_same(controller: BootstrapNASController, nncf_config: NNCFConfig) -> None:
    if controller.nncf_config != nncf_config:
        msg = "The controller was made from another config; pass the one that `create_compressed_model` got."
        raise ConfigError(msg)
