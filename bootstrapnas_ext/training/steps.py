"""One training step: the passes of a strategy on the batches of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bootstrapnas_ext import processes
from bootstrapnas_ext.config.training import OptimizationConfig
from bootstrapnas_ext.errors import BootstrapNASError, DivergenceError, TrainingError, first_line
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.data_checks import check_labels, check_logits, check_loss, count_classes, split_batch
from bootstrapnas_ext.training.optimization import channels_last
from bootstrapnas_ext.training.records import StepRecord
from bootstrapnas_ext.training.scheduler import TrainingScheduler
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet

#: The label that ``F.cross_entropy`` leaves out.
_IGNORED = -100


class StepRunner:
    """
    Runs training steps. In several processes, each has batches of its own, and all train the same subnets with the mean
    of their gradients.

    :param supernet: The super-network, on the device to train on.
    :param scheduler: Its scheduler.
    :param criterion: The loss of ``(outputs, targets)``, a scalar.
    :param optimizer: Over ``supernet.parameters()``.
    :param loss: Makes the loss of a pass from that of the criterion.
    :param optimization: How weights are changed.
    :param estimate: A subnet to how large its loss is; the loss on the first batch of the step if not given.
    """

    def __init__(
        self,
        supernet: TrainableSupernet,
        scheduler: TrainingScheduler,
        criterion: Callable[[Any, torch.Tensor], torch.Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        loss: Callable[[torch.Tensor], torch.Tensor],
        optimization: OptimizationConfig,
        estimate: Callable[[Subnet], float] | None,
    ) -> None:
        self._supernet = supernet
        self._scheduler = scheduler
        self._criterion = criterion
        self._optimizer = optimizer
        self._loss = loss
        self._optimization = optimization
        self._estimate = estimate
        self._device = next(supernet.parameters()).device
        # A pass leaves out what its subnet does not use.
        self._parallel = (
            DistributedDataParallel(supernet.model, find_unused_parameters=True) if processes.count() > 1 else None
        )
        # Not isinstance: a child may read outputs in its own way.
        self._is_cross_entropy = type(criterion) is nn.CrossEntropyLoss or criterion is F.cross_entropy
        self._classes: int | None = None

    def expect(self, batch: Any) -> None:
        """
        Looks at the first batch: what labels may be, where that is known.

        :param batch: The batch.
        :raises DataError: If it is not one.
        :raises ModelError: If the cross entropy cannot read what the model returns.
        """
        inputs, targets = split_batch(batch)
        if self._is_cross_entropy:
            sample = inputs.with_batch(1).to(self._device)
            self._classes = count_classes(self._supernet.model, sample, targets)

    def check_labels(self, labels: torch.Tensor) -> None:
        """
        Checks that the model has an output for every label, where the loss is known to be the cross entropy.

        :param labels: Targets.
        :raises DataError: If it has none.
        """
        if self._classes is not None:
            check_labels(labels, self._classes, getattr(self._criterion, "ignore_index", _IGNORED))

    def __call__(self, batches: Sequence[Any]) -> StepRecord:
        """
        Trains a step and lets the optimizer step once.

        :param batches: The batches of the step, at least one.
        :raises BootstrapNASError: If data, a loss or a gradient is wrong; the weights are those before the step.
        """
        prepared = [self._prepared(batch) for batch in batches]
        passes = self._scheduler.step(estimate=partial(self._estimated, *prepared[0]))
        self._optimizer.zero_grad()
        total = 0.0
        missing = len(prepared) * len(passes)
        for inputs, targets in prepared:
            for subnet in passes:
                missing -= 1
                with self._keeping_gradients() if missing else nullcontext(), self._naming(subnet):
                    loss = self._loss_of(inputs, targets, self._loss) / len(prepared)
                    value = processes.mean(loss.item())
                    if not math.isfinite(value):
                        raise self._divergence("loss", value, subnet)
                    torch.autograd.backward(loss)
                total += value
        norm = self._clipped([one.subnet for one in passes.passes])
        self._optimizer.step()
        return StepRecord(total, norm)

    def _keeping_gradients(self) -> AbstractContextManager[Any]:
        """A context in which processes add up gradients each for itself."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    def _prepared(self, batch: Any) -> tuple[ExampleInput, torch.Tensor]:
        inputs, targets = split_batch(batch)
        self.check_labels(targets)
        inputs = inputs.to(self._device)
        if self._optimization.channels_last:
            inputs = inputs.map(channels_last)
        return inputs, targets.to(self._device)

    def _clipped(self, subnets: Sequence[Subnet]) -> float:
        """Limits the norm of all gradients together, and returns what it was."""
        trained = [parameter for parameter in self._supernet.parameters() if parameter.grad is not None]
        total = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
        norm = total.item()
        if not math.isfinite(norm):
            raise self._divergence("gradient norm", norm, *subnets)
        if self._optimization.gradient_clipping is not None:
            nn.utils.clip_grads_with_norm_(trained, self._optimization.gradient_clipping, total)
        return norm

    def _loss_of(
        self, inputs: ExampleInput, targets: torch.Tensor, complete: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        model = self._supernet.model if self._parallel is None or not torch.is_grad_enabled() else self._parallel
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._optimization.bf16):
            outputs = model(*inputs.args, **inputs.kwargs)
            if self._is_cross_entropy:
                check_logits(outputs)  # again, since a model may return more in training than in evaluation mode
            loss = self._criterion(outputs, targets)
            check_loss(loss)
            return complete(loss)

    @contextmanager
    def _naming(self, subnet: Subnet) -> Iterator[None]:
        """A context that says of which subnet an error is."""
        try:
            yield
        except BootstrapNASError:
            raise
        except Exception as error:  # whatever the model or the criterion raises
            msg = (
                f"{self._where()} must give a loss, a scalar with gradients, but it fails with {type(error).__name__}: "
                f"{first_line(error)}. It is of the subnet {dict(subnet)}; make the model and the criterion work with "
                "it, or leave the elasticity out that they cannot work with."
            )
            raise TrainingError(msg) from error

    def _estimated(self, inputs: ExampleInput, targets: torch.Tensor, subnet: Subnet) -> float:
        """Returns how large the loss of a subnet is; the same in all processes, so that they train the same ones."""
        if self._estimate is not None:
            return processes.mean(self._estimate(subnet))
        with torch.no_grad(), self._supernet.activate(subnet), self._naming(subnet):
            return processes.mean(self._loss_of(inputs, targets, lambda loss: loss).item())

    def _where(self) -> str:
        scheduler = self._scheduler
        return (
            f"Step {scheduler.current_step + 1} (epoch {scheduler.current_epoch + 1} of {scheduler.total_epochs}, "
            f"stage {scheduler.current_stage + 1} of {len(scheduler.stages)}, learning rate "
            f"{self._optimizer.param_groups[0]['lr']:.3g})"
        )

    def _divergence(self, what: str, value: float, *subnets: Subnet) -> DivergenceError:
        named = ", ".join(str(dict(subnet)) for subnet in subnets)
        return DivergenceError(f"{self._where()} must have a finite {what}, but got {value} with the subnet {named}.")
