"""Knowledge distillation: the subnet in training learns the outputs of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from bootstrapnas_ext.config.training import DistillationConfig, Source
from bootstrapnas_ext.errors import ConfigError, TrainingError
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.divergences import DIVERGENCES
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet


@dataclass(frozen=True)
class Run:
    """
    What a model was called with and what came out of it.

    :param inputs: The call.
    :param output: What it returned.
    :param features: The outputs of the modules that are watched, as far as they ran, by the modules' names.
    """

    inputs: ExampleInput
    output: Any
    features: Mapping[str, Any]

    def is_of(self, inputs: ExampleInput) -> bool:
        """
        Returns whether it was called with the same objects.

        :param inputs: Another call.
        """
        own, others = (pytree.tree_leaves((call.args, call.kwargs)) for call in (self.inputs, inputs))
        return len(own) == len(others) and all(mine is other for mine, other in zip(own, others, strict=True))

    def detached(self) -> Run:
        """Returns it with outputs that no gradient flows into."""
        output, features = pytree.tree_map_only(Tensor, Tensor.detach, (self.output, dict(self.features)))
        return Run(self.inputs, output, features)


class Distillation:
    """
    The loss of distillation for the last forward pass of a super-network.

    It remembers inputs and outputs of the last forward pass in training, so a loop needs to know nothing of teachers. A
    teacher runs when its loss is asked for, before the optimizer's step; the outputs for the same inputs are taken once
    a step, and those of the maximum are not computed at all where the step has trained it on these inputs already.
    Passes in evaluation mode or without gradients are not remembered.

    - ``input_model``: the given model, in evaluation mode; it learns nothing.
    - ``maximum``: the maximum subnet in place, which costs no memory and learns along; J. Yu, T. Huang, Universally
      Slimmable Networks and Improved Training Techniques, ICCV 2019, https://arxiv.org/abs/1903.05134. It runs in the
      mode that the model is in: in training its norm layers use the statistics of the batch, for the running ones are
      those of whatever subnet was trained last. It has nothing to learn from itself.

    :param supernet: The super-network in training.
    :param input_model: A copy of the model before it became the super-network, which nobody trains.
    :param config: Which loss.
    :param current_step: Tells steps apart: outputs are not taken from one for another. Negative before the first.
    :raises ConfigError: If a feature is not there, or its channels cannot be compared.
    """

    def __init__(
        self,
        supernet: TrainableSupernet,
        input_model: nn.Module,
        config: DistillationConfig,
        current_step: Callable[[], int],
    ) -> None:
        self._supernet = supernet
        self._input_model = input_model
        self._config = config
        self._current_step = current_step
        self._lessons: dict[Source, tuple[int, Run]] = {}
        _check_features(supernet, config.features)
        self._last: tuple[Subnet, Run] | None = None
        _watch(supernet.model, config.features, self._keep)

    def __call__(self, source: Source) -> Tensor:
        """
        Returns the weighted loss of the last forward pass in training, a scalar, and forgets the pass.

        :param source: The teacher.
        :raises TrainingError: If there was no forward pass since the last call, or its outputs have no logits.
        """
        last, self._last = self._last, None
        if last is not None and last[0] == self._supernet.space.maximum:
            self._lessons["maximum"] = (self._current_step(), last[1].detached())
            if source == "maximum":
                source = "none"
        if source == "none":
            return torch.zeros(())
        if last is None:
            msg = (
                "The distillation loss needs a forward pass of the model in training mode since its last call, but "
                "there was none; call `model.train()` and the model before the loss, once each a pass."
            )
            raise TrainingError(msg)
        _, student = last
        lesson = self._lesson(source, student.inputs)
        config = self._config
        logits = logits_of(student.output)
        dim = class_dim(logits, config.class_dim)
        loss = DIVERGENCES[config.loss](logits, logits_of(lesson.output), config.temperature, dim)
        if config.features:
            loss = loss + config.feature_weight * feature_loss(student.features, lesson.features)
        return config.weight * loss

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the last passes: their outputs are of the original, and PyTorch does not copy their gradients."""
        return {**vars(self), "_last": None, "_lessons": {}}

    def _keep(self, module: nn.Module, run: Run) -> None:
        if module.training and torch.is_grad_enabled():
            self._last = (self._supernet.active, run)

    def _lesson(self, source: Source, inputs: ExampleInput) -> Run:
        step, run = self._lessons.get(source, (-1, None))
        if run is None or step < 0 or step != self._current_step() or not run.is_of(inputs):
            run = self._teach(source, inputs)
            self._lessons[source] = (self._current_step(), run)
        return run

    def _teach(self, source: Source, inputs: ExampleInput) -> Run:
        runs: list[Run] = []
        supernet, features = self._supernet, self._config.features
        with torch.no_grad():
            if source == "maximum":
                with supernet.activate(supernet.space.maximum), _watched(supernet.model, features, runs):
                    supernet.model(*inputs.args, **inputs.kwargs)
            else:
                model = self._input_model.to(inputs.tensors()[0].device)
                with evaluation_mode(model), _watched(model, features, runs):
                    model(*inputs.args, **inputs.kwargs)
        return runs[0]


