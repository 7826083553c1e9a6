"""Elastic width: groups of channels may keep only their first members.

All tensors follow by their axes: parameters and buffers are sliced where they enter an operation, and integers such as
the number of groups or the sizes of a reshape are replaced.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.elasticity.base import (
    ELASTICITIES,
    ActiveSubnet,
    Elasticity,
    Hook,
    PortHook,
    Refused,
    Shape,
    StaticLayer,
    layer_name,
)
from bootstrapnas_ext.elasticity.importance import IMPORTANCES
from bootstrapnas_ext.elasticity.nncf2_names import NNCF2Names
from bootstrapnas_ext.elasticity.width_rules import GroupRules
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.graph import Axis, Layer, Layout, Path, PortValue, Propagation, part_of
from bootstrapnas_ext.graph.propagate import NOT_CHANNELS
from bootstrapnas_ext.space import Choice, Subnet


@dataclass(frozen=True)
class Run:
    """
    A part of an axis.

    :param choice: The choice that says how many of its channels are active; ``None`` if all are.
    :param size: All its channels.
    :param repeat: How many indices in a row belong to one channel.
    """

    choice: str | None
    size: int
    repeat: int


class Selection(NamedTuple):
    """
    The active part of one dimension.

    :param dim: The dimension.
    :param length: Number of active indices.
    :param indices: The active indices; ``None`` if they are the first ones, so that the part is a view.
    """

    dim: int
    length: int
    indices: Tensor | None


@dataclass(frozen=True)
class ElasticAxis:
    """
    A dimension of a tensor, by the choices that it depends on.

    :param runs: Its parts in order.
    """

    runs: tuple[Run, ...]

    def length(self, subnet: Mapping[str, int]) -> int:
        """
        Returns the number of active indices.

        :param subnet: Any subnet.
        """
        return sum((run.size if run.choice is None else subnet[run.choice]) * run.repeat for run in self.runs)

    @property
    def is_elastic(self) -> bool:
        """Whether it depends on any choice."""
        return any(run.choice is not None for run in self.runs)

    def selection(self, dim: int, subnet: Subnet) -> Selection:
        """
        Returns how to take the active part of a tensor.

        :param dim: The dimension that this axis describes.
        :param subnet: The active subnet.
        """
        return Selection(dim, self.length(subnet), None if len(self.runs) == 1 else self.indices(subnet))

    def indices(self, subnet: Subnet) -> Tensor:
        """
        Returns the active indices, ascending.

        :param subnet: The active subnet.
        """
        return _active_indices(
            self.runs, tuple(run.size if run.choice is None else subnet[run.choice] for run in self.runs)
        )


@dataclass(frozen=True)
class Length:
    """
    An integer that is the length of an axis.

    :param axis: The axis.
    :param varying: Whether it depends on the model's input too; then it shrinks in the proportion of the axis.
    """

    axis: ElasticAxis
    varying: bool

    def of(self, value: int, subnet: Subnet) -> int:
        """
        Returns what stands there in a subnet.

        :param value: What stands there in the maximum subnet, with any input.
        :param subnet: Any subnet.
        """
        active = self.axis.length(subnet)
        if not self.varying:
            return active
        full = sum(run.size * run.repeat for run in self.axis.runs)
        common = math.gcd(active, full)
        return value // (full // common) * (active // common)


@lru_cache(maxsize=4096)
def _active_indices(runs: tuple[Run, ...], counts: tuple[int, ...]) -> Tensor:
    starts = [0]
    for run in runs:
        starts.append(starts[-1] + run.size * run.repeat)
    parts = [
        torch.arange(start, start + count * run.repeat) for start, run, count in zip(starts, runs, counts, strict=False)
    ]
    return torch.cat(parts)


class SliceHook(PortHook):
    """
    Keeps the active channels of a parameter or buffer.

    :param cell: Where the active subnet is read.
    :param axes: One axis for each dimension of the tensor.
    """

    def __init__(self, cell: ActiveSubnet, axes: Sequence[ElasticAxis]) -> None:
        super().__init__(cell)
        self.axes = tuple(axes)
        self.elastic = tuple((dim, axis) for dim, axis in enumerate(axes) if axis.is_elastic)
        self._subnet: Subnet | None = None
        self._selections: tuple[Selection, ...] = ()

    def forward(self, value: Tensor) -> Tensor:
        subnet = self.cell.subnet
        if subnet is not self._subnet:  # a subnet stays active for a forward at least, often for many
            self._selections = tuple(axis.selection(dim, subnet) for dim, axis in self.elastic)
            self._subnet = subnet
        for dim, length, indices in self._selections:
            if value.shape[dim] == length:
                continue
            if indices is None:
                value = value.narrow(dim, 0, length)
            else:
                value = value.index_select(dim, indices.to(value.device))
        return value

    def write_back(self, whole: Tensor, part: Tensor) -> None:
        indices = (axis.indices(self.cell.subnet).to(whole.device) for axis in self.axes)
        whole[torch.meshgrid(*indices, indexing="ij")] = part


class LengthHook(PortHook):
    """
    Replaces integers by lengths of axes.

    :param cell: Where the active subnet is read.
    :param lengths: Where in the argument to what stands there, as in :attr:`PortValue.path`.
    """

    def __init__(self, cell: ActiveSubnet, lengths: Mapping[Path, Length]) -> None:
        super().__init__(cell)
        self.lengths = lengths

    def forward(self, value: Any) -> Any:
        for path, length in self.lengths.items():
            value = _with_length(value, path, length, self.cell.subnet)
        return value

    def rules(self) -> Mapping[Path, Any]:
        elastic = {path: length for path, length in self.lengths.items() if length.axis.is_elastic}
        return {(): self} if any(length.varying for length in elastic.values()) else elastic

    def wrong_parts(self, value: Any, traced: Any) -> frozenset[Path]:
        subnet = self.cell.subnet
        return frozenset(
            path
            for path, length in self.lengths.items()
            if part_of(value, path) != length.of(part_of(traced, path), subnet)
        )

    def limited_to(self, parts: Container[Path]) -> LengthHook:
        return LengthHook(self.cell, {path: length for path, length in self.lengths.items() if path in parts})


def _with_length(value: Any, path: Path, length: Length, subnet: Subnet) -> Any:
    """Returns an argument with one integer replaced; every container on the way to it is made anew."""
    if not path:
        return length.of(value, subnet)
    step, rest = path[0], path[1:]
    if isinstance(value, slice):
        bounds = {name: getattr(value, name) for name in ("start", "stop", "step")}
        bounds[str(step)] = _with_length(bounds[str(step)], rest, length, subnet)
        return slice(*bounds.values())
    items = list(value)
    items[int(step)] = _with_length(items[int(step)], rest, length, subnet)
    return tuple(items)


@ELASTICITIES.register("width")
def elastic_width(
    propagation: Propagation, cell: ActiveSubnet, config: ElasticityConfig, refused: Refused
) -> Elasticity:
    """
    Makes a choice of each group of channels that has more than one possible width.

    :param propagation: Layouts of the model.
    :param cell: Where hooks read the active subnet.
    :param config: Its ``width`` and its scopes are used.
    :param refused: Choices not to make, with the reasons.
    """
    widths = _Widths(propagation, config, refused)
    hooks = [*_slice_hooks(widths, cell), *_length_hooks(widths, cell)]
    external = _external_scores(widths, config.width.external_importance_path)

    def reorganize(model: nn.Module) -> None:
        sort_channels(model, widths, config.width.filter_importance, external)

    @cache
    def layout(value: int) -> tuple[ElasticAxis, ...]:
        return widths.layout(propagation.layout(value))

    def resize(value: int, shape: Shape, subnet: Mapping[str, int]) -> Shape:
        return tuple(
            axis.length(subnet) if axis.is_elastic else size for axis, size in zip(layout(value), shape, strict=True)
        )

    return Elasticity(
        "width",
        tuple(widths.choices.values()),
        tuple(hooks),
        resize=resize,
        static=tuple(widths.static_layers()),
        reorganize=reorganize,
    )


class _Widths:
    """Choices of width and the axes that follow them."""

    def __init__(self, propagation: Propagation, config: ElasticityConfig, refused: Refused) -> None:
        self.propagation = propagation
        self.choices: dict[int, Choice] = {}
        self._static: dict[int, str] = {}
        rules = GroupRules(propagation, config)
        of_constants = {
            segment.group
            for value in propagation.graph.values
            if value.is_constant
            for axis in propagation.layout(value.index)
            for segment in axis
        }
        names: dict[str, int] = {}
        for owner, op, axis in self._owners():
            for segment in propagation.solver.resolve(axis):
                group = segment.group
                if group in self.choices or group in self._static or propagation.solver.reason((segment,)):
                    continue
                if group not in of_constants:  # such as what only fills a shape
                    self._static[group] = "the model has no tensor of its own with these channels"
                    continue
                values, reason = rules.values(segment, owner, op)
                if len(values) == 1:
                    self._static[group] = reason
                    continue
                names[owner] = names.get(owner, 0) + 1
                name = f"width:{owner}" + (f"#{names[owner]}" if names[owner] > 1 else "")
                if name in refused:
                    self._static[group] = refused[name]
                else:
                    self.choices[group] = Choice(name, values, "width")

    def _owners(self) -> Iterator[tuple[str, str, Axis]]:
        """Yields name, operation and axis: those of layers, then those that other operations make."""
        graph = self.propagation.graph
        for layer in self.propagation.layers:
            yield layer_name(graph, layer.op.name), layer.op.name, layer.axis
        for op in graph.ops:
            for output in op.outputs:
                for axis in self.propagation.layout(output):
                    yield op.name, op.name, axis

    def axis(self, axis: Axis) -> ElasticAxis:
        """Returns an axis by its choices, neighbouring static parts joined."""
        runs: list[Run] = []
        for group, repeat in self.propagation.solver.resolve(axis):
            size = self.propagation.solver.size(group)
            if group in self.choices:
                runs.append(Run(self.choices[group].name, size, repeat))
            elif runs and runs[-1].choice is None:
                runs[-1] = Run(None, runs[-1].size + size * repeat, 1)
            else:
                runs.append(Run(None, size * repeat, 1))
        return ElasticAxis(tuple(runs))

    def layout(self, layout: Layout) -> tuple[ElasticAxis, ...]:
        return tuple(self.axis(axis) for axis in layout)

    def elastic_weights(self) -> dict[str, Layer]:
        """Returns a layer for each parameter or buffer that makes channels of which some may be dropped."""
        found: dict[str, Layer] = {}
        for layer in self.propagation.layers:
            weight = self.propagation.graph.values[layer.weight]
            if weight.is_constant and self.axis(layer.axis).is_elastic:
                found.setdefault(weight.name, layer)
        return found

    def static_layers(self) -> Iterator[StaticLayer]:
        """Yields layers of which no output channel may be dropped, and operations with other weights that may not."""
        graph = self.propagation.graph
        weights = {layer.weight for layer in self.propagation.layers}
        for layer in self.propagation.layers:
            if not self.axis(layer.axis).is_elastic:
                yield StaticLayer(layer_name(graph, layer.op.name), self._reason(layer.axis) or NOT_CHANNELS)
        for op in graph.ops:
            others = [
                value
                for value in op.tensors
                if graph.values[value].source == "parameter" and len(graph.values[value].shape) > 1
            ]
            axes = [axis for value in others for axis in self.propagation.layout(value)]
            if axes and weights.isdisjoint(others) and not any(self.axis(axis).is_elastic for axis in axes):
                reasons = [reason for axis in axes if (reason := self._reason(axis)) not in (None, NOT_CHANNELS)]
                if reasons:
                    yield StaticLayer(layer_name(graph, op.name), reasons[0])

    def _reason(self, axis: Axis) -> str | None:
        """Returns why no part of an axis may shrink."""
        reason = self.propagation.solver.reason(axis)
        return self._static.get(self.propagation.solver.resolve(axis)[0].group) if reason is None else reason


def _slice_hooks(widths: _Widths, cell: ActiveSubnet) -> Iterator[Hook]:
    graph = widths.propagation.graph
    for op in graph.ops:
        for port, value in op.tensor_ports:
            if graph.values[value].is_constant:
                hook = SliceHook(cell, widths.layout(widths.propagation.layout(value)))
                if hook.elastic:
                    yield Hook(op.name, port, None, hook)


def _length_hooks(widths: _Widths, cell: ActiveSubnet) -> Iterator[Hook]:
    """Yields hooks for integers of static axes too: the model's code may compute them from elastic tensors."""
    by_port: dict[tuple[str, int, str], list[PortValue]] = {}
    for value in widths.propagation.port_values:
        by_port.setdefault((value.op.name, value.port, value.name), []).append(value)
    made: dict[tuple[tuple[Path, Length], ...], LengthHook] = {}
    for (op, port, name), values in by_port.items():
        lengths = {value.path: Length(widths.axis(value.axis), value.varying) for value in values}
        hook = made.setdefault(tuple(lengths.items()), LengthHook(cell, lengths))
        yield Hook(op, port, name, hook)


