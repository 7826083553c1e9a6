"""The three elastic dimensions as NNCF 2 wrote them: widths by group, kernels in a list, depth by what is skipped."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np

from bootstrapnas_ext.elasticity.base import layer_name
from bootstrapnas_ext.elasticity.nncf2_names import NNCF2Names
from bootstrapnas_ext.elasticity.scopes import json_path, named_ops
from bootstrapnas_ext.errors import SubnetError
from bootstrapnas_ext.graph import ModelGraph, Op
from bootstrapnas_ext.space import Choice, SearchSpace
from bootstrapnas_ext.supernet import Supernet

_MOST_DEPTHS = 100_000
_ALL = -1


class ElasticityDim(str, Enum):
    """An elastic dimension. It equals its value, so that a config that was stored with plain text has the same keys."""

    KERNEL = "kernel"
    WIDTH = "width"
    DEPTH = "depth"


class Proposer(ABC):
    """What proposes subnets and activates them."""

    @abstractmethod
    def get_maximum_config(self) -> Any:
        """Returns the largest subnet."""

    @abstractmethod
    def get_minimum_config(self) -> Any:
        """Returns the smallest subnet."""

    @abstractmethod
    def get_random_config(self) -> Any:
        """Returns a random subnet."""

    @abstractmethod
    def activate_subnet_for_config(self, config: Any) -> None:
        """
        Makes the model run a subnet; dimensions that are not of it stay.

        :param config: NNCF 2's form.
        :raises SubnetError: If it is another super-network's.
        """

    def activate_maximum_subnet(self) -> None:
        """Makes the model run the largest subnet that may be proposed."""
        self.activate_subnet_for_config(self.get_maximum_config())

    def activate_minimum_subnet(self) -> None:
        """Makes the model run the smallest subnet that may be proposed."""
        self.activate_subnet_for_config(self.get_minimum_config())

    def activate_random_subnet(self) -> None:
        """Makes the model run a random subnet."""
        self.activate_subnet_for_config(self.get_random_config())


class DimensionHandler(Proposer):
    """
    Reads and writes one dimension of a subnet in NNCF 2's form.

    :param supernet: The super-network.
    :param rng: The source of random subnets.
    """

    dimension: ElasticityDim

    def __init__(self, supernet: Supernet, rng: np.random.Generator) -> None:
        self.supernet = supernet
        self._rng = rng
        self.space = supernet.space

    @property
    def space(self) -> SearchSpace:
        """The subnets that may be proposed: all, or those that a stage of training or an indicator opens."""
        return self._space

    @space.setter
    def space(self, space: SearchSpace) -> None:
        self._space = space
        opened = {choice.name: choice for choice in space.choices}
        self.choices = tuple(opened.get(choice.name, choice) for choice in self._all_choices())

    @property
    def opened(self) -> tuple[Choice, ...]:
        """What is elastic of this dimension, with the values that may be proposed."""
        return tuple(choice for choice in self._space.choices if choice.dimension == self.dimension.value)

    def _open(self, count: int | None) -> None:
        """Lets only so many of each choice's largest values be proposed; ``None`` for all."""
        self.space = self.supernet.space.restrict({self.dimension.value: count})

    @property
    def _most_open(self) -> int:
        """How many values the choice has that has most, of those that may be proposed."""
        return max((len(choice.values) for choice in self.opened), default=1)

    def _all_choices(self) -> Iterator[Choice]:
        """Yields the variables in NNCF 2's order; layers that it counted and that are static here have one value."""
        for choice in self.supernet.space.choices:
            if choice.dimension == self.dimension.value:
                yield choice

    def _elastic(self, values: Mapping[str, int]) -> dict[str, int]:
        """Returns the values of what is elastic, after a check of what is not."""
        for choice in self.choices:
            if (
                choice.name not in self.supernet.active
                and values.get(choice.name, choice.values[0]) != choice.values[0]
            ):
                msg = f"{choice.name!r} is not elastic and must be {choice.values[0]}, but got {values[choice.name]}."
                raise SubnetError(msg)
        return {name: value for name, value in values.items() if name in self.supernet.active}

    @abstractmethod
    def get_search_space(self) -> Any:
        """Returns all values of all variables."""

    @abstractmethod
    def config_of(self, values: Mapping[str, int]) -> Any:
        """
        Returns NNCF 2's form of a subnet.

        :param values: Choice name to value, of this dimension at least.
        """

    @abstractmethod
    def values_of(self, config: Any) -> dict[str, int]:
        """
        Returns choice names and values, the inverse of :meth:`config_of`.

        :param config: NNCF 2's form.
        :raises SubnetError: If it is another super-network's.
        """

    def variables(self) -> list[int]:
        """Returns for each variable of a search how many values it has."""
        return [len(choice.values) for choice in self.choices]

    def config_at(self, indices: Sequence[int]) -> Any:
        """
        Returns NNCF 2's form of what a search algorithm proposes.

        :param indices: The index of a value for each variable.
        """
        return self.config_of(
            {choice.name: choice.values[index] for choice, index in zip(self.choices, indices, strict=True)}
        )

    def indices_of(self, values: Mapping[str, int]) -> list[int]:
        """
        Returns the index of a value for each variable, the inverse of :meth:`config_at`.

        :param values: Choice name to value, of this dimension at least, among those that may be proposed.
        """
        return [choice.values.index(values.get(choice.name, choice.values[0])) for choice in self.choices]

    def get_active_config(self) -> Any:
        """Returns what runs now."""
        return self.config_of(self.supernet.active)

    def get_maximum_config(self) -> Any:
        """Returns the largest subnet."""
        return self.config_of(self.space.maximum)

    def get_minimum_config(self) -> Any:
        """Returns the smallest subnet."""
        return self.config_of(self.space.minimum)

    def get_random_config(self) -> Any:
        """Returns a random subnet, every value of a choice equally likely."""
        return self.config_of(self.space.sample(self._rng))

    def activate_subnet_for_config(self, config: Any) -> None:
        self.supernet.set_active({**self.supernet.active, **self.values_of(config)})

    def activate_supernet(self) -> None:
        """Makes this dimension as large as in the given model."""
        self.activate_subnet_for_config(self.config_of(self.supernet.space.maximum))


