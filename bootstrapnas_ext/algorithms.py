"""Training and search for those who have no loop of their own: both are made from a config and run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from bootstrapnas_ext.calibration import Calibration
from bootstrapnas_ext.config import ModelEvaluationArgs, NNCFConfig, SearchConfig
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.evaluation import top1_accuracy
from bootstrapnas_ext.evaluation.measures import LATENCY, Candidate, Context, measure_candidate
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.flow import BootstrapNASController
from bootstrapnas_ext.report.plots import plot_search_progression
from bootstrapnas_ext.search import (
    OBJECTIVES,
    Measurement,
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
from bootstrapnas_ext.search.storage import begins
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training import BEST, LAST, ExtractedAccuracy, Trainer, TrainingResult, load_supernet
from bootstrapnas_ext.training.checkpoint import make_folder
from bootstrapnas_ext.training.randomness import seeded_epoch

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
        :raises ConfigError: If the controller was made from another config, or is none of a super-network.
        """
        _check_same(controller, nncf_config)
        return cls(controller)

    def run(
        self,
        train_loader: Any,
        val_loader: Iterable[tuple[Any, Tensor]] | None,
        optimizer: torch.optim.Optimizer,
        output_dir: str | Path,
        *,
        criterion: Callable[[Any, Tensor], Tensor] | None = None,
        resume: bool = False,
        estimate: Callable[[Subnet], float] | None = None,
        console: Console | None = None,
    ) -> TrainingResult:
        """
        Trains, with a progress bar, TensorBoard logs, and checkpoints ``checkpoints/last.pt`` and ``best.pt``.

        Afterwards the super-network is the best one, with its maximum active. Where ``torch.distributed`` is
        initialized, all processes call this, each with its part of the data; only the first one writes.

        :param train_loader: Batches of inputs and targets to train on.
        :param val_loader: Batches to measure accuracy on after each epoch; with ``None``, the config's
            ``model_eval_fn`` measures it.
        :param optimizer: Over ``controller.supernet.parameters()``.
        :param output_dir: The run folder.
        :param criterion: The loss of outputs and targets; cross entropy with the config's ``label_smoothing`` if not
            given.
        :param resume: Whether to go on from ``checkpoints/last.pt``, if it is there. Without, none may be there.
        :param estimate: A subnet to how large its loss is, for the strategy "attentive"; the loss on the batch of the
            step if not given.
        :param console: Where progress is shown; standard error if not given.
        :raises BootstrapNASError: If the data, a checkpoint or a loss is wrong.
        """
        controller, folder = self._controller, Path(output_dir)
        supernet, training = controller.supernet, controller.config.training
        optimization = training.optimization
        if criterion is not None and optimization.label_smoothing:
            msg = (
                "$.bootstrapNAS.training.optimization.label_smoothing is for training without a `criterion` of one's "
                f"own, but got {optimization.label_smoothing} and a `criterion`; remove one of them."
            )
            raise ConfigError(msg)
        evaluate = ExtractedAccuracy(
            extract=partial(extract, supernet),
            recalibrate=controller.calibration(training.batchnorm_adaptation, all_processes=True) or _leave,
            top1=_accuracy(controller, val_loader, all_processes=True),
        )
        trainer = Trainer(
            supernet,
            controller.scheduler,
            train_loader,
            criterion or nn.CrossEntropyLoss(label_smoothing=optimization.label_smoothing),
            optimizer,
            loss=controller.loss,
            evaluate=evaluate,
            config=training,
            estimate=estimate,
            description=f"```json\n{json.dumps(controller.nncf_config, indent=4, default=str)}\n```",
        )
        # What cannot be extracted, or measured by `val_loader`, is told before hours of training.
        smallest = extract(supernet, supernet.space.minimum)
        if val_loader is not None:
            with seeded_epoch(val_loader, controller.config.seed, 0, supernet.device):
                top1_accuracy(smallest, islice(val_loader, 1), supernet.device)
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
        :raises ConfigError: If the controller was made from another config, or is none of a super-network.
        """
        _check_same(controller, nncf_config)
        return cls(controller)

    def run(
        self,
        val_loader: Iterable[tuple[Any, Tensor]] | None,
        output_dir: str | Path,
        *,
        resume: bool = False,
        console: Console | None = None,
    ) -> SearchResult:
        """
        Searches, with a progress bar; trials go into ``trials.db``, the plot into ``search_progression.png``.

        :param val_loader: Batches of inputs and targets to measure accuracy on; with ``None``, the config's
            ``model_eval_fn`` measures it.
        :param output_dir: The run folder.
        :param resume: Whether to go on with the trials that are there.
        :param console: Where progress is shown; standard error if not given.
        :raises BootstrapNASError: If a setting is wrong, or a trial fails.
        """
        controller, folder = self._controller, Path(output_dir)
        config = controller.config.search
        context = Context(
            accuracy=_accuracy(controller, val_loader),
            example=controller.supernet.example,
            latency=config.latency,
        )
        objectives = tuple(OBJECTIVES.get(name) for name in config.objectives)
        names = sorted({*config.objectives, *config.constraints, "macs", "parameters"})
        # One for all trials, since it keeps its samples.
        recalibrate = controller.calibration(config.batchnorm_adaptation)
        make_folder(folder)
        reference = self._measure_input_model(context, names) if begins(folder / TRIALS, resume=resume) else None
        plan = SearchPlan(
            controller.supernet.space,
            objectives,
            SearchSettings(**{field.name: getattr(config, field.name) for field in fields(SearchSettings)}),
            reference,
            _measured_with(controller, names),
        )
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
        plot_search_progression(record, result.selection.labelled, folder / PLOT)
        return result

    def _measure_input_model(self, context: Context, names: Iterable[str]) -> Measurement:
        supernet = self._controller.supernet
        candidate = Candidate(
            make=lambda: self._controller.input_model.to(supernet.device),
            cost=supernet.cost(supernet.space.maximum),
            context=context,
        )
        return measure_candidate(candidate, names)

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


def _accuracy(
    controller: BootstrapNASController,
    val_loader: Iterable[tuple[Any, Tensor]] | None,
    *,
    all_processes: bool = False,
) -> Callable[[nn.Module], float]:
    if val_loader is not None:
        device = controller.supernet.device
        return partial(top1_accuracy, loader=val_loader, device=device, all_processes=all_processes)
    if controller.nncf_config.has_extra_struct(ModelEvaluationArgs):
        return controller.nncf_config.get_extra_struct(ModelEvaluationArgs).eval_fn
    msg = (
        "Accuracy cannot be measured: there is no `val_loader` and no `model_eval_fn`; pass the one, or give the other "
        "to `register_default_init_args`."
    )
    raise ConfigError(msg)


def _measured_with(controller: BootstrapNASController, names: Sequence[str]) -> dict[str, Any]:
    """Returns what else than the subnet the measurements of a search depend on."""
    config = controller.config.search
    adaptation = config.batchnorm_adaptation
    samples = 0 if controller.calibration(adaptation) is None else adaptation.num_bn_adaptation_samples
    return {
        "super-network": fingerprint(controller.supernet.model),
        "measured": names,
        "num_bn_adaptation_samples": samples,
        "latency": asdict(config.latency) if LATENCY in names else None,
    }


def fingerprint(model: nn.Module) -> str:
    """
    Returns a short text that differs where any tensor of two models differs.

    :param model: Any model.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):  # a module's extra state may be anything
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _leave(_: nn.Module) -> None:
    """Leaves norm statistics as they are, where there is no data to recalibrate them with."""


def _check_same(controller: BootstrapNASController, nncf_config: NNCFConfig) -> None:
    if not isinstance(controller, BootstrapNASController):
        msg = (
            f"The controller must be a super-network's, but got {type(controller).__name__}. Where NNCF 2 puts several "
            "algorithms together, it is among the `child_ctrls` of NNCF's; what the others add to the loss, and their "
            "schedules, need a loop of your own."
        )
        raise ConfigError(msg)
    if controller.nncf_config != NNCFConfig.of(nncf_config):
        msg = "The controller was made from another config; pass the one that `create_compressed_model` got."
        raise ConfigError(msg)