def sort_channels(model: nn.Module, widths: _Widths, importance: str, external: dict[str, Tensor]) -> None:
    """
    Sorts the channels of each group by importance, most important first, in all parameters and buffers.

    The function of the maximum subnet stays the same up to the order of floating-point sums.

    :param model: The model; its parameters and buffers are changed in place.
    :param widths: Choices of width.
    :param importance: A name in :data:`IMPORTANCES`, or ``external``.
    :param external: Importance of the output channels of weights, by name; sorted as their channels are.
    """
    propagation = widths.propagation
    weights = widths.elastic_weights()
    scores: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, layer in weights.items():
            if importance == "external":
                score = external[name]
            else:
                rows = _constant(model, name).movedim(layer.dim, 0).flatten(1).float()
                score = IMPORTANCES.get(importance)(rows)
            _add_scores(scores, propagation, layer.axis, score)
        orders = {
            group: torch.argsort(scores[group], descending=True, stable=True)
            for group in widths.choices
            if group in scores
        }
        for value in propagation.graph.values:
            if value.is_constant:
                tensor = _constant(model, value.name)
                for dim, axis in enumerate(propagation.layout(value.index)):
                    _sort(tensor, dim, propagation, axis, orders)
        for name, score in external.items():
            _sort(score, 0, propagation, weights[name].axis, orders)


