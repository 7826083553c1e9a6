"""The scheduler: moves a training through its stages and activates the subnets of each step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from bootstrapnas_ext.config.training import TrainingConfig
from bootstrapnas_ext.differences import differences
from bootstrapnas_ext.errors import CheckpointError, ConfigError, TrainingError
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.passes import Passes
from bootstrapnas_ext.training.stages import Stage, plan_stages
from bootstrapnas_ext.training.strategies import STRATEGIES, Pass, Step
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet


class TrainingScheduler:
    """
    Moves a training through its stages. Its calls are those of NNCF 2.x's compression schedulers:

    .. code-block:: python

        for epoch in range(scheduler.total_epochs):
            scheduler.epoch_step()
            for images, labels in loader:
                for subnet in scheduler.step():
                    ...

    The subnets of a step depend on the seed, the number of the step and its stage alone, and with "attentive" on the
    estimates.

    :ivar rate_factor: What the learning rates of the config are multiplied by; less than 1 after a divergence.
    :param supernet: The super-network.
    :param config: Stages, strategy and learning rate.
    :param seed: The seed of all subnets, not negative.
    :param recalibrate: Recomputes the norm statistics of the module that it is called with; ``None`` where there is no
        data for it.
    :raises ConfigError: If a stage trains a dimension that the super-network does not have, or only the maximum, or the
        learning rate reaches zero before training ends.
    :raises RegistryError: If there is no such strategy.
    """

    def __init__(
        self,
        supernet: TrainableSupernet,
        config: TrainingConfig,
        *,
        seed: int,
        recalibrate: Callable[[nn.Module], None] | None,
    ) -> None:
        self._supernet = supernet
        self._config = config
        self._seed = seed
        self._recalibrate = recalibrate
        self._stages = plan_stages(supernet.space, config)
        self._strategies = tuple(STRATEGIES.get(stage.config.strategy or config.strategy) for stage in self._stages)
        self._optimizer: torch.optim.Optimizer | None = None
        self._own_rate = 0.0
        self._steps_per_epoch = 1
        self.reset()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in order."""
        return self._stages

    @property
    def seed(self) -> int:
        """The seed of all subnets."""
        return self._seed

    @property
    def total_epochs(self) -> int:
        """Number of epochs of all stages together."""
        return self._stages[-1].first_epoch + self._stages[-1].config.epochs

    @property
    def current_epoch(self) -> int:
        """The epoch in training, from 0; -1 before the first :meth:`epoch_step`."""
        return self._epoch

    @property
    def current_step(self) -> int:
        """The step in training, from 0 over all epochs; -1 before the first :meth:`step`."""
        return self._step

    @property
    def current_stage(self) -> int:
        """Index of the stage in training; the first before the first epoch, the last after the last."""
        begun = [index for index, stage in enumerate(self._stages) if stage.first_epoch <= self._epoch]
        return max(begun, default=0)

    @property
    def current_pass(self) -> Pass:
        """
        The pass that a loop is at: what :meth:`step` or going through its passes has prepared. Before the first step,
        it is that of the active subnet, which learns as the config says.
        """
        if self._pass is None:
            return Pass(self._supernet.active, self._config.distillation.source or "none")
        return self._pass

    def reset(self) -> None:
        """Goes back to before the first epoch; an attached optimizer gets its own learning rate back."""
        self._epoch = -1
        self._step = -1
        self._pass: Pass | None = None
        self._first_step_of_epoch = 0
        self._entered_stage = -1
        self.rate_factor = 1.0
        if self._optimizer is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = self._own_rate

    def attach(self, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> None:
        """
        Lets the scheduler set the optimizer's learning rate at every step, as the config says; stages that give none
        begin with the one that the optimizer has now.

        Without this call the learning rate is the caller's business.

        :param optimizer: The optimizer; all its parameter groups get the same learning rate.
        :param steps_per_epoch: Number of steps of an epoch, at least 1.
        """
        self._optimizer = optimizer
        self._own_rate = optimizer.param_groups[0]["lr"]
        self._steps_per_epoch = steps_per_epoch

    def epoch_step(self, next_epoch: int | None = None) -> None:
        """
        Prepares the next epoch; call it before the epoch's first step. At the start of a stage it reorganizes weights
        and adapts norm statistics, where the stage asks for it.

        :param next_epoch: The epoch to prepare; by default the one after the current one.
        :raises ConfigError: If a stage asks for ``bn_adapt`` and there is no data to adapt with.
        """
        if self._recalibrate is None and any(stage.config.bn_adapt for stage in self._stages):
            msg = (
                "A stage with `bn_adapt` needs data to recalibrate norm statistics with, but none is registered; call "
                "`register_default_init_args` on the config before the super-network is created."
            )
            raise ConfigError(msg)
        self._epoch = self._epoch + 1 if next_epoch is None else next_epoch
        self._first_step_of_epoch = self._step + 1
        if self.current_stage != self._entered_stage:
            self._entered_stage = self.current_stage
            self._enter_stage()

    def step(self, next_step: int | None = None, *, estimate: Callable[[Subnet], float] | None = None) -> Passes:
        """
        Prepares the next training step: sets the learning rate and activates the first of the step's subnets.

        :param next_step: The step to prepare; by default the one after the current one.
        :param estimate: A subnet to how large its loss is, for the strategy "attentive".
        :return: The passes of the step, at least one, to go through. A loop of its own may ignore them while the
            strategy trains one subnet a step; otherwise it trains each and then lets the optimizer step once.
        :raises TrainingError: If no epoch was prepared before, or the strategy needs an estimate and there is none.
        """
        if self._epoch < 0:
            msg = "`epoch_step()` must be called at the start of every epoch, before the first `step()`; add the call."
            raise TrainingError(msg)
        self._step = self._step + 1 if next_step is None else next_step
        index = self.current_stage
        stage = self._stages[index]
        self._set_learning_rate(stage)
        step = Step(
            index=self._step,
            space=stage.space,
            whole=self._supernet.space,
            seed=self._seed,
            sample_rate=stage.config.sample_rate,
            config=self._config,
            macs=lambda subnet: self._supernet.cost(subnet).macs,
            estimate=estimate or _no_estimate,
        )
        passes = self._strategies[index](step)
        self._begin(passes[0])
        return Passes(passes, self._begin)

    def adapt_batchnorm(self) -> None:
        """
        Recalibrates the norm statistics of the maximum subnet in the super-network itself: training other subnets has
        changed the weights, but not these. Does nothing where there is no data for it.
        """
        if self._recalibrate is not None:
            with self._supernet.activate(self._supernet.space.maximum):
                self._recalibrate(self._supernet.model)

    def get_state(self) -> dict[str, Any]:
        """Returns the position in training and what it depends on, as plain JSON values."""
        return {
            "current_epoch": self._epoch,
            "current_step": self._step,
            "first_step_of_epoch": self._first_step_of_epoch,
            "rate_factor": self.rate_factor,
            "own_rate": None if self._optimizer is None else self._own_rate,
            "depends_on": self._depends_on(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """
        Goes to the position that :meth:`get_state` returned; the next call is :meth:`epoch_step`, or :meth:`step` to
        go on in the midst of an epoch. Attach the optimizer before, whose learning rate may be that of the checkpoint.

        :param state: The state of a scheduler with the same seed and the same config.
        :raises CheckpointError: If seed or config differ, or it is no such state.
        """
        if missing := [key for key in self.get_state() if key not in state]:
            msg = f"The scheduler's state has no {missing[0]!r}; give what `get_state()` returned."
            raise CheckpointError(msg)
        for where, found, own in differences(state["depends_on"], self._depends_on()):
            msg = (
                f"The checkpoint must come from a training with the same {where}, but it has {found} and this training "
                f"{own}; resume with the config and seed that it was written with, or start anew in another folder."
            )
            raise CheckpointError(msg)
        self._epoch = state["current_epoch"]
        self._step = state["current_step"]
        self._first_step_of_epoch = state["first_step_of_epoch"]
        self.rate_factor = state["rate_factor"]
        if state["own_rate"] is not None:
            self._own_rate = state["own_rate"]
        self._entered_stage = self.current_stage if self._epoch >= 0 else -1

    def _begin(self, one: Pass) -> None:
        self._pass = one
        self._supernet.set_active(one.subnet)

    def _depends_on(self) -> Any:
        schedule = self._config.lr_schedule
        values = {
            "seed": self._seed,
            "strategy": self._config.strategy,
            "sandwich": asdict(self._config.sandwich),
            "attentive": asdict(self._config.attentive),
            "distillation": asdict(self._config.distillation),
            "optimization": asdict(self._config.optimization),
            "lr_schedule": None if schedule is None else asdict(schedule),
            "stages": [asdict(stage.config) for stage in self._stages],
        }
        # Through JSON, so that it compares equal whether or not it has been through a file.
        return json.loads(json.dumps(values))

    def _enter_stage(self) -> None:
        stage = self._stages[self.current_stage].config
        if stage.reorg_weights:
            with self._supernet.activate(self._supernet.space.maximum):
                self._supernet.reorganize()
            if self._optimizer is not None:
                # Momenta stay where they were while the channels move, so they would belong to other channels now.
                self._optimizer.state.clear()
        if stage.bn_adapt:
            self.adapt_batchnorm()

    def _set_learning_rate(self, stage: Stage) -> None:
        if self._optimizer is None:
            return
        fraction = (self._step - self._first_step_of_epoch) / self._steps_per_epoch
        rate = stage.learning_rate(self._epoch + min(fraction, 1.0), self._own_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * self.rate_factor


def _no_estimate(_: Subnet) -> float:
    msg = (
        "The strategy compares subnets by their losses, but there is no estimate of them; call "
        "`scheduler.step(estimate=...)` with a function from subnet to loss, or choose another `training.strategy`."
    )
    raise TrainingError(msg)
