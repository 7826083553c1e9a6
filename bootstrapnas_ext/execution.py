"""How a model runs as its active subnet.

Most arguments of operations are attributes of modules: weights, running statistics, ``groups``, ``padding``. For the
length of a forward, such an attribute is shadowed by what its hooks make of it, so the operation runs at full speed, as
in a model that was built small. Only arguments that the model's own code computes, such as the sizes of a ``view``, and
blocks that are no modules of their own, need NNCF's function mode around the model. Which is which is not guessed: a
probe runs the model once and looks at what arrives at every hooked port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bootstrapnas_ext._nncf import HookMode
from bootstrapnas_ext.elasticity import Elasticity
from bootstrapnas_ext.elasticity.base import Shape
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.functions import with_stand_ins
from bootstrapnas_ext.graph import ModelGraph, Place, Ref
from bootstrapnas_ext.graph.blocks import Block
from bootstrapnas_ext.graph.ir import ATTRIBUTE
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.ports import Arrival, Finding, Port, Probe, is_pytorchs, same
from bootstrapnas_ext.shadows import Shadows, shadowed, swapped
from bootstrapnas_ext.skipping import Skip
from bootstrapnas_ext.space import Subnet


class _Plan(NamedTuple):
    """
    How a subnet runs, for as long as it is the active one.

    :param subnet: The subnet.
    :param skip: How its blocks are left out.
    :param unused: Indices of operations that do not run, nor their arguments' computation.
    :param forwards: Attributes of modules, names and what takes the place of forwards there, outside of the mode.
    """

    subnet: Subnet
    skip: Skip
    unused: frozenset[int]
    forwards: list[tuple[nn.Module, str, Any]]


class Executor:
    """
    Runs a model as any of its subnets.

    :param model: The model; its own forward is passed to :meth:`run`.
    :param graph: Its trace.
    :param elasticities: What is elastic.
    :param ports: All hooked arguments.
    """

    def __init__(
        self, model: nn.Module, graph: ModelGraph, elasticities: Sequence[Elasticity], ports: tuple[Port, ...]
    ) -> None:
        self.graph = graph
        self.elasticities = tuple(elasticities)
        self.ports = ports
        self._model = model
        self._looked_for_checkpoints: set[bool] = set()
        self._plan: _Plan | None = None
        self.shadows = Shadows(model, graph, ports)

    @cached_property
    def _adapted(self) -> frozenset[str]:
        """
        Modules that run with stand-ins; the empty path is the model.

        They are the outermost ones that PyTorch wrote, since these have short cuts of their own, which they do not take
        under a function mode.
        """
        called = {"", *(call.module for call in self.graph.calls)}
        found: set[str] = set()
        for path in self.graph.adapted:
            parts = path.split(".")
            around = [name for length in range(len(parts) + 1) if (name := ".".join(parts[:length])) in called]
            modules = ((name, self._model.get_submodule(name)) for name in around)
            outermost = (name for name, one in modules if is_pytorchs(one) and not isinstance(one, nn.Sequential))
            found.add(next(outermost, path))
        return frozenset(found)

    @cached_property
    def _with_stand_ins(self) -> dict[Place, Callable[..., Any]]:
        return {
            Place(path, "forward"): with_stand_ins(self._model.get_submodule(path).forward)
            for path in self._adapted
            if path
        }

    def __getstate__(self) -> dict[str, Any]:
        """What is worked out from modules must not come along into a copy, which has other modules."""
        derived = ("_with_stand_ins",)
        return {**{name: value for name, value in vars(self).items() if name not in derived}, "_plan": None}

    def skipped(self, subnet: Subnet) -> list[Block]:
        """
        Returns the blocks that a subnet leaves out.

        :param subnet: Any subnet.
        """
        return [block for elasticity in self.elasticities for block in elasticity.skipped(subnet)]

    def shape(self, value: int, subnet: Mapping[str, int]) -> Shape:
        """
        Returns the shape of a tensor in a subnet.

        :param value: Index of the tensor in the graph.
        :param subnet: A subnet of the space.
        """
        shape = self.graph.values[value].shape
        for part in self.elasticities:
            shape = part.resize(value, shape, subnet)
        return shape

    @cached_property
    def code_hooks(self) -> dict[tuple[str, int], Callable[[Any], Any]]:
        """What changes the arguments that the model's code makes."""
        return {port.key: port.change for port in self.ports if not port.sources}

    def _planned(self, subnet: Subnet) -> _Plan:
        blocks = self.skipped(subnet)
        skip = Skip(self.graph, blocks, partial(self.shape, subnet=subnet))
        forwards = {**self._with_stand_ins, **skip.forwards}
        return _Plan(
            subnet,
            skip,
            # Where only operations are replaced, the code around them still computes their arguments.
            frozenset() if skip.needs_mode else frozenset(op for block in blocks for op in block.ops),
            [(self._model.get_submodule(place.module), place.attribute, value) for place, value in forwards.items()],
        )

    def run(
        self,
        forward: Callable[..., Any],
        subnet: Subnet,
        example: ExampleInput,
        observe: Callable[[str, Any], None] | None = None,
    ) -> Any:
        """
        Runs the model as the active subnet.

        :param forward: The model's own forward.
        :param subnet: The active subnet.
        :param example: What to call the model with.
        :param observe: Called with the site and the result of every operation; makes the forward slow.
        """
        plan = self._plan if self._plan is not None and self._plan.subnet is subnet else self._planned(subnet)
        skip, hooks = plan.skip, self.code_hooks
        self._plan = None if skip.needs_mode else plan  # one for each forward, since it keeps tensors
        with self.shadows.cast(subnet, plan.unused):
            if not hooks and not skip.needs_mode and observe is None:
                forward = with_stand_ins(forward) if "" in self._adapted else forward
                with swapped((vars(module), name, value) for module, name, value in plan.forwards):
                    result = forward(*example.args, **example.kwargs)
            else:
                skip.read_inputs(example.named(forward))
                with (
                    shadowed(self._model, skip.forwards),
                    HookMode(self._model, hooks, skip.replace, skip.keep, observe, skip.counters) as mode,
                ):
                    result = forward(*example.args, **example.kwargs)
                check_counts(self.graph, mode.calls, {op for op, _ in hooks} | skip.replace.keys())
        if torch.is_grad_enabled() and self._model.training not in self._looked_for_checkpoints:
            refuse_checkpointing(result)
            self._looked_for_checkpoints.add(self._model.training)
        return result

    def by_hooks(self) -> Executor:
        """
        Returns an executor that leaves attributes alone that are no tensors, in modules that are not PyTorch's.

        Their code may read such a number for something else, too.
        """
        return self.without_places(place for place, owner in self.shadows.numbers if not is_pytorchs(owner))

    def without_places(self, places: Iterable[Place]) -> Executor:
        """
        Returns an executor that leaves attributes alone, and changes by hooks what comes from them.

        :param places: The attributes.
        """
        left = frozenset(places)
        ports = (
            port if left.isdisjoint(source.place for source in port.sources) else replace(port, sources=())
            for port in self.ports
        )
        return Executor(self._model, self.graph, self.elasticities, tuple(ports))

    def without_hooks(self) -> Executor:
        """Returns an executor that changes no arguments."""
        return Executor(self._model, self.graph, self.elasticities, ())

    def probe(self, forward: Callable[..., Any], example: ExampleInput, observe: Callable[[str, Any], None]) -> Probe:
        """
        Runs the active subnet, which must skip no block, and looks at what arrives at every hooked argument.

        :param forward: The model's own forward.
        :param example: Input of the trace.
        :param observe: Called with the site and the result of every operation.
        :return: What arrived; ports of operations that did not run are missing.
        """
        findings: dict[tuple[str, int], Finding] = {}

        def look_at(port: Port) -> Callable[[Any], Any]:
            def hook(value: Any) -> Any:
                arrival = self._arrival(port, value)
                wrong = tuple(hook.wrong_parts(value, port.traced) for hook in port.hooks)
                findings[port.key] = Finding(arrival, wrong)
                return port.change(value) if arrival in (Arrival.AS_TRACED, Arrival.OTHER) else value

            return hook

        hooks = {port.key: look_at(port) for port in self.ports}
        with (
            shadowed(self._model, self.shadows.values()),
            torch.no_grad(),
            HookMode(self._model, hooks, observe=observe),
        ):
            forward(*example.args, **example.kwargs)
        return findings

    def _arrival(self, port: Port, value: Any) -> Arrival:
        if isinstance(value, Tensor):
            assert isinstance(port.traced, Ref)
            full = self.graph.values[port.traced.value].shape
            needed = tuple(port.change(torch.empty(full, device="meta")).shape)
            got = tuple(value.shape)
            if needed == full:
                return Arrival.UNTOUCHED if got == full else Arrival.OTHER
            if got == needed:
                return Arrival.RIGHT
            return Arrival.AS_TRACED if got == full else Arrival.OTHER
        if not port.changes() and same(value, port.traced):
            return Arrival.UNTOUCHED
        if same(value, port.change(port.traced)):
            return Arrival.RIGHT
        return Arrival.AS_TRACED if same(value, port.traced) else Arrival.OTHER

    def may_be_right_by_chance(self, probes: Sequence[Probe]) -> bool:
        """
        Returns whether the code computes an argument that each of the probes has found right, though it must change.

        What is computed from one width is the other's too, wherever both are equally large in a subnet.

        :param probes: What :meth:`probe` returned for several subnets.
        """
        for port in self.ports:
            findings = [probe[port.key] for probe in probes if port.key in probe]
            if findings and not port.sources and not isinstance(port.traced, Ref):
                for hook, found in zip(port.hooks, zip(*(one.wrong for one in findings), strict=True), strict=True):
                    if hook.rules().keys() - set().union(*found):
                        return True
        return False

    def settled(self, probes: Sequence[Probe]) -> Executor:
        """
        Returns an executor that knows by trial where each argument comes from.

        One trial is not enough: what the code computes from one width may be right for another by chance. If it leaves
        an attribute alone that this one changes, it must be tried anew without it, since others may have needed it.

        :param probes: What :meth:`probe` returned for several subnets.
        """
        ports: list[Port] = []
        for port in self.ports:
            findings = [probe[port.key] for probe in probes if port.key in probe]
            found = {finding.arrival for finding in findings}
            if port.number == ATTRIBUTE and port.sources:
                ports.append(port)
            elif Arrival.AS_TRACED in found or Arrival.OTHER in found:
                hooks = port.limited_to(finding.wrong for finding in findings)
                unsteady = Arrival.OTHER in found or Arrival.RIGHT in found
                ports.append(replace(port, hooks=hooks, sources=(), unsteady=unsteady))
            elif port.sources and Arrival.RIGHT in found:
                ports.append(port)
            elif isinstance(port.traced, Ref):  # its shape does not tell whether its hook was at work
                ports.append(replace(port, sources=()))
            # else: the argument is right without a hook, since it is static or the code computes it from shapes
        return Executor(self._model, self.graph, self.elasticities, tuple(ports))


