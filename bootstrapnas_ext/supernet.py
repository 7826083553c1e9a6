"""The super-network: the given model, elastic, with one active subnet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial, wraps
from itertools import chain
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.caches import Caches
from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.cost import Cost, CostModel, Shape
from bootstrapnas_ext.elasticity import ELASTICITIES, ActiveSubnet, Elasticity, Refused
from bootstrapnas_ext.elasticity.nncf2_names import with_own_names
from bootstrapnas_ext.errors import CheckpointError, ModelError, SubnetError
from bootstrapnas_ext.execution import Executor
from bootstrapnas_ext.graph import ModelGraph, propagate
from bootstrapnas_ext.graph.ir import ATTRIBUTE
from bootstrapnas_ext.graph.variation import with_varying_sizes
from bootstrapnas_ext.inputs import ExampleInput, as_input
from bootstrapnas_ext.model_checks import check_model
from bootstrapnas_ext.modes import evaluation_mode
from bootstrapnas_ext.ports import Probe, collect_ports
from bootstrapnas_ext.refusals import refused_choices
from bootstrapnas_ext.self_check import check_maximum, check_shapes, equal, shape_check, subnet_must_run
from bootstrapnas_ext.space import SearchSpace, Subnet
from bootstrapnas_ext.statistics import NormStatistics, StatisticsPerWidth
from bootstrapnas_ext.summary import supernet_table


class Supernet:
    """
    A model turned into a weight-sharing super-network, without touching its code.

    The model is changed in place: called as before, it runs the active subnet, which at first is the maximum, that is
    the given model itself. All subnets share its parameters.

    .. code-block:: python

        supernet = Supernet(model, ExampleInput((torch.randn(1, 3, 32, 32),)))
        with supernet.activate(supernet.space.minimum):
            small = model(x)
        print(supernet.cost(supernet.space.minimum).macs)

    :ivar config: What is elastic; names of NNCF 2 in it were replaced by those of this model.
    :ivar refused: Names of choices that are none because the model's own code fails with less, to what it says.
    :param model: A model on any device, in any mode.
    :param example: What to call it with: an :class:`ExampleInput`, a tensor, a tuple or list of positional arguments,
        or a dictionary of keyword arguments.
    :param config: What shall be elastic; everything with its defaults if not given.
    :raises ModelError: If the model cannot be traced, gives other outputs with the same input, has no elastic layer, is
        a super-network already, or is none that :func:`bootstrapnas_ext.model_checks.check_model` lets pass.
    """

    def __init__(self, model: nn.Module, example: Any, config: ElasticityConfig | None = None) -> None:
        check_model(model)
        config = config or ElasticityConfig()
        example = as_input(example)
        self.model = model
        self.example = example
        with evaluation_mode(model):  # entering a mode may drop what was kept
            self._caches = Caches(model)
        self._cell = ActiveSubnet(Subnet({}))
        self._thread: int | None = None
        try:
            self._propagation = propagate(_traced(model, example, self._caches))
        except BaseException:
            self._caches.find()
            self._caches.reset()
            raise
        _nncf.wrap(model, self._run)
        try:
            self.config = with_own_names(config, model, self.graph)
            self.refused: dict[str, str] = {}
            while found := self._assemble(self.config):
                self.refused |= found
            self._costs = CostModel(self.graph, self.shape)
            for port in self.executor.ports:
                for module in port.hooks if port.number != ATTRIBUTE else ():
                    _nncf.add_pre_hook(model, port.op.name, port.number, module)
            self._statistics = (
                StatisticsPerWidth(model, self._cell, self.space, self.executor.ports)
                if config.norm_statistics == "per_width"
                else NormStatistics(model, self._cell)
            )
            _nncf.add_module(model, "norm_statistics", self._statistics)
        except BaseException:
            self._caches.find()
            self.release()
            raise

    @property
    def graph(self) -> ModelGraph:
        """The trace of the maximum subnet."""
        return self._propagation.graph

    @property
    def active(self) -> Subnet:
        """The subnet that the model runs now."""
        return self._cell.subnet

    @property
    def device(self) -> torch.device:
        """Where the parameters are, or the buffers of a model without any."""
        return next(chain(self.model.parameters(), self.model.buffers())).device

    def set_active(self, subnet: Mapping[str, int]) -> None:
        """
        Makes the model run a subnet from now on.

        :param subnet: A subnet of the space.
        :raises SubnetError: If it is not in the space.
        """
        self._cell.activate(self.space.validate(subnet))

    @contextmanager
    def activate(self, subnet: Mapping[str, int]) -> Iterator[None]:
        """
        Makes the model run a subnet for the length of a ``with`` block; then the one before runs again.

        :param subnet: A subnet of the space.
        :raises SubnetError: If it is not in the space.
        """
        before = self._cell.subnet, self._cell.statistics
        self.set_active(subnet)
        try:
            yield
        finally:
            self._cell.subnet, self._cell.statistics = before

    def statistics(self) -> AbstractContextManager[None]:
        """
        Lets the buffers of norms be those of the active subnet, for the length of a ``with`` block.

        Else they are the maximum's. Running the model needs no such block.
        """
        return self._statistics.cast()

    def sample(self, rng: np.random.Generator) -> Subnet:
        """
        Draws a subnet, every value of a choice equally likely.

        :param rng: The only source of randomness.
        """
        return self.space.sample(rng)

    def reorganize(self) -> None:
        """
        Sorts channels by the importance that the config names, most important first.

        The function of the maximum subnet stays the same, up to the order of floating-point sums; that of smaller
        subnets improves, since they keep the first channels.
        """
        for part in self.elasticities:
            if part.reorganize is not None:
                part.reorganize(self.model)
        self._statistics.restart()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Returns everything that is trained: the model's parameters and those of the hooks."""
        return self.model.parameters()

    def cost(self, subnet: Mapping[str, int]) -> Cost:
        """
        Returns what a subnet costs, without running it.

        :param subnet: A subnet of the space.
        :raises SubnetError: If it is not in the space.
        """
        subnet = self.space.validate(subnet)
        skipped = {index for block in self.executor.skipped(subnet) for index in block.ops}
        return self._costs.cost(subnet, skipped)

    def shape(self, value: int, subnet: Mapping[str, int]) -> Shape:
        """
        Returns the shape of a tensor in a subnet.

        :param value: Index of the tensor in the graph.
        :param subnet: A subnet of the space.
        """
        return self.executor.shape(value, subnet)

    def keeps_first_channels(self, module: str) -> bool:
        """
        Returns whether in every subnet the output of a module is the first part of that in the maximum subnet, in each
        dimension: not so where it is joined from several layers, of which each shrinks.

        :param module: Path of a module; ``False`` if it does not run.
        """
        ops = [op for op in self.graph.ops if f"{op.module}.".startswith(f"{module}.") and op.outputs]
        solver = self._propagation.solver
        layout = self._propagation.layout(ops[-1].outputs[0]) if ops else ()
        return bool(ops) and all(len(axis) == 1 or solver.is_static(axis) for axis in layout)

    def release(self) -> None:
        """
        Makes the model a plain one again, which computes what the maximum subnet computes.

        The super-network must not be used afterwards.
        """
        self.forget()
        _nncf.unwrap(self.model)

    def summary(self) -> None:
        """Prints a table of the elastic layers and their values, the number of subnets, and why layers are static."""
        Console().print(supernet_table(self))

    def static_layers(self) -> dict[str, dict[str, str]]:
        """Returns for each elastic dimension the layers that stayed as they are, and why."""
        return {part.dimension: {layer.name: layer.reason for layer in part.static} for part in self.elasticities}

    def structure(self) -> dict[str, Any]:
        """Returns the choices and the active subnet, as JSON can hold them."""
        return {
            "choices": {choice.name: list(choice.values) for choice in self.space.choices},
            "active": dict(self.active),
        }

    def load_structure(self, structure: Mapping[str, Any]) -> None:
        """
        Restores the active subnet from what :meth:`structure` returned.

        :param structure: Of a super-network with the same choices.
        :raises CheckpointError: If it is another's; nothing has changed then.
        """
        self.set_active(self._active_of(structure))

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights and the structure that they belong to; ``torch.load(weights_only=True)`` reads it."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        return {"structure": self.structure(), "model": tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Restores what :meth:`state_dict` returned, the active subnet too.

        :param state: The state of a super-network of the same structure.
        :raises CheckpointError: If it is another's; nothing has changed then.
        """
        for key in ("structure", "model"):
            if key not in state:
                msg = f"The super-network's state has no {key!r}; give what `Supernet.state_dict()` returned."
                raise CheckpointError(msg)
        active = self._active_of(state["structure"])
        tensors = self.model.state_dict()
        for name in sorted(tensors.keys() | state["model"].keys()):
            there, here = state["model"].get(name), tensors.get(name)
            if here is None or not isinstance(there, Tensor) or there.shape != here.shape:
                got = f"of shape {tuple(there.shape)}" if isinstance(there, Tensor) else "missing"
                wanted = "not in the model" if here is None else f"of shape {tuple(here.shape)} in the model"
                msg = (
                    f"The state does not fit: tensor {name!r} is {got}, but {wanted}. Use the model and the elasticity "
                    "config that it was made with; `norm_statistics` and kernel matrices make tensors, too."
                )
                raise CheckpointError(msg)
        self.model.load_state_dict(state["model"])
        self.set_active(active)

    def _active_of(self, structure: Mapping[str, Any]) -> Subnet:
        """Returns the active subnet of a structure, after a check that it is one of this super-network."""
        if "choices" not in structure or "active" not in structure:
            msg = "The super-network's structure has no 'choices' or no 'active'; give what `structure()` returned."
            raise CheckpointError(msg)
        own, given = self.structure()["choices"], structure["choices"]
        for name in sorted(own.keys() | given.keys()):
            if own.get(name) != given.get(name):
                there, here = given.get(name, "missing"), own.get(name, "missing")
                msg = (
                    f"The state is of another super-network: choice {name!r} is {there} there and {here} here. Use the "
                    "model and the elasticity config that it was made with."
                )
                raise CheckpointError(msg)
        try:
            return self.space.validate(structure["active"])
        except SubnetError as error:
            msg = f"The state is damaged: {error}"
            raise CheckpointError(msg) from error

    def forget(self) -> None:
        """Makes the model forget tensors that its code has kept from its calls, since they are one subnet's."""
        self._caches.reset()

    def _run(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        if self._thread not in (None, threading.get_ident()):
            msg = "A super-network runs one forward at a time, but two threads run it; extract a subnet for each."
            raise ModelError(msg)
        self.forget()
        if self.active == self._maximum:
            return forward(*args, **kwargs)
        before, self._thread = self._thread, threading.get_ident()
        try:
            with self._statistics.cast() if self._statistics.begin() else nullcontext():
                return self.executor.run(forward, self.active, ExampleInput(args, kwargs))
        finally:
            self._thread = before

    def _assemble(self, config: ElasticityConfig) -> Refused:
        """Makes choices and hooks, and tries subnets; returns which choices have to go for them to run, and why."""
        self.elasticities: tuple[Elasticity, ...] = tuple(
            ELASTICITIES.get(name)(self._propagation, self._cell, config, self.refused)
            for name in config.available_elasticity_dims
        )
        self.space = SearchSpace(tuple(choice for part in self.elasticities for choice in part.choices))
        for name in self.refused.keys() & self.space.maximum:
            msg = (
                f"An elastic dimension makes the choice {name!r}, but {self.refused[name]}. Let its builder leave out "
                "what is refused, or leave the dimension out of `available_elasticity_dims`."
            )
            raise ModelError(msg)
        if self.space.size == 1:
            raise ModelError(_nothing_elastic(self.model, self.static_layers()))
        self._maximum = self.space.maximum
        self._cell.subnet = self._maximum
        hooks = [hook for part in self.elasticities for hook in part.hooks]
        for hook in hooks:
            hook.module.to(self.device)
        ports = collect_ports(self.model, self.graph, hooks)
        self.executor = Executor(self.model, self.graph, self.elasticities, ports)
        with evaluation_mode(self.model), torch.no_grad():
            return self._settle()

    def _without_skips(self) -> list[dict[str, int]]:
        """Returns subnets that run all blocks: the smallest, and some whose sizes have little to do with another."""
        rng = np.random.default_rng(0)
        subnets = [self.space.minimum, self.space.sample(rng), self.space.sample(rng)]
        whole = {name: len(blocks) for part in self.elasticities for name, blocks in part.blocks.items()}
        return [{**subnet, **whole} for subnet in subnets]

    def _told_apart(self) -> list[dict[str, int]]:
        """
        Returns subnets that run all blocks, of which for each two choices one has the first small and the second not.

        The number of a choice, in binary, says in which of them it is small; their count grows with its logarithm.
        """
        blocks = {name for part in self.elasticities for name in part.blocks}
        choices = [choice for choice in self.space.choices if choice.name not in blocks]
        return [
            {
                **self._maximum,
                **{one.name: one.values[-1] for number, one in enumerate(choices) if number >> bit & 1 == is_small},
            }
            for bit in range(len(choices).bit_length())
            for is_small in (0, 1)
        ]

    def _probed(self, executor: Executor, probe: Callable[[Executor, Mapping[str, int]], Probe]) -> Executor:
        """Returns the executor that knows where arguments come from."""
        while True:
            self.executor = executor
            probes = [probe(executor, subnet) for subnet in self._without_skips()]
            if executor.may_be_right_by_chance(probes):
                probes += [probe(executor, subnet) for subnet in self._told_apart()]
            settled = executor.settled(probes)
            lost = executor.shadows.places - settled.shadows.places
            if not lost:
                return settled
            executor = executor.without_places(lost)

    def _agree(self, forward: Callable[..., Any], one: Executor, two: Executor) -> bool:
        """Whether two executors compute the same."""
        for subnet in self._without_skips():
            with self.activate(subnet):
                try:
                    if not equal(*(executor.run(forward, self.active, self.example) for executor in (one, two))):
                        return False
                except Exception:  # a number that fits one of its uses only
                    return False
        return True

    def _settle(self) -> Refused:
        """
        Finds out where hooked arguments come from, and checks the maximum's outputs and other subnets' shapes.

        Returns choices without which all subnets that were tried run, and why.
        """
        own_forward = _nncf.original_forward(self.model)

        @wraps(own_forward)
        def forward(*args: Any, **kwargs: Any) -> Any:
            fresh = ExampleInput(args, kwargs).map(torch.clone)  # the model may change its input in place
            self.forget()
            return own_forward(*fresh.args, **fresh.kwargs)

        def probe(executor: Executor, subnet: Mapping[str, int]) -> Probe:
            with self.activate(subnet):
                check = shape_check(self.graph, self.active, self.shape)
                return executor.probe(forward, self.example, check)

        def run(subnet: Mapping[str, int]) -> None:
            with self.activate(subnet):
                check_shapes(self.executor, forward, self.example, self.active, self.shape)

        whole = self._without_skips()
        quick, careful = self.executor, self.executor.by_hooks()
        try:
            self.executor = self._probed(careful, probe)
        except Exception as error:  # whatever the model's own code raises
            tried = [*whole, *self._told_apart()]
            return self._refused(self._maximum, tried, partial(probe, self.executor), error)
        if quick.shadows.places != careful.shadows.places:
            careful = self.executor
            with suppress(Exception):  # its code reads an attribute for more than an argument
                quick = self._probed(quick, probe)
                careful = quick if self._agree(forward, quick, careful) else careful
            self.executor = careful
        check_maximum(self.executor, forward, self.example, self._maximum)
        for runs, subnet in ((self._maximum, whole[0]), (whole[0], self.space.minimum)):
            try:
                run(subnet)
            except Exception as error:
                return self._refused(runs, [subnet], run, error)
        return {}

    def _refused(
        self,
        runs: Mapping[str, int],
        subnets: Iterable[Mapping[str, int]],
        attempt: Callable[[Subnet], object],
        error: Exception,
    ) -> Refused:
        """Returns choices to do without, at least one; the error is raised if there is none to blame for it."""
        refused: dict[str, str] = {}
        with subnet_must_run():
            for subnet in subnets:
                refused |= refused_choices(runs, {**subnet, **{name: runs[name] for name in refused}}, attempt)
            if not refused:
                raise error
        return refused


def _traced(model: nn.Module, example: ExampleInput, caches: Caches) -> ModelGraph:
    """Traces the model, and once more with another input to see what depends on it; finds its caches, too."""

    def trace(inputs: ExampleInput, keep: Container[str] = ()) -> ModelGraph:
        fresh = inputs.map(torch.clone)  # the model may change its input in place
        graph = _nncf.trace(model, fresh.args, fresh.kwargs, keep)
        caches.find()
        caches.reset()
        return graph

    def take_one_path(one: ExampleInput, two: ExampleInput) -> bool:
        try:
            with_varying_sizes(trace(one), trace(two))
        except ModelError:
            return False
        return True

    graph = trace(example)
    size = example.batch_size
    for another in (example.varied(size + 1), example.with_batch(size + 1), example.varied(size)):
        try:
            other = trace(another)
        except ModelError:  # made for one batch size, or not for such values
            continue
        # Such as a copy that one batch size needs and another does not.
        unlike = graph.passed.keys() ^ other.passed.keys()
        if unlike:
            graph, other = trace(example, unlike), trace(another, unlike)
        try:
            return with_varying_sizes(graph, other)
        except ModelError as error:
            if not take_one_path(example.with_batch(size + 1), example.varied(size + 2)):
                raise
            msg = f"{error} With a batch of {size + 1} or more it takes one path; an example of that size would do."
            raise ModelError(msg) from error
    return graph


def _nothing_elastic(model: nn.Module, static: Mapping[str, Mapping[str, str]]) -> str:
    reasons = [
        f"{dimension} of {layer}: {reason}" for dimension, layers in static.items() for layer, reason in layers.items()
    ]
    shown = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
    return (
        f"Nothing of {type(model).__name__} is elastic with this `elasticity` config, so there is no super-network. "
        f"{shown or 'No layer with a weight, and no block, was found; the weights of a quantized model are none'}."
    )
