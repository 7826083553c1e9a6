"""Which widths a group of channels may have: what the config says about it, and the numbers that follow."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from bootstrapnas_ext.config import ElasticityConfig, WidthConfig, WidthOverride
from bootstrapnas_ext.elasticity.base import layer_name
from bootstrapnas_ext.elasticity.scopes import Exclusion, Override, agreed, find_overrides, json_path, named_ops
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.graph import Propagation, Segment

_ADAPTIVE = (1.0, 0.75, 0.5, 0.25)
_STEP = 32


class GroupRules:
    """
    What the config says about each group of channels.

    :param propagation: Layouts of the model.
    :param config: Its ``width`` and its scopes are used.
    :raises ConfigError: If it names what the model does not have, or layers that do not share a group.
    """

    def __init__(self, propagation: Propagation, config: ElasticityConfig) -> None:
        self._propagation = propagation
        self._config = config.width
        self._exclusion = Exclusion(propagation.graph, config, "width")
        self._makers: dict[int, list[str]] = {}
        for layer in propagation.layers:
            for group in self._groups(layer.axis):
                self._makers.setdefault(group, []).append(layer.op.name)
        layers = {layer.op.name for layer in propagation.layers}
        self._overrides = find_overrides(propagation.graph, config.width.overrides, "width", layers)
        self._overwritten = self._overwritten_groups()

    def values(self, segment: Segment, owner: str, op: str) -> tuple[tuple[int, ...], str]:
        """
        Returns how many members of a group may be active, largest first, and why there are no more.

        :param segment: The group, as the first layer that makes it has it.
        :param owner: Name of that layer.
        :param op: Its operation.
        :raises ConfigError: If the config gives the group widths that it cannot have, or contradicts itself.
        """
        group, repeat = segment
        size = self._propagation.solver.size(group)
        makers = self._makers.get(group, [op])
        reason = self._exclusion.reason(makers)
        if reason is None and self._config.overwrite_groups is not None and group not in self._overwritten:
            reason = "not among `overwrite_groups`"
        if reason is not None:
            return (size,), reason
        override = agreed([*self._overrides, *self._overwritten.get(group, ())], makers, owner)
        return (
            _overridden_values(size, repeat, self._config, override, owner),
            f"the width settings leave no second width for {size * repeat} channels",
        )

    def _overwritten_groups(self) -> dict[int, list[Override[WidthOverride]]]:
        """Returns the groups that alone are elastic, with the widths that the config gives for each, if it does."""
        found: dict[int, list[Override[WidthOverride]]] = {}
        widths = self._config.overwrite_groups_widths
        for index, scopes in enumerate(self._config.overwrite_groups or ()):
            where = json_path("width", "overwrite_groups", index)
            group = self._shared_group(scopes, where)
            makers = self._makers[group]
            reason = self._propagation.solver.reason((Segment(group),)) or self._exclusion.reason(makers)
            if reason is not None:
                msg = f"{where}: must be layers whose width can be elastic, but that of {list(scopes)} is not: {reason}"
                raise ConfigError(msg)
            if group in found:
                msg = f"{where}: must be other channels than those of the lists before, but got {list(scopes)}"
                raise ConfigError(msg)
            found[group] = []
            if widths is not None:
                path = json_path("width", "overwrite_groups_widths", index)
                found[group].append(Override(path, frozenset(makers), WidthOverride(widths=widths[index])))
        return found

    def _shared_group(self, scopes: Collection[str], where: str) -> int:
        """Returns the one group that all layers make which some scopes name."""
        graph = self._propagation.graph
        ops = {op for scope in scopes for op in named_ops(graph, scope, where)}
        layers = [layer for layer in self._propagation.layers if layer.op.name in ops]
        shared = set.intersection(*(self._groups(layer.axis) for layer in layers)) if layers else set()
        if len(shared) != 1:
            names = [layer_name(graph, layer.op.name) for layer in layers]
            msg = (
                f"{where}: must name layers that share exactly one group of channels, but got {list(scopes)}, that is "
                f"the layers {names}, which share {len(shared)}"
            )
            raise ConfigError(msg)
        return shared.pop()

    def _groups(self, axis: Sequence[Segment]) -> set[int]:
        return {segment.group for segment in self._propagation.solver.resolve(tuple(axis))}


def _overridden_values(
    size: int, repeat: int, config: WidthConfig, override: Override[WidthOverride] | None, owner: str
) -> tuple[int, ...]:
    if override is None:
        return width_values(size, repeat, config)
    wanted = override.settings.widths
    if wanted is None:
        given = {key: value for key, value in vars(override.settings).items() if value is not None}
        if "width_step" in given:
            given.setdefault("width_multipliers", None)  # else those of all layers would win
        return width_values(size, repeat, replace(config, **given))
    full = size * repeat
    wrong = [width for width in wanted if width > full or width % repeat]
    if wrong or full not in wanted:
        members = f", that is {size} x {repeat} channels" if repeat > 1 else ""
        msg = (
            f"{override.where}: widths must contain {full}, the width of {owner!r}{members}, and only multiples "
            f"of {repeat} up to it, but got {list(wanted)}"
        )
        raise ConfigError(msg)
    return tuple(sorted((width // repeat for width in wanted), reverse=True))


def width_values(size: int, repeat: int, config: WidthConfig) -> tuple[int, ...]:
    """
    Returns how many members of a group may be active, largest first.

    .. code-block:: python

        >>> width_values(64, 1, WidthConfig()), width_values(16, 1, WidthConfig())
        ((64, 48, 32, 16), (16, 12, 8, 4))

    :param size: All members of the group.
    :param repeat: Channels of each member: 1, or the channels of one group of a grouped convolution.
    :param config: Multipliers or steps.
    """
    channels = size * repeat
    if config.width_multipliers is None and (config.width_step is not None or config.min_width is not None):
        step = config.width_step or _STEP
        lowest = config.min_width or _STEP
        wanted: Sequence[int] = range(channels, lowest - 1, -step)
    else:
        divisor = config.divisor
        while divisor > 1 and channels < 4 * divisor:
            divisor //= 2
        step = math.lcm(divisor, repeat)  # whole members, as many as make a multiple
        multipliers = sorted(config.width_multipliers or _ADAPTIVE, reverse=True)
        wanted = [max(int(channels * part) // step, 1) * step if part < 1 else channels for part in multipliers]
        wanted = [width for width in wanted if (config.min_width or 1) <= width <= channels]
    members = {width // repeat for width in wanted if width % repeat == 0 and width > 0} | {size}
    return tuple(sorted(members, reverse=True)[: config.max_num_widths])
