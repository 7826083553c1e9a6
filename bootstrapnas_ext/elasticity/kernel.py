"""Elastic kernel: a convolution may use the centre of its kernel.

Optionally the smaller kernel is the centre of the next larger one times a learned matrix, which starts as the identity:
Once-for-all (Cai et al., 2020, https://arxiv.org/abs/1908.09791), section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bootstrapnas_ext.config import ElasticityConfig, KernelConfig, KernelOverride
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
from bootstrapnas_ext.elasticity.scopes import Exclusion, Override, agreed, find_overrides
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.graph import Layer, Propagation
from bootstrapnas_ext.space import Choice, Subnet


@ELASTICITIES.register("kernel")
def elastic_kernel(
    propagation: Propagation, cell: ActiveSubnet, config: ElasticityConfig, refused: Refused
) -> Elasticity:
    """
    Makes a choice of each convolution weight whose kernel can be smaller.

    :param propagation: Layouts of the model.
    :param cell: Where hooks read the active subnet.
    :param config: Its ``kernel`` and its scopes are used.
    :param refused: Choices not to make, with the reasons.
    """
    by_weight: dict[int, list[Layer]] = {}
    for layer in propagation.layers:
        # A pointwise convolution has a kernel, but nothing to crop.
        if layer.dilation is not None and math.prod(propagation.shape(layer.weight)[2:]) > 1:
            by_weight.setdefault(layer.weight, []).append(layer)
    exclusion = Exclusion(propagation.graph, config, "kernel")
    croppable = {layer.op.name for layers in by_weight.values() for layer in layers}
    overrides = find_overrides(propagation.graph, config.kernel.overrides, "kernel", croppable)
    choices: list[Choice] = []
    hooks: list[Hook] = []
    static: list[StaticLayer] = []
    crops: dict[int, CropHook] = {}
    for weight, layers in by_weight.items():
        kernel = propagation.shape(weight)[2:]
        name = layer_name(propagation.graph, layers[0].op.name)
        ops = {layer.op.name for layer in layers}
        if not propagation.graph.values[weight].is_constant:
            static.append(StaticLayer(name, "its weight is computed from others"))
            continue
        excluded = refused.get(f"kernel:{name}") or exclusion.reason(ops)
        if excluded is not None:
            static.append(StaticLayer(name, excluded))
            continue
        sizes, reason = _sizes_of(name, layers, kernel, config.kernel, agreed(overrides, ops, name))
        if len(sizes) == 1:
            static.append(StaticLayer(name, reason))
            continue
        choice = Choice(f"kernel:{name}", sizes, "kernel")
        choices.append(choice)
        crop = CropHook(cell, choice, kernel, config.kernel.transformation_matrices)
        crops[weight] = crop
        paddings: dict[tuple[tuple[int, Any], ...], PaddingHook] = {}  # one for all layers that pad alike
        for layer in layers:
            (weight_port,) = (port for port, value in layer.op.tensor_ports if value == weight)
            hooks.append(Hook(layer.op.name, weight_port, None, crop))
            port = layer.op.port(4, "padding")
            if port is not None:
                padding = {size: _padding(layer, kernel, cropped(kernel, size)) for size in sizes[1:]}
                module = paddings.setdefault(tuple(padding.items()), PaddingHook(cell, choice.name, padding))
                hooks.append(Hook(layer.op.name, port, "padding", module))

    def resize(value: int, shape: Shape, subnet: Mapping[str, int]) -> Shape:
        if value not in crops:
            return shape
        return (*shape[:2], *crops[value].extents[subnet[crops[value].choice]])

    return Elasticity("kernel", tuple(choices), tuple(hooks), resize=resize, static=tuple(static))


def cropped(kernel: Sequence[int], size: int) -> tuple[int, ...]:
    """
    Returns the kernel's extents when the largest is that size.

    Every extent stays odd or even as it is, so that the centre is one, and at least 1 or 2.

    .. code-block:: python

        >>> cropped((7, 1), 3), cropped((5, 4), 3)
        ((3, 1), (3, 2))

    :param kernel: Extents of the full kernel.
    :param size: At least 1.
    """
    return tuple(extent if extent <= size else max(size - (extent - size) % 2, 2 - extent % 2) for extent in kernel)


def _sizes_of(
    name: str,
    layers: Sequence[Layer],
    kernel: tuple[int, ...],
    config: KernelConfig,
    override: Override[KernelOverride] | None,
) -> tuple[tuple[int, ...], str]:
    """Returns possible sizes, largest first, and why there are no more."""
    if override is None:
        return _sizes(layers, kernel, config)
    wanted = override.settings.kernel_sizes
    if wanted is None:
        given = {key: value for key, value in vars(override.settings).items() if value is not None}
        return _sizes(layers, kernel, replace(config, **given))
    possible, _ = _sizes(layers, kernel, KernelConfig())
    if max(kernel) not in wanted or not set(wanted) <= set(possible):
        msg = (
            f"{override.where}.kernel_sizes: must contain {max(kernel)}, the size of {name!r}, and no other than "
            f"{list(possible)}, which keep the size of its output, but got {list(wanted)}"
        )
        raise ConfigError(msg)
    return tuple(sorted(wanted, reverse=True)), "`kernel_sizes` has no smaller one"


def _sizes(layers: Sequence[Layer], kernel: tuple[int, ...], config: KernelConfig) -> tuple[tuple[int, ...], str]:
    """Returns possible sizes, largest first, and why there are no more."""
    sizes = [max(kernel)]
    reason = f"no smaller kernel of at least {config.min_kernel_size}"
    for size in range(max(kernel) - 2, 0, -2):
        if config.max_num_kernels is not None and len(sizes) == config.max_num_kernels:
            return tuple(sizes), f"at most {config.max_num_kernels} kernel sizes are allowed"
        if size < config.min_kernel_size:
            break
        if any(_padding(layer, kernel, cropped(kernel, size)) is None for layer in layers):
            reason = f"a kernel of {size} would need less padding than 0"
            break
        sizes.append(size)
    return tuple(sizes), reason


def _padding(layer: Layer, kernel: Sequence[int], smaller: Sequence[int]) -> Any:
    """Returns the padding argument that keeps the output's size, ``None`` if there is none."""
    padding = layer.op.argument(4, "padding", 0)
    if padding == "same":
        return padding
    amounts = _spread(0 if padding == "valid" else padding, len(kernel))
    assert layer.dilation is not None
    dilation = _spread(layer.dilation, len(kernel))
    less = [
        amount - step * (full - small) // 2
        for amount, step, full, small in zip(amounts, dilation, kernel, smaller, strict=True)
    ]
    return None if min(less) < 0 else tuple(less)