def logits_of(output: Any) -> Tensor:
    """
    Returns the logits of what a model returned.

    :param output: A tensor, or a dictionary or object with ``logits``, as the models of Hugging Face return.
    :raises TrainingError: If it is something else.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        msg = (
            f"Distillation needs a model whose output is a tensor of logits with a dimension of classes, or has such "
            f"`logits`, but it is {found}; wrap the model so that it returns its logits, or switch distillation off."
        )
        raise TrainingError(msg)
    return logits


def class_dim(logits: Tensor, given: int | None) -> int:
    """
    Returns the dimension of the classes.

    :param logits: Logits of at least two dimensions.
    :param given: What the config says. If ``None``, it is the last of three dimensions ``(batch, length, classes)``,
        and the second of others, as in ``(batch, classes)`` and ``(batch, classes, height, width)``.
    :raises TrainingError: If the logits have no such dimension.
    """
    if given is None:
        return 2 if logits.ndim == 3 else 1
    if not -logits.ndim <= given < logits.ndim:
        msg = (
            f"$.bootstrapNAS.training.distillation.class_dim must be a dimension of the logits, whose shape is "
            f"{tuple(logits.shape)}, but got {given}."
        )
        raise TrainingError(msg)
    return given


def feature_loss(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Tensor:
    """
    Returns the mean squared difference of features, averaged over those that the student computes.

    A student that is narrower has the first channels of its teacher, and those are compared.

    A. Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, https://arxiv.org/abs/1412.6550; without regressors,
    which subnets of one super-network do not need.

    :param student: Module names to outputs; modules that a subnet leaves out are missing.
    :param teacher: Likewise, of at least the same shape in each dimension.
    :return: A scalar; 0 if there is no feature.
    :raises TrainingError: If a feature is not a tensor.
    """
    terms = []
    for name, own in student.items():
        other = teacher[name]
        if not isinstance(own, Tensor) or not isinstance(other, Tensor):
            msg = (
                f"A feature must be a tensor, but the module {name!r} returns {type(own).__name__}; name another "
                "in $.bootstrapNAS.training.distillation.features."
            )
            raise TrainingError(msg)
        kept = other[tuple(slice(size) for size in own.shape)]
        terms.append(F.mse_loss(own.float(), kept.detach().float()))
    return torch.stack(terms).mean() if terms else torch.zeros(())


def _check_features(supernet: TrainableSupernet, names: Sequence[str]) -> None:
    modules = dict(supernet.model.named_modules())
    for index, name in enumerate(names):
        path = f"$.bootstrapNAS.training.distillation.features[{index}]"
        if name not in modules:
            msg = f"{path} must be the path of a module of the model, but got {name!r}."
            raise ConfigError(msg)
        if not supernet.keeps_first_channels(name):
            msg = (
                f"{path} must be a module whose subnets keep its first channels, but got {name!r}, whose output is "
                "joined from several layers, or which does not run; name one of these layers."
            )
            raise ConfigError(msg)


@dataclass(frozen=True)
class _Hook:
    """A hook that copies of its module do not have: nobody watches, for example, an extracted subnet."""

    function: Callable[..., None]

    def __call__(self, *args: Any) -> None:
        self.function(*args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[()]]:
        return _unwatched, ()


def _unwatched() -> Callable[..., None]:
    return _do_nothing


def _do_nothing(*_: Any) -> None:
    """Stands for a hook in copies of a module."""


def _watch(model: nn.Module, features: Sequence[str], seen: Callable[[nn.Module, Run], None]) -> list[RemovableHandle]:
    """Calls a function with every run of a model, from now on."""
    found: dict[str, Any] = {}

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        found[name] = output

    def finish(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen(module, Run(ExampleInput(args, kwargs), output, dict(found)))
        found.clear()

    parts = [(model.get_submodule(name), partial(keep, name)) for name in features]
    handles = [part.register_forward_hook(_Hook(function)) for part, function in parts]
    return [*handles, model.register_forward_hook(_Hook(finish), with_kwargs=True)]


@contextmanager
def _watched(model: nn.Module, features: Sequence[str], runs: list[Run]) -> Iterator[None]:
    """Adds every run of a model to a list, for the length of a ``with`` block."""
    handles = _watch(model, features, lambda _, run: runs.append(run))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