def check_counts(graph: ModelGraph, calls: Mapping[str, int], sites: Iterable[str]) -> None:
    """
    Looks whether functions ran as often as in the trace: operations are known by their number.

    :param graph: The trace, made in evaluation mode.
    :param calls: How often each function ran in each module.
    :param sites: Of the operations that were changed or left out.
    :raises ModelError: If one ran more often, for example because the model's code looks at its mode.
    """
    for site in sites:
        stem = site.rpartition(":")[0]
        if calls[stem] > graph.counts[stem]:
            name = stem.replace(".", "/").replace(":", "/")
            msg = (
                f"The model's code runs {name!r} {calls[stem]} times, and {graph.counts[stem]} times when it was "
                "traced, in evaluation mode, so a subnet that changes it cannot run like this. Let the code run the "
                "same operations in both modes, or put what differs into a module of its own."
            )
            raise ModelError(msg)


def refuse_checkpointing(result: Any) -> None:
    """
    Looks for activation checkpoints in what gradients flow back through.

    They run modules once more during the backward pass, when the attributes of the subnet are gone.

    :param result: What a model returned, with gradients.
    :raises ModelError: If there is one.
    """
    pending = [leaf.grad_fn for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "CheckpointFunction" in node.name():
            msg = (
                "The model uses activation checkpointing, which runs parts of it again during the backward pass, as "
                "the maximum subnet. Turn checkpointing off while a super-network is trained."
            )
            raise ModelError(msg)
        pending += [following for following, _ in node.next_functions]
