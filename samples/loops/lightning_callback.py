"""
A super-network in Lightning: a callback, and a module that knows nothing about it.

    python samples/loops/lightning_callback.py
"""

from __future__ import annotations

import math
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import bootstrapnas_ext as bnas
from samples.loops.digits import accuracies, digits, network, supernet_of


class SupernetCallback(Callback):
    """
    Trains the subnets that the strategy names, by the module's own ``training_step``, which returns the loss of the
    task. Lightning runs the backward pass of a step once, so the losses of all subnets are added up before.

    The learning rate is the config's. Let the `Trainer` train for ``controller.scheduler.total_epochs``. What it
    validates is the maximum, and its checkpoints know how far the training has come.

    :param controller: Of the super-network that the module trains.
    """

    def __init__(self, controller: bnas.BootstrapNASController) -> None:
        self._controller = controller
        self._passes: Any = None
        self._resumed: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return self._controller.scheduler.get_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = state_dict

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        own_step = pl_module.training_step

        @wraps(own_step)  # Lightning looks at the signature
        def training_step(*args: Any, **kwargs: Any) -> Tensor:
            def estimate(subnet: bnas.Subnet) -> float:  # for the strategy "attentive"
                with torch.no_grad(), self._controller.supernet.activate(subnet):
                    return float(own_step(*args, **kwargs))

            if self._passes is None:  # the first batch of a step
                self._passes = self._controller.scheduler.step(estimate=estimate)
            return torch.stack([self._controller.loss(own_step(*args, **kwargs)) for _ in self._passes]).sum()

        pl_module.training_step = training_step  # type: ignore[method-assign]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        self._controller.scheduler.attach(trainer.optimizers[0], steps_per_epoch)
        if self._resumed is not None:
            self._controller.scheduler.load_state(self._resumed)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._controller.scheduler.current_epoch != trainer.current_epoch:  # not in the midst of one
            self._controller.scheduler.epoch_step(trainer.current_epoch)

    def on_train_batch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        if args[-1] % trainer.accumulate_grad_batches == 0:
            self._passes = None

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._controller.multi_elasticity_handler.activate_maximum_subnet()
        self._controller.scheduler.adapt_batchnorm()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.on_validation_start(trainer, pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        del pl_module.training_step


class Classifier(lightning.LightningModule):
    """Any Lightning module, here a plain classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def main() -> dict[str, float]:
    """Trains on the digits, and returns and prints the accuracy of two subnets."""
    torch.manual_seed(0)
    training, validation = digits()
    loader = DataLoader(training, batch_size=32, shuffle=True)
    model = network()
    controller = supernet_of(model, loader)
    trainer = lightning.Trainer(
        max_epochs=controller.scheduler.total_epochs,
        callbacks=[SupernetCallback(controller)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(model), loader)
    result = accuracies(controller, validation)
    print(result)
    return result


if __name__ == "__main__":
    main()
