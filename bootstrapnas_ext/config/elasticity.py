"""What of the model is elastic: the ``bootstrapNAS.training.elasticity`` block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from bootstrapnas_ext.config.rules import (
    Dimensions,
    PositiveInt,
    Rule,
    Scope,
    Scopes,
    SomeScopes,
    Violation,
)

Multipliers = Annotated[
    tuple[Annotated[float, Rule("exclusiveMinimum", 0), Rule("maximum", 1)], ...],
    Rule("minItems", 1),
    Rule("uniqueItems", True),
]
Widths = Annotated[tuple[PositiveInt, ...], Rule("minItems", 1), Rule("uniqueItems", True)]
ScopeGroup = Annotated[tuple[Scope, ...], Rule("minItems", 1), Rule("uniqueItems", True)]
Block = tuple[str, str]


def _without_one(multipliers: Multipliers | None) -> Iterator[Violation]:
    if multipliers is not None and 1 not in multipliers:
        got = list(multipliers)
        yield Violation(("width_multipliers",), f"must contain 1, the given model's own width, but got {got}")


def _beside(key: str, values: object, others: Mapping[str, object]) -> Iterator[Violation]:
    given = [name for name, value in others.items() if value is not None]
    if values is not None and given:
        yield Violation((key,), f"says all; it must not be given together with {given}; remove one of them")


@dataclass(frozen=True)
class WidthOverride:
    """
    Other widths for some layers. What it does not give is as in `width`; `width_step` without `width_multipliers`
    counts even where `width` has multipliers.

    :param widths: The widths themselves, in channels of the first layer that makes them, the layer's own among them;
        nothing else beside it.
    :param width_multipliers: As in `width`.
    :param width_step: As in `width`.
    :param min_width: As in `width`.
    :param max_num_widths: As in `width`.
    :param divisor: As in `width`.
    """

    widths: Widths | None = None
    width_multipliers: Multipliers | None = None
    width_step: PositiveInt | None = None
    min_width: PositiveInt | None = None
    max_num_widths: PositiveInt | None = None
    divisor: PositiveInt | None = None

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        yield from _without_one(self.width_multipliers)
        others = {key: value for key, value in vars(self).items() if key != "widths"}
        yield from _beside("widths", self.widths, others)


@dataclass(frozen=True)
class KernelOverride:
    """
    Other kernel sizes for some layers. What it does not give is as in `kernel`.

    :param kernel_sizes: The sizes themselves, the layer's own among them; nothing else beside it. A kernel that is not
        square is named by its largest extent.
    :param max_num_kernels: As in `kernel`.
    :param min_kernel_size: As in `kernel`.
    """

    kernel_sizes: Widths | None = None
    max_num_kernels: PositiveInt | None = None
    min_kernel_size: PositiveInt | None = None

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        others = {"max_num_kernels": self.max_num_kernels, "min_kernel_size": self.min_kernel_size}
        yield from _beside("kernel_sizes", self.kernel_sizes, others)


@dataclass(frozen=True)
class WidthConfig:
    """
    How many output channels a layer may have.

    Multipliers win over steps. With neither, widths adapt to the layer: 1, 0.75, 0.5 and 0.25 of it in multiples of
    ``divisor``, or of a smaller number where the layer has fewer than four times as many channels.

    :param width_multipliers: Widths as parts of the layer's own, each rounded down to a multiple of `divisor`; must
        contain 1, in any order. Wins over `width_step`.
    :param width_step: Widths go from the layer's own down in steps of this many channels. 32 if `min_width` is given
        and neither this nor `width_multipliers` is.
    :param min_width: No width is below this many channels; a layer that has no more stays as it is. 32 if `width_step`
        is given and this is not.
    :param max_num_widths: How many widths a layer may have at most, counted from the largest; no limit if not given.
    :param divisor: Widths that come from multipliers are multiples of this.
    :param filter_importance: By what channels are sorted before the small widths keep the first: L1 or L2 norm of their
        weights, distance from the geometric median, or values from `external_importance_path`.
    :param external_importance_path: File with a dictionary of layer names to importance tensors, one value for each
        channel or for each weight, for the importance "external" only.
    :param overwrite_groups: The only layers with elastic widths: lists of scopes, each for layers that share one group
        of channels; other layers of the group follow.
    :param overwrite_groups_widths: The widths of each of `overwrite_groups`, in channels of the group's first layer,
        the layer's own among them; as for other layers if not given.
    :param overrides: Other settings for some layers, by their scope. Settings of one group of channels must agree.
    :param ignored_scopes: As in `elasticity`, for widths only and in addition to it.
    :param target_scopes: As in `elasticity`, for widths only and in addition to it.
    """

    width_multipliers: Multipliers | None = None
    width_step: PositiveInt | None = None
    min_width: PositiveInt | None = None
    max_num_widths: PositiveInt | None = None
    divisor: PositiveInt = 8
    filter_importance: Literal["L1", "L2", "geometric_median", "external"] = "L1"
    external_importance_path: str | None = None
    overwrite_groups: Annotated[tuple[ScopeGroup, ...] | None, Rule("minItems", 1)] = None
    overwrite_groups_widths: Annotated[tuple[Widths, ...] | None, Rule("minItems", 1)] = None
    overrides: Mapping[Scope, WidthOverride] = field(default_factory=dict)
    ignored_scopes: Scopes = None
    target_scopes: SomeScopes = None

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        yield from _without_one(self.width_multipliers)
        groups, widths = self.overwrite_groups or (), self.overwrite_groups_widths
        if widths is not None and len(widths) != len(groups):
            yield Violation(
                ("overwrite_groups_widths",),
                f"must have one list of widths for each of `overwrite_groups`, but got {len(widths)} for {len(groups)}",
            )
        external = self.filter_importance == "external"
        if external and self.external_importance_path is None:
            yield Violation(
                ("filter_importance",), "'external' needs `external_importance_path`, which is not given; give the file"
            )
        if not external and self.external_importance_path is not None:
            yield Violation(
                ("external_importance_path",),
                f"is used with the filter importance 'external' only, but `filter_importance` is "
                f"{self.filter_importance!r}",
            )


@dataclass(frozen=True)
class DepthConfig:
    """
    Which blocks may be skipped.

    :param mode: "auto": blocks that follow one another are one choice, how many of them run. "independent": every block
        is a choice of its own. "manual": as "auto", with the blocks of `skipped_blocks`.
    :param skipped_blocks: Blocks that may be skipped, each as the names of two operations: the one before the block,
        which runs, and the last one of the block; none if empty. Found automatically if not given.
    :param min_block_size: Blocks with fewer operations are not found automatically.
    :param max_block_size: Blocks with more operations are not found automatically.
    :param ignored_scopes: As in `elasticity`, for blocks only and in addition to it.
    :param target_scopes: As in `elasticity`, for blocks only and in addition to it.
    """

    mode: Literal["auto", "independent", "manual"] = "auto"
    skipped_blocks: Annotated[tuple[Block, ...] | None, Rule("uniqueItems", True)] = None
    min_block_size: PositiveInt = 5
    max_block_size: PositiveInt = 100
    ignored_scopes: Scopes = None
    target_scopes: SomeScopes = None

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if self.mode == "manual" and self.skipped_blocks is None:
            yield Violation(
                ("mode",), "'manual' needs `skipped_blocks`, which is not given; give the blocks or use 'auto'"
            )
        if self.min_block_size > self.max_block_size:
            yield Violation(
                ("min_block_size",),
                f"`min_block_size <= max_block_size` must hold, but got (min_block_size={self.min_block_size}, "
                f"max_block_size={self.max_block_size})",
            )
        for index, (before, last) in enumerate(self.skipped_blocks or ()):
            if before == last:
                yield Violation(("skipped_blocks", index), f"must be two different operations, but both are {before!r}")


@dataclass(frozen=True)
class KernelConfig:
    """
    Which sizes the kernel of a convolution may have: the model's own, and smaller ones in steps of two.

    :param max_num_kernels: How many sizes a layer may have at most, counted from the largest; no limit if not given.
    :param min_kernel_size: No kernel is made smaller than this. NNCF 2.x stopped at 3.
    :param transformation_matrices: Learn a matrix that makes the smaller kernel from the centre of the next larger one,
        as Once-for-all does (https://arxiv.org/abs/1908.09791); without, the centre is used as it is.
    :param overrides: Other settings for some layers, by their scope. Settings of one layer must agree.
    :param ignored_scopes: As in `elasticity`, for kernels only and in addition to it.
    :param target_scopes: As in `elasticity`, for kernels only and in addition to it.
    """

    max_num_kernels: PositiveInt | None = None
    min_kernel_size: PositiveInt = 1
    transformation_matrices: bool = True
    overrides: Mapping[Scope, KernelOverride] = field(default_factory=dict)
    ignored_scopes: Scopes = None
    target_scopes: SomeScopes = None


@dataclass(frozen=True)
class ElasticityConfig:
    """
    What of the model is elastic.

    :param available_elasticity_dims: Elastic dimensions that the super-network has.
    :param width: How many output channels a layer may have.
    :param depth: Which blocks may be skipped.
    :param kernel: Which sizes the kernel of a convolution may have.
    :param norm_statistics: Running statistics of subnets. "maximum": a subnet begins with the maximum's, and what it
        counts is its own and gone when another one is activated. "per_width": all subnets but the maximum share
        statistics that last, one set for each width of each norm, as slimmable networks have
        (https://arxiv.org/abs/1812.08928).
    :param ignored_scopes: What stays as it is: a group of channels, a kernel or a block with any layer that a scope
        names. A scope is the path of a module (`layer1.0`), which stands for all below it, the name of an operation
        (`layer1/0/conv1/conv2d/0`), `{re}` and a regular expression that is found in either, or `{type}`
        and a kind of operation (`{type}conv2d`).
    :param target_scopes: What may be elastic, in the same words; everything that is not ignored if not given.
    """

    available_elasticity_dims: Dimensions = ("width", "depth", "kernel")
    width: WidthConfig = field(default_factory=WidthConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    kernel: KernelConfig = field(default_factory=KernelConfig)
    norm_statistics: Literal["maximum", "per_width"] = "maximum"
    ignored_scopes: Scopes = None
    target_scopes: SomeScopes = None
