"""All elastic dimensions together, as NNCF 2's ``multi_elasticity_handler``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bootstrapnas_ext.compat.nncf2.dimensions import (
    DepthHandler,
    DimensionHandler,
    ElasticityDim,
    KernelHandler,
    Proposer,
    WidthHandler,
)
from bootstrapnas_ext.errors import SubnetError
from bootstrapnas_ext.space import SearchSpace, Subnet
from bootstrapnas_ext.supernet import Supernet

SubnetConfig = OrderedDict[ElasticityDim, Any]
"""A subnet in NNCF 2's form."""

# In the order in which NNCF 2 activated them, which is that of its search variables, too.
_HANDLERS: tuple[type[DimensionHandler], ...] = (WidthHandler, KernelHandler, DepthHandler)


class MultiElasticityHandler(Proposer):
    """
    Says which subnet the model runs.

    :param supernet: The super-network.
    :param seed: Of random subnets.
    """

    def __init__(self, supernet: Supernet, seed: int) -> None:
        self.supernet = supernet
        rng = np.random.default_rng(seed)
        available = supernet.config.available_elasticity_dims
        self._handlers = {
            handler.dimension: handler(supernet, rng) for handler in _HANDLERS if handler.dimension.value in available
        }
        self._enabled = dict.fromkeys(self._handlers, True)

    @property
    def space(self) -> SearchSpace:
        """The subnets that could be proposed with all dimensions enabled."""
        opened = {choice.name: choice for handler in self._handlers.values() for choice in handler.opened}
        return SearchSpace(tuple(opened.get(choice.name, choice) for choice in self.supernet.space.choices))

    def open(self, dims: Sequence[str], space: SearchSpace) -> None:
        """
        Restricts what is proposed to what a stage of training opens.

        :param dims: Names of the dimensions that may change; what is open of the others stays.
        :param space: The subnets of the stage.
        """
        self._enabled = {dim: dim.value in dims for dim in self._enabled}
        for handler in self._active.values():
            handler.space = space

    @property
    def enabled_space(self) -> SearchSpace:
        """The subnets that may be proposed now: what no enabled dimension may change stays as it is active."""
        enabled = {dim.value for dim in self._active}
        return SearchSpace(
            tuple(
                choice if choice.dimension in enabled else replace(choice, values=(self.supernet.active[choice.name],))
                for choice in self.space.choices
            )
        )

    def get_state(self) -> dict[str, Any]:
        """Returns which dimensions and which values of each choice are open, as JSON can hold it."""
        return {
            "dims": [dim.value for dim in self._active],
            "open": {choice.name: len(choice.values) for choice in self.space.choices},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """
        Restores what :meth:`get_state` returned.

        :param state: Of a super-network with the same choices.
        """
        choices = (replace(one, values=one.values[: state["open"][one.name]]) for one in self.supernet.space.choices)
        space = SearchSpace(tuple(choices))
        self.open([dim.value for dim in self._handlers], space)
        self.open(state["dims"], space)

    @property
    def width_handler(self) -> DimensionHandler | None:
        """Widths, ``None`` if they are not elastic."""
        return self._handlers.get(ElasticityDim.WIDTH)

    @property
    def kernel_handler(self) -> DimensionHandler | None:
        """Kernel sizes, ``None`` if they are not elastic."""
        return self._handlers.get(ElasticityDim.KERNEL)

    @property
    def depth_handler(self) -> DimensionHandler | None:
        """Blocks, ``None`` if none may be skipped."""
        return self._handlers.get(ElasticityDim.DEPTH)

    @property
    def width_search_space(self) -> Any:
        """Group of channels to its widths."""
        return self._handlers[ElasticityDim.WIDTH].get_search_space()

    @property
    def kernel_search_space(self) -> Any:
        """Sizes of each kernel."""
        return self._handlers[ElasticityDim.KERNEL].get_search_space()

    @property
    def depth_search_space(self) -> Any:
        """Lists of skipped blocks."""
        return self._handlers[ElasticityDim.DEPTH].get_search_space()

    def get_available_elasticity_dims(self) -> list[ElasticityDim]:
        """Returns the dimensions that the config made elastic."""
        return list(self._handlers)

    def get_search_space(self) -> dict[str, Any]:
        """Returns the values of all variables by the name of the dimension."""
        return {dim.value: handler.get_search_space() for dim, handler in self._active.items()}

    def get_active_config(self) -> SubnetConfig:
        """Returns the subnet that the model runs now."""
        return self._config(lambda handler: handler.get_active_config())

    def get_random_config(self) -> SubnetConfig:
        """Returns a random subnet."""
        return self._config(lambda handler: handler.get_random_config())

    def get_minimum_config(self) -> SubnetConfig:
        """Returns the smallest subnet."""
        return self._config(lambda handler: handler.get_minimum_config())

    def get_maximum_config(self) -> SubnetConfig:
        """Returns the largest subnet."""
        return self._config(lambda handler: handler.get_maximum_config())

    def activate_supernet(self) -> None:
        """Makes the model run as it was given."""
        self.supernet.set_active(self.supernet.space.maximum)

    def activate_subnet_for_config(self, config: Mapping[ElasticityDim, Any]) -> None:
        """
        Makes the model run a subnet.

        :param config: NNCF 2's form, by dimension, its name, or NNCF 2's own enumeration of them; dimensions that it
            does not have stay as they are.
        :raises SubnetError: If it is another super-network's.
        """
        self.supernet.set_active(self.subnet_of(config))

    def subnet_of(self, config: Mapping[ElasticityDim, Any]) -> Subnet:
        """
        Returns a subnet in today's form.

        :param config: NNCF 2's form; dimensions that it does not have are as active.
        :raises SubnetError: If it is another super-network's.
        """
        values = dict(self.supernet.active)
        for dim, part in config.items():
            values |= self._handlers[self._known(dim)].values_of(part)
        return self.supernet.space.validate(values)

    def config_of(self, subnet: Mapping[str, int]) -> SubnetConfig:
        """
        Returns a subnet in NNCF 2's form.

        :param subnet: A subnet of the space.
        """
        return self._config(lambda handler: handler.config_of(subnet))

    def enable_all(self) -> None:
        """Lets all dimensions change."""
        self._enabled = dict.fromkeys(self._enabled, True)

    def disable_all(self) -> None:
        """Lets all dimensions stay as they are."""
        self._enabled = dict.fromkeys(self._enabled, False)

    def enable_elasticity(self, dim: ElasticityDim) -> None:
        """
        Lets a dimension change.

        :param dim: The dimension.
        :raises SubnetError: If it is not elastic.
        """
        self._enabled[self._known(dim)] = True

    def disable_elasticity(self, dim: ElasticityDim) -> None:
        """
        Lets a dimension stay as it is.

        :param dim: The dimension.
        :raises SubnetError: If it is not elastic.
        """
        self._enabled[self._known(dim)] = False

    def count_flops_and_weights_for_active_subnet(self) -> tuple[int, int]:
        """Returns twice the multiply-accumulates for one sample, and the number of weights, without running it."""
        cost = self.supernet.cost(self.supernet.active)
        return 2 * cost.macs // self.supernet.example.batch_size, cost.weights

    def get_design_vars_info(self) -> tuple[int, list[int]]:
        """Returns the number of variables of a search, and the largest index of each one's values."""
        counts = [count for handler in self._active.values() for count in handler.variables()]
        return len(counts), [count - 1 for count in counts]

    def get_config_from_pymoo(self, x: Sequence[int]) -> SubnetConfig:
        """
        Returns the subnet that a search algorithm proposes.

        :param x: The index of a value for each variable, in the order of :meth:`get_design_vars_info`.
        :raises SubnetError: If it is not one index for each variable.
        """
        result: SubnetConfig = OrderedDict()
        rest = [int(index) for index in x]
        count, largest = self.get_design_vars_info()
        if len(rest) != count or any(not 0 <= one <= last for one, last in zip(rest, largest, strict=True)):
            msg = f"A subnet of a search must be {count} indices from 0 to at most {largest}, but got {rest}."
            raise SubnetError(msg)
        for dim, handler in self._active.items():
            count = len(handler.variables())
            result[dim], rest = handler.config_at(rest[:count]), rest[count:]
        return result

    def variables_of(self, subnet: Mapping[str, int]) -> tuple[int, ...]:
        """
        Returns the index of a value for each variable, the inverse of :meth:`get_config_from_pymoo`.

        :param subnet: A subnet of :attr:`enabled_space`.
        """
        return tuple(index for handler in self._active.values() for index in handler.indices_of(subnet))

    def _known(self, dim: Any) -> ElasticityDim:
        """Returns a dimension that is elastic here, from its name or an enumeration with that value as well."""
        name = getattr(dim, "value", dim)
        known = {one.value: one for one in self._handlers}
        if name not in known:
            msg = f"A dimension must be one of the elastic ones, {', '.join(map(repr, known))}, but got {dim!r}."
            raise SubnetError(msg)
        return known[name]

    @property
    def _active(self) -> dict[ElasticityDim, DimensionHandler]:
        return {dim: handler for dim, handler in self._handlers.items() if self._enabled[dim]}

    def _config(self, of: Callable[[DimensionHandler], Any]) -> SubnetConfig:
        return OrderedDict((dim, of(handler)) for dim, handler in self._active.items())
