"""What of the model is elastic: the ``bootstrapNAS.training.elasticity`` block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from bootstrapnas_ext.config.rules import Dimensions, FormerName, PositiveInt, Rule, Violation

Multipliers = Annotated[
    tuple[Annotated[float, Rule("exclusiveMinimum", 0), Rule("maximum", 1)], ...],
    Rule("minItems", 1),
    Rule("uniqueItems", True),
]
Block = tuple[str, str]


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
    :param external_importance_path: File with a dictionary of layer names to importance tensors, for the importance
        "external" only.
    """

    width_multipliers: Multipliers | None = None
    width_step: PositiveInt | None = None
    min_width: Annotated[PositiveInt | None, FormerName("min_out_channels")] = None
    max_num_widths: PositiveInt | None = None
    divisor: PositiveInt = 8
    filter_importance: Literal["L1", "L2", "geometric_median", "external"] = "L1"
    external_importance_path: str | None = None

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if self.width_multipliers is not None and 1 not in self.width_multipliers:
            got = list(self.width_multipliers)
            yield Violation(("width_multipliers",), f"must contain 1, the given model's own width, but got {got}")
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
        which runs, and the last one of the block. Found automatically if not given.
    :param min_block_size: Blocks with fewer operations are not found automatically.
    :param max_block_size: Blocks with more operations are not found automatically.
    """

    mode: Literal["auto", "independent", "manual"] = "auto"
    skipped_blocks: Annotated[tuple[Block, ...] | None, Rule("minItems", 1), Rule("uniqueItems", True)] = None
    min_block_size: PositiveInt = 5
    max_block_size: PositiveInt = 50

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
    """

    max_num_kernels: PositiveInt | None = None
    min_kernel_size: PositiveInt = 1
    transformation_matrices: bool = True


@dataclass(frozen=True)
class ElasticityConfig:
    """
    What of the model is elastic.

    :param available_elasticity_dims: Elastic dimensions that the super-network has.
    :param width: How many output channels a layer may have.
    :param depth: Which blocks may be skipped.
    :param kernel: Which sizes the kernel of a convolution may have.
    """

    available_elasticity_dims: Dimensions = ("width", "depth", "kernel")
    width: WidthConfig = field(default_factory=WidthConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    kernel: KernelConfig = field(default_factory=KernelConfig)
