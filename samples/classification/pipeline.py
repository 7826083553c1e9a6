"""The parts of a run: input model, super-network, training, search, and subnets as files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import bootstrapnas_ext as bnas
from bootstrapnas_ext import processes
from bootstrapnas_ext.algorithms import SearchResult, summarize
from bootstrapnas_ext.config import BootstrapNASConfig
from bootstrapnas_ext.deployment import Deployed
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.search import read_search
from bootstrapnas_ext.training import load_supernet
from bootstrapnas_ext.training.checkpoint import save_tensors
from bootstrapnas_ext.training.data_checks import check_labels, count_classes
from samples.classification.datasets import Loaders
from samples.classification.models import create_model
from samples.classification.pretraining import create_optimizer, pretrain
from samples.classification.run_folder import RunFolder, write_json
from samples.classification.settings import settings_of
from samples.classification.weights import load_torchvision_weights, load_weights


class Pipeline:
    """
    A run of the sample, part by part; each part leaves what the next one needs in the run folder.

    :param config: The effective config.
    :param folder: The run folder, which is there.
    :param device: Where models are trained and validated.
    :param console: Where progress is shown.
    :raises DataError: If the data is missing or does not fit.
    """

    def __init__(self, config: bnas.NNCFConfig, folder: RunFolder, device: torch.device, console: Console) -> None:
        self.config = config
        self.settings = settings_of(config)
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        self.nas = BootstrapNASConfig.from_nncf(config)
        self.folder = folder
        self.device = device
        self.console = console
        self.loaders = Loaders(self.settings)
        bnas.register_default_init_args(config, self.loaders.calibration)

    def prepare(self) -> None:
        """
        Makes the input model, if the run has none yet. All that is known to be wrong is told before anything is
        written or trained.

        :raises BootstrapNASError: If there is no model, its weights do not fit, or it cannot be a super-network.
        """
        model = self._create()
        if self.folder.input_model.is_file():
            load_weights(model, self.folder.input_model)
            if processes.rank() == 0:
                write_json(self.folder.config, self.config)
            self.say(f"input model: done already, {self.folder.input_model}")
            return
        trained = self._load_given_weights(model)
        self._rehearse(copy.deepcopy(model))
        write_json(self.folder.config, self.config)
        if not trained:
            self._pretrain(model)
        save_tensors(self.folder.input_model, model.cpu().state_dict())
        self.folder.pretraining.unlink(missing_ok=True)  # what it was for is done

    def build(self) -> bnas.BootstrapNASController:
        """Makes a super-network of the input model and returns its controller."""
        model = self._create()
        load_weights(model, self.folder.input_model)
        return self._controller(model)

    def train(self, controller: bnas.BootstrapNASController, *, resume: bool) -> None:
        """
        Trains the super-network and keeps the best checkpoint.

        :param controller: Of the super-network.
        :param resume: Whether to go on from the last checkpoint.
        """
        was_done = self.folder.supernet.is_file()
        bnas.EpochBasedTrainingAlgorithm.from_config(controller, self.config).run(
            self.loaders.train,
            self.loaders.own_validation,
            create_optimizer(controller.model.named_parameters(), self.settings.optimizer),
            self.folder.path,
            resume=resume,
            console=self.console,
        )
        self.folder.keep_best_checkpoint()
        if was_done:
            self.say(f"training: done already, {self.folder.supernet}")

    def load(self, controller: bnas.BootstrapNASController) -> None:
        """
        Loads the trained super-network.

        :param controller: Of the super-network.
        """
        load_supernet(controller.supernet, self.folder.supernet)

    def search(self, controller: bnas.BootstrapNASController, *, resume: bool) -> None:
        """
        Searches the trained super-network.

        :param controller: Of the super-network.
        :param resume: Whether to go on with the trials that are there.
        """
        before = len(read_search(self.folder.trials).trials) if self.folder.trials.exists() else 0
        result = bnas.SearchAlgorithm.from_config(controller, self.config).run(
            self.loaders.validation, self.folder.path, resume=resume, console=self.console
        )
        if len(result.record.trials) == before:
            self.say(f"search: done already, {before} trials in {self.folder.trials}")

    def say(self, text: str) -> None:
        """
        Shows a text as it is.

        :param text: Of any length.
        """
        self.console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def search_result(self) -> SearchResult:
        """Returns what the search has found so far."""
        return summarize(read_search(self.folder.trials), self.nas.search)

    def deploy(
        self,
        controller: bnas.BootstrapNASController,
        subnet: bnas.Subnet,
        directory: Path,
        formats: Sequence[str] = ("onnx", "ir"),
        ir_batch: int | None = 1,
    ) -> Deployed:
        """
        Writes a subnet with norm statistics of its own, verified.

        :param controller: Of the super-network.
        :param subnet: Of its space.
        :param directory: Where to.
        :param formats: Of :data:`bootstrapnas_ext.export.FORMATS`.
        :param ir_batch: Batch size that is stored in the IR; ``None`` for dynamic.
        """
        return bnas.deploy(
            controller.supernet,
            subnet,
            directory,
            formats,
            recalibrate=controller.calibration(self.nas.search.batchnorm_adaptation),
            ir_batch=ir_batch,
            seed=self.settings.seed,
        )

    def _controller(self, model: nn.Module, *, dump_graphs: bool = True) -> bnas.BootstrapNASController:
        controller: bnas.BootstrapNASController
        controller, _ = bnas.create_compressed_model(model.to(self.device), self.config, dump_graphs=dump_graphs)
        return controller

    def _rehearse(self, model: nn.Module) -> None:
        """Makes what the training makes, so that it refuses now what it would refuse after hours of pre-training."""
        controller = self._controller(model, dump_graphs=False)
        last = torch.tensor([self.settings.num_classes - 1])
        classes = count_classes(controller.model, controller.supernet.example.with_batch(1), last)
        if classes is not None:
            check_labels(last, classes, ignored=-1)
        bnas.extract(controller.supernet, controller.supernet.space.minimum)
        controller.multi_elasticity_handler.activate_minimum_subnet()
        controller.model.train()
        controller.model(torch.zeros(2, *self.settings.image_shape, device=self.device))
        controller.loss()

    def _create(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers alone
            torch.manual_seed(self.settings.seed)
            return create_model(self.settings.model, self.settings.num_classes)

    def _load_given_weights(self, model: nn.Module) -> bool:
        """Loads the weights that are given and returns whether the model is ready with them."""
        settings, trained = self.settings, False
        if settings.weights_file is not None:
            load_weights(model, settings.weights_file)
            trained = True
        elif settings.weights is not None:
            trained = load_torchvision_weights(model, settings.model, settings.weights)
        if not trained and settings.pretrain is None:
            missing = "no weights" if settings.weights is None else "no weights for this number of classes"
            msg = (
                f"{settings.model} has {missing}: give a file with --weights, or let the sample train the model first, "
                'for example with "pretrain": {"epochs": 100} in the config.'
            )
            raise ConfigError(msg)
        return trained

    def _pretrain(self, model: nn.Module) -> None:
        assert self.settings.pretrain is not None  # else `_load_given_weights` has refused
        with self.folder.timed("pretrain"):
            pretrain(
                model.to(self.device),
                self.loaders.train,
                self.loaders.validation,
                self.settings.pretrain,
                self.settings.optimizer,
                seed=self.settings.seed,
                bf16=self.settings.mixed_precision,
                device=self.device,
                console=self.console,
                checkpoint=self.folder.pretraining,
            )