class WidthHandler(DimensionHandler):
    """
    Widths: a dictionary from the number of a group of channels to how many of them are active.

    Groups have the order of the config's `overwrite_groups`, if it has them, or that of the graph.
    """

    dimension = ElasticityDim.WIDTH

    @property
    def width_num_params_indicator(self) -> int:
        """How many of each group's largest widths may be proposed; -1 for all."""
        return _ALL if self.opened == tuple(super()._all_choices()) else self._most_open

    @width_num_params_indicator.setter
    def width_num_params_indicator(self, count: int) -> None:
        if count < 1 and count != _ALL:
            msg = f"`width_num_params_indicator` must be at least 1, or {_ALL} for all widths, but got {count}."
            raise SubnetError(msg)
        self._open(None if count == _ALL else count)

    def _all_choices(self) -> Iterator[Choice]:
        groups = self.supernet.config.width.overwrite_groups
        if groups is None:
            yield from super()._all_choices()
            return
        known = {choice.name: choice for choice in super()._all_choices()}
        graph = self.supernet.graph
        for index, scopes in enumerate(groups):
            where = json_path("width", "overwrite_groups", index)
            ops = [graph.ops[graph.op_index[op]] for scope in scopes for op in named_ops(graph, scope, where)]
            names = [f"width:{layer_name(graph, op.name)}" for op in ops]
            weights = [graph.values[value] for op in ops for value in op.tensors if graph.values[value].is_constant]
            elastic = [known[name] for name in names if name in known]
            yield elastic[0] if elastic else Choice(names[0], weights[0].shape[:1], self.dimension.value)

    def get_search_space(self) -> dict[int, list[int]]:
        return {index: list(choice.values) for index, choice in enumerate(self.choices)}

    def config_of(self, values: Mapping[str, int]) -> dict[int, int]:
        return {index: values.get(choice.name, choice.values[0]) for index, choice in enumerate(self.choices)}

    def values_of(self, config: Mapping[int, int]) -> dict[str, int]:
        for group in config:
            if not isinstance(group, int) or not 0 <= group < len(self.choices):
                msg = f"A group of channels must be a number below {len(self.choices)}, but got {group!r}."
                raise SubnetError(msg)
        return self._elastic({self.choices[group].name: width for group, width in config.items()})

    def get_group_id_by_node_name(self, node_name: str) -> int | None:
        """
        Returns the number of a layer's group of channels, ``None`` if its width is not elastic.

        :param node_name: A layer that makes channels of the group: its path, the name of its operation, or NNCF 2's.
        """
        graph = self.supernet.graph
        name = NNCF2Names(graph).find(node_name) or node_name
        layers = [op for op in graph.ops if name in (op.name, op.module) and _has_weight(graph, op)]
        for group, choice in enumerate(self.choices):
            if choice.name == f"width:{name}" or any(self._makes(op, choice) for op in layers):
                return group
        return None

    def _makes(self, op: Op, choice: Choice) -> bool:
        """Whether an operation makes channels of a group: fewer of them make its result smaller."""
        full, least = self.supernet.space.maximum, self.supernet.space.minimum
        if choice.name not in full:
            return False
        small = {**full, choice.name: least[choice.name]}
        shapes = ((self.supernet.shape(value, full), self.supernet.shape(value, small)) for value in op.outputs)
        return any(one != two for one, two in shapes)

    def reorganize_weights(self) -> None:
        """Sorts channels by importance, most important first."""
        self.supernet.reorganize()


