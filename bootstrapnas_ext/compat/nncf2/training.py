"""Training with a function for an epoch, by NNCF 2's names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from bootstrapnas_ext import processes
from bootstrapnas_ext.compat.nncf2.checkpoints import read_checkpoint
from bootstrapnas_ext.compat.nncf2.controllers import (
    CompressionStage,
    ElasticityController,
    ProgressiveShrinkingController,
)
from bootstrapnas_ext.compat.nncf2.creation import (
    create_compressed_model_from_algo_names,
    load_state,
    resume_compression_from_state,
)
from bootstrapnas_ext.config import BNAdaptationInitArgs, NNCFConfig
from bootstrapnas_ext.errors import CheckpointError, TrainingError
from bootstrapnas_ext.training.checkpoint import make_folder, save_tensors

_logger = logging.getLogger(__name__)

_LAST, _BEST = "supernet_last.pth", "supernet_best.pth"
_ELASTICITY, _WEIGHTS = "last_elasticity.pth", "last_model_weights.pth"
_KEYS = ("epoch", "model_state", "best_acc1", "min_subnet_best_acc1", "optimizer", "training_algo_state")


def is_main_process() -> bool:
    """Returns whether this is the only process of a training, or the first one, which writes its files."""
    return processes.rank() == 0


class EpochBasedTrainingAlgorithm:
    """
    Trains a super-network by calling a function for each epoch.

    :param nncf_network: The super-network's model.
    :param training_ctrl: Its controller.
    :param checkpoint: To go on from.
    """

    def __init__(
        self,
        nncf_network: nn.Module,
        training_ctrl: ProgressiveShrinkingController,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = nncf_network
        self._training_ctrl = training_ctrl
        self._start_epoch = 0
        self._best = self._min_best = 0.0
        self._optimizer_state: Any = None
        if checkpoint is not None:
            load_state(nncf_network, checkpoint["model_state"], is_resume=True)
            self._start_epoch = checkpoint["epoch"]
            self._best, self._min_best = checkpoint["best_acc1"], checkpoint["min_subnet_best_acc1"]
            self._optimizer_state = checkpoint["optimizer"]

    @property
    def elasticity_ctrl(self) -> ElasticityController:
        """Says which subnet the model runs."""
        return self._training_ctrl.elasticity_controller

    @classmethod
    def from_config(cls, nncf_network: nn.Module, nncf_config: NNCFConfig) -> EpochBasedTrainingAlgorithm:
        """
        Makes the super-network that a config describes, and its training.

        :param nncf_network: What :func:`create_nncf_network` returned; changed in place.
        :param nncf_config: The config.
        """
        controller, model = create_compressed_model_from_algo_names(
            nncf_network, nncf_config, ["progressive_shrinking"]
        )
        return cls(model, controller)

    @classmethod
    def from_checkpoint(
        cls, nncf_network: nn.Module, bn_adapt_args: BNAdaptationInitArgs, resuming_checkpoint_path: str | Path
    ) -> EpochBasedTrainingAlgorithm:
        """
        Makes the super-network and the training again that a checkpoint is of.

        :param nncf_network: What :func:`create_nncf_network` returned for the same model; changed in place.
        :param bn_adapt_args: Where recalibration takes its samples from.
        :param resuming_checkpoint_path: A ``supernet_last.pth`` that :meth:`run` wrote.
        :raises CheckpointError: If it is missing, damaged, NNCF 2's, or another model's.
        """
        path = Path(resuming_checkpoint_path)
        checkpoint = read_checkpoint(path)
        missing = [key for key in _KEYS if key not in checkpoint]
        if missing:
            msg = f"{path} must be a {_LAST} of a training, but has no {missing[0]!r}."
            raise CheckpointError(msg)
        config = NNCFConfig()
        config.register_extra_structs([bn_adapt_args])
        model, controller = resume_compression_from_state(nncf_network, checkpoint["training_algo_state"], config)
        return cls(model, controller, checkpoint)

    def run(
        self,
        train_epoch_fn: Callable[..., Any],
        train_loader: Any,
        val_fn: Callable[[nn.Module, Any], tuple[float, float, float]],
        val_loader: Any,
        optimizer: torch.optim.Optimizer,
        checkpoint_save_dir: str | Path,
        tensorboard_writer: Any = None,
        train_iters: float | None = None,
    ) -> tuple[nn.Module, ElasticityController]:
        """
        Trains to the last epoch of the last stage. After each epoch it writes ``supernet_last.pth``,
        ``last_elasticity.pth`` and ``last_model_weights.pth``, and ``supernet_best.pth`` where the super-network is the
        best so far of the last stage.

        :param train_epoch_fn: Called with the loader, the model, the controller, the epoch from 0 and the optimizer;
            it calls ``controller.scheduler.step()`` before each step and adds ``controller.loss()`` to its loss.
        :param train_loader: Has a length, if ``train_iters`` is not given.
        :param val_fn: Called with the model and the loader; returns top-1, top-5 and loss.
        :param val_loader: For ``val_fn``.
        :param optimizer: Its learning rate is set at every step, as the config says.
        :param checkpoint_save_dir: The folder of the checkpoints; made if it is not there.
        :param tensorboard_writer: A TensorBoard writer; one into that folder if not given.
        :param train_iters: Steps of an epoch.
        :return: The model, the super-network with its maximum active, and the controller of its subnets.
        :raises TrainingError: If ``val_fn`` returns something else.
        """
        controller, folder = self._training_ctrl, Path(checkpoint_save_dir)
        make_folder(folder)
        controller.set_training_lr_scheduler_args(optimizer, len(train_loader) if train_iters is None else train_iters)
        if self._optimizer_state is not None:
            try:
                optimizer.load_state_dict(self._optimizer_state)
            except (KeyError, ValueError) as error:
                msg = f"The optimizer does not fit that of the checkpoint ({error}); resume with the same kind of one."
                raise CheckpointError(msg) from error
        is_writer = is_main_process()
        own_writer = SummaryWriter(str(folder)) if tensorboard_writer is None and is_writer else None
        writer = (tensorboard_writer or own_writer) if is_writer else None
        try:
            for epoch in range(self._start_epoch, controller.get_total_num_epochs()):
                controller.scheduler.epoch_step()
                train_epoch_fn(train_loader, self._model, controller, epoch, optimizer)
                controller.multi_elasticity_handler.activate_minimum_subnet()
                smallest = self._validate("min_subnet", val_fn, val_loader, epoch, writer)
                controller.multi_elasticity_handler.activate_supernet()
                accuracy = self._validate("supernet", val_fn, val_loader, epoch, writer)
                is_best = self._is_best(accuracy, smallest, epoch)
                if is_writer:
                    self._save(folder, epoch, (accuracy, smallest), optimizer, is_best)
                processes.wait_for_all()
        finally:
            if own_writer is not None:
                own_writer.close()
        return self._model, self.elasticity_ctrl

    def _validate(self, name: str, val_fn: Callable[..., Any], val_loader: Any, epoch: int, writer: Any) -> float:
        self._training_ctrl.prepare_for_validation()
        found = val_fn(self._model, val_loader)
        try:
            top1, top5, loss = map(float, found)
        except (TypeError, ValueError, RuntimeError) as error:
            msg = f"`val_fn` must return three numbers, top-1, top-5 and loss, but it returned {found!r}."
            raise TrainingError(msg) from error
        _logger.info("%s: top-1 %.3f, top-5 %.3f, loss %.4f", name, top1, top5, loss)
        for label, value in (("top1", top1), ("top5", top5), ("loss", loss)):
            if writer is not None:
                writer.add_scalar(f"val/{name}_{label}", value, len(val_loader) * epoch)
        return top1

    def _is_best(self, accuracy: float, smallest: float, epoch: int) -> bool:
        """Notes the best accuracies of the stage that counts, which is the last one."""
        if epoch == self._training_ctrl.controller.scheduler.stages[-1].first_epoch:
            self._best = self._min_best = float("-inf")
        is_best = accuracy > self._best
        self._best, self._min_best = max(accuracy, self._best), max(smallest, self._min_best)
        return is_best and self._training_ctrl.compression_stage() == CompressionStage.FULLY_COMPRESSED

    def _save(
        self,
        folder: Path,
        epoch: int,
        accuracies: tuple[float, float],
        optimizer: torch.optim.Optimizer,
        is_best: bool,
    ) -> None:
        weights = self._model.state_dict()
        checkpoint = {
            "epoch": epoch + 1,
            "model_state": weights,
            "acc1": accuracies[0],
            "best_acc1": self._best,
            "min_subnet_acc1": accuracies[1],
            "min_subnet_best_acc1": self._min_best,
            "optimizer": optimizer.state_dict(),
            "training_algo_state": self._training_ctrl.get_compression_state(),
        }
        if is_best:
            save_tensors(folder / _BEST, checkpoint)
        save_tensors(folder / _LAST, checkpoint)
        save_tensors(folder / _ELASTICITY, self.elasticity_ctrl.get_compression_state())
        save_tensors(folder / _WEIGHTS, weights)