def _constant(model: nn.Module, name: str) -> Tensor:
    path, _, attribute = name.rpartition(".")
    tensor = getattr(model.get_submodule(path), attribute)
    assert isinstance(tensor, Tensor)
    return tensor


def _add_scores(scores: dict[int, Tensor], propagation: Propagation, axis: Axis, score: Tensor) -> None:
    start = 0
    for group, repeat in propagation.solver.resolve(axis):
        size = propagation.solver.size(group)
        part = score[start : start + size * repeat].view(size, repeat).sum(dim=1)
        scores[group] = scores[group] + part if group in scores else part
        start += size * repeat


def _sort(tensor: Tensor, dim: int, propagation: Propagation, axis: Axis, orders: dict[int, Tensor]) -> None:
    """Brings a dimension, which an axis describes, in order; in place."""
    parts: list[Tensor] = []
    start = 0
    for group, repeat in propagation.solver.resolve(axis):
        size = propagation.solver.size(group)
        indices = torch.arange(start, start + size * repeat, device=tensor.device).view(size, repeat)
        parts.append((indices[orders[group].to(tensor.device)] if group in orders else indices).flatten())
        start += size * repeat
    if any(segment.group in orders for segment in propagation.solver.resolve(axis)):
        tensor.copy_(tensor.index_select(dim, torch.cat(parts)))