def _spread(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Returns one integer for each dimension of an argument that may be one for all."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values


class CropHook(PortHook):
    """
    Crops the last dimensions of a convolution's weight.

    :param cell: Where the active subnet is read.
    :param choice: The kernel's choice.
    :param kernel: Full extents.
    :param transform: Whether to learn a matrix from each size to the next smaller one. It has ``n x n`` items, n being
        the number of items of the smaller kernel, and is shared by all channels of the layer.
    """

    def __init__(self, cell: ActiveSubnet, choice: Choice, kernel: tuple[int, ...], transform: bool) -> None:
        super().__init__(cell)
        self.choice = choice.name
        self.extents = {size: cropped(kernel, size) for size in choice.values}
        self.matrices = nn.ParameterDict()
        if transform:
            for size in choice.values[1:]:
                self.matrices[str(size)] = nn.Parameter(torch.eye(math.prod(self.extents[size])))
        self._subnet: Subnet | None = None
        self._crops: tuple[_Crop, ...] = ()

    def forward(self, value: Tensor) -> Tensor:
        subnet = self.cell.subnet
        if subnet is not self._subnet:  # a subnet stays active for a forward at least, often for many
            self._crops, self._subnet = self._crops_to(subnet[self.choice]), subnet
        for crop in self._crops:
            for dim, start, length in crop.parts:
                value = value.narrow(dim, start, length)
            if crop.matrix is not None:
                value = _transformed(value, self.matrices[crop.matrix])
        return value

    def _crops_to(self, size: int) -> tuple[_Crop, ...]:
        """Returns the crops from the full kernel to a size, by way of the sizes between them if those have matrices."""
        sizes = list(self.extents)
        way = sizes[: sizes.index(size) + 1]
        way = way if self.matrices else [way[0], way[-1]]
        return tuple(
            _Crop(_parts(self.extents[larger], self.extents[smaller]), str(smaller) if self.matrices else None)
            for larger, smaller in pairwise(way)
            if larger != smaller
        )


class _Crop(NamedTuple):
    """
    One crop of a kernel.

    :param parts: Dimensions, and where in them the kernel's centre begins and how long it is.
    :param matrix: Name of the matrix that the centre is multiplied with; ``None`` for none.
    """

    parts: tuple[tuple[int, int, int], ...]
    matrix: str | None


def _parts(kernel: Sequence[int], extents: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    sizes = enumerate(zip(kernel, extents, strict=True), start=2)
    return tuple((dim, (full - extent) // 2, extent) for dim, (full, extent) in sizes if extent < full)


class PaddingHook(PortHook):
    """
    Takes from the padding what the kernel has become smaller, so that the output keeps its size.

    :param cell: Where the active subnet is read.
    :param choice: Name of the kernel's choice.
    :param paddings: Padding argument of each size but the full one.
    """

    def __init__(self, cell: ActiveSubnet, choice: str, paddings: dict[int, Any]) -> None:
        super().__init__(cell)
        self.choice = choice
        self.paddings = paddings

    def forward(self, value: Any) -> Any:
        return self.paddings.get(self.cell.subnet[self.choice], value)


def _transformed(centre: Tensor, matrix: Tensor) -> Tensor:
    """Returns a kernel times a matrix; a product of matrices of one item would take several times as long."""
    matrix = matrix.to(centre)
    return centre * matrix if matrix.numel() == 1 else (centre.flatten(2) @ matrix).view(centre.shape)
