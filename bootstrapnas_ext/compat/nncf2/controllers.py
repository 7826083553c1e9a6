"""Controllers by NNCF 2's names, around the controller of today."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bootstrapnas_ext.compat.nncf2.handler import MultiElasticityHandler
from bootstrapnas_ext.compat.nncf2.schedulers import BootstrapNASScheduler, CountingScheduler
from bootstrapnas_ext.deployment import deploy
from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export.onnx import renamed
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.flow import BootstrapNASController

CONFIG = "config"
"""In a compression state: the keys of the config that make the super-network again."""
_CONFIG_KEYS = ("bootstrapNAS", "ignored_scopes", "target_scopes")


class CompressionStage(IntEnum):
    """How far a model is compressed: fully in the last stage of training."""

    UNCOMPRESSED = 0
    PARTIALLY_COMPRESSED = 1
    FULLY_COMPRESSED = 2


class NNCFStatistics:
    """Statistics of a controller; a super-network has none."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(())

    def to_str(self) -> str:
        """Returns them for people."""
        return ""


class _Controller:
    """What both controllers do alike."""

    def __init__(self, controller: BootstrapNASController, handler: MultiElasticityHandler) -> None:
        self.controller = controller
        self.multi_elasticity_handler = handler

    @property
    def model(self) -> nn.Module:
        """The model; it runs the active subnet."""
        return self.controller.model

    def statistics(self, quickly_collected_only: bool = False) -> NNCFStatistics:
        """
        Returns no statistics.

        :param quickly_collected_only: Makes no difference.
        """
        return NNCFStatistics()

    def get_state(self) -> dict[str, Any]:
        """Returns what :meth:`load_state` takes, which is what :meth:`get_compression_state` returns."""
        return self.get_compression_state()

    def get_compression_state(self) -> dict[str, Any]:
        """Returns what :func:`resume_compression_from_state` takes; the weights are in ``model.state_dict()``."""
        config = {key: self.controller.nncf_config[key] for key in _CONFIG_KEYS if key in self.controller.nncf_config}
        return {
            **self.controller.get_compression_state(),
            CONFIG: config,
            "controller": type(self).__name__,
            "handler": self.multi_elasticity_handler.get_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """
        Restores what :meth:`get_compression_state` returned.

        :param state: The state of a super-network of the same model and config.
        :raises CheckpointError: If it is another's.
        """
        self.controller.load_compression_state(state)
        self.multi_elasticity_handler.load_state(state["handler"])

    def strip(self, do_copy: bool = True) -> nn.Module:
        """
        Returns the active subnet as a plain model of its own.

        :param do_copy: Makes no difference: the super-network stays.
        """
        supernet = self.controller.supernet
        return extract(supernet, supernet.active)

    def distributed(self) -> None:
        """Does nothing: processes agree by themselves."""

    def prepare_for_export(self) -> None:
        """Does nothing: :meth:`export_model` exports a copy."""

    def export_model(
        self,
        save_path: str | Path,
        save_format: str | None = None,
        input_names: list[str] | None = None,
        output_names: list[str] | None = None,
        model_args: tuple[Any, ...] | None = None,
    ) -> None:
        """
        Writes the active subnet as ONNX, extracted, with the norm statistics that the super-network has now, after its
        outputs were compared with the super-network's.

        :param save_path: The file.
        :param save_format: ``onnx``, with or without a version after it, which makes no difference.
        :param input_names: Names of the inputs; those of the arguments of ``forward`` if not given.
        :param output_names: Names of the outputs, likewise.
        :param model_args: Not needed: what the model takes is known.
        :raises ExportError: If the format is another one, the names do not fit, the export fails, or differs.
        """
        if save_format is not None and save_format.partition("_")[0] != "onnx":
            msg = f"`save_format` must be 'onnx', but got {save_format!r}; other formats: `deploy` writes them."
            raise ExportError(msg)
        path = Path(save_path)
        supernet = self.controller.supernet
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
            (file,) = deploy(supernet, supernet.active, folder, ("onnx",), seed=self.controller.config.seed).files
            file.write_bytes(renamed(file.read_bytes(), input_names, output_names))
            os.replace(file, path)


class ElasticityController(_Controller):
    """
    Says which subnet the model runs, and exports it.

    :param controller: The controller of today.
    """

    def __init__(self, controller: BootstrapNASController) -> None:
        super().__init__(controller, MultiElasticityHandler(controller.supernet, controller.config.seed))
        self.scheduler = CountingScheduler()

    @property
    def loss(self) -> Callable[[], torch.Tensor]:
        """Returns zero: elasticity alone has no loss."""
        return lambda: torch.zeros((), device=self.controller.supernet.device)

    def compression_stage(self) -> CompressionStage:
        """Returns that the model is not compressed: the super-network contains it as it was."""
        return CompressionStage.UNCOMPRESSED


class ProgressiveShrinkingController(_Controller):
    """
    What a training loop needs.

    :param controller: The controller of today.
    """

    def __init__(self, controller: BootstrapNASController) -> None:
        self.elasticity_controller = ElasticityController(controller)
        super().__init__(controller, self.elasticity_controller.multi_elasticity_handler)
        self._scheduler = BootstrapNASScheduler(controller.scheduler, self.multi_elasticity_handler)

    @property
    def scheduler(self) -> BootstrapNASScheduler:
        """Has ``epoch_step()``, to be called before each epoch, and ``step()``, before each training step."""
        return self._scheduler

    @property
    def loss(self) -> Callable[..., torch.Tensor]:
        """Without arguments, the loss of distillation of the last forward pass."""
        return self.controller.loss

    def step(self) -> None:
        """Does what ``scheduler.step()`` does."""
        self._scheduler.step()

    def set_training_lr_scheduler_args(self, optimizer: torch.optim.Optimizer, train_iters: float) -> None:
        """
        Lets the scheduler set the learning rate, as the config says.

        :param optimizer: The optimizer.
        :param train_iters: Steps of an epoch.
        """
        self.controller.scheduler.attach(optimizer, int(train_iters))

    def get_total_num_epochs(self) -> int:
        """Returns the epochs of all stages together."""
        return self._scheduler.get_total_training_epochs()

    def compression_stage(self) -> CompressionStage:
        """Returns whether training is in its last stage."""
        is_last = self._scheduler.is_final_stage()
        return CompressionStage.FULLY_COMPRESSED if is_last else CompressionStage.PARTIALLY_COMPRESSED

    def prepare_for_validation(self) -> None:
        """Recalibrates the norm statistics in the super-network for the active subnet."""
        recalibrate = self.controller.calibration(self.controller.config.training.batchnorm_adaptation)
        if recalibrate is not None:
            recalibrate(self.model)