def _external_scores(widths: _Widths, path: str | None) -> dict[str, Tensor]:
    """Returns the importance that a file gives for each elastic weight, by the weight's name."""
    if path is None:
        return {}
    where = f"`elasticity.width.external_importance_path` is {path!r}"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        msg = f"{where}, which cannot be read as a file of tensors: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
    if not isinstance(loaded, dict) or not all(isinstance(item, Tensor) for item in loaded.values()):
        msg = f"{where}, which must hold a dictionary of weight names to tensors."
        raise ConfigError(msg)
    names = NNCF2Names(widths.propagation.graph)
    by_op = {names.find(str(name)): tensor for name, tensor in loaded.items()}
    scores: dict[str, Tensor] = {}
    for name, layer in widths.elastic_weights().items():
        size = widths.propagation.solver.length(layer.axis)
        found = loaded.get(name, loaded.get(name.rpartition(".")[0], by_op.get(layer.op.name)))
        if found is not None and found.shape == widths.propagation.shape(layer.weight):  # as NNCF 2's files may have it
            found = found.movedim(layer.dim, 0).flatten(1).sum(1)
        if found is None or found.shape != (size,):
            got = "nothing" if found is None else f"a tensor of shape {tuple(found.shape)}"
            msg = f"{where}, which must hold a tensor of shape ({size},) for {name!r}, but it holds {got}."
            raise ConfigError(msg)
        scores[name] = found.float()
    return scores