class KernelHandler(DimensionHandler):
    """Kernels: a list of sizes, one for each two-dimensional convolution, and for others that are elastic."""

    dimension = ElasticityDim.KERNEL

    def _all_choices(self) -> Iterator[Choice]:
        known = {choice.name: choice for choice in super()._all_choices()}
        graph = self.supernet.graph
        for op in graph.ops:
            if op.kind == "conv2d":
                name = f"kernel:{layer_name(graph, op.name)}"
                shapes = [graph.values[value].shape for value in op.tensors[1:]]
                yield known.pop(name, Choice(name, (max(shapes[0][2:]),), self.dimension.value))
        yield from known.values()

    def get_search_space(self) -> list[list[int]]:
        return [list(choice.values) for choice in self.choices]

    def config_of(self, values: Mapping[str, int]) -> list[int]:
        return [values.get(choice.name, choice.values[0]) for choice in self.choices]

    def values_of(self, config: Sequence[int]) -> dict[str, int]:
        if len(config) != len(self.choices):
            msg = f"A config has {len(config)} kernel sizes, but this super-network has {len(self.choices)} kernels."
            raise SubnetError(msg)
        return self._elastic({choice.name: size for choice, size in zip(self.choices, config, strict=True)})


class DepthHandler(DimensionHandler):
    """
    Depth: a list of the numbers of all blocks that are skipped, of each chain the last ones.

    Blocks have the order of the config's `skipped_blocks`, if it has them, or that of the graph. In a search, depth is
    one variable: the index in a list of all combinations. If that would be too long, each chain has a variable.
    """

    dimension = ElasticityDim.DEPTH

    def __init__(self, supernet: Supernet, rng: np.random.Generator) -> None:
        super().__init__(supernet, rng)
        graph = supernet.graph
        found = {name: blocks for part in supernet.elasticities for name, blocks in part.blocks.items()}
        ends = {choice.name: [graph.ops[one.ops[-1]].name for one in found[choice.name]] for choice in self.choices}
        given = supernet.config.depth.skipped_blocks
        order = [end for names in ends.values() for end in names] if given is None else [last for _, last in given]
        self._blocks = {name: [order.index(end) for end in names] for name, names in ends.items()}

    @property
    def depth_indicator(self) -> int:
        """How many blocks of each chain may be skipped at most."""
        return self._most_open - 1

    @depth_indicator.setter
    def depth_indicator(self, count: int) -> None:
        if count < 0:
            msg = f"`depth_indicator` must be the number of blocks that may be skipped, at least 0, but got {count}."
            raise SubnetError(msg)
        self._open(count + 1)

    def get_search_space(self) -> list[list[int]]:
        if self._size > _MOST_DEPTHS:
            msg = (
                f"NNCF 2's form of depth is a list of all combinations, of which there are {self._size} here; use the "
                "choices of `supernet.space` instead."
            )
            raise SubnetError(msg)
        return [list(config) for config in self._numbered()]

    def config_of(self, values: Mapping[str, int]) -> list[int]:
        return sorted(number for name, blocks in self._blocks.items() for number in blocks[values[name] :])

    def values_of(self, config: Sequence[int]) -> dict[str, int]:
        unknown = set(config).difference(*self._blocks.values())
        if unknown:
            count = sum(map(len, self._blocks.values()))
            msg = f"A skipped block must be a number below {count}, but got {sorted(unknown, key=str)}."
            raise SubnetError(msg)
        return {name: _running(blocks, config) for name, blocks in self._blocks.items()}

    def variables(self) -> list[int]:
        return super().variables() if self._size > _MOST_DEPTHS else [self._size]

    def config_at(self, indices: Sequence[int]) -> Any:
        if self._size > _MOST_DEPTHS:
            return super().config_at(indices)
        (index,) = indices
        return self.get_search_space()[index]

    def indices_of(self, values: Mapping[str, int]) -> list[int]:
        if self._size > _MOST_DEPTHS:
            return super().indices_of(values)
        return [self._numbered()[tuple(self.config_of(values))]]

    @property
    def _size(self) -> int:
        return math.prod(len(choice.values) for choice in self.choices)

    def _numbered(self) -> dict[tuple[int, ...], int]:
        return _all_skipped(tuple((tuple(self._blocks[choice.name]), choice.values) for choice in self.choices))


@lru_cache(maxsize=4)
def _all_skipped(chains: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]) -> dict[tuple[int, ...], int]:
    """
    Returns all combinations of skipped blocks and their numbers: fewer blocks first, and none last, as in NNCF 2.

    :param chains: For each chain, the numbers of its blocks, and how many of them may run.
    """
    tails = [[blocks[run:] for run in values] for blocks, values in chains]
    every = (tuple(sorted(itertools.chain(*skipped))) for skipped in itertools.product(*tails))
    ordered = sorted(every, key=lambda skipped: (not skipped, len(skipped), skipped))
    return {skipped: number for number, skipped in enumerate(ordered)}


def _has_weight(graph: ModelGraph, op: Op) -> bool:
    """Whether an operation is a layer with a weight of inputs and outputs, such as a convolution."""
    return any(graph.values[value].is_constant and len(graph.values[value].shape) > 1 for value in op.tensors)


def _running(blocks: Sequence[int], skipped: Sequence[int]) -> int:
    """Returns how many blocks of a chain run: only its last ones may be skipped, as in NNCF 2."""
    run = len(blocks)
    while run and blocks[run - 1] in skipped:
        run -= 1
    return run
