"""Elastic kernels: a smaller kernel does what the full one does with zeros around its centre."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.config import ElasticityConfig, KernelConfig
from bootstrapnas_ext.elasticity.kernel import CropHook, cropped
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import Tied, build


def only_kernels(**options: Any) -> ElasticityConfig:
    return ElasticityConfig(available_elasticity_dims=("kernel",), kernel=KernelConfig(**options))


def supernet_of(conv: nn.Module, *size: int, **options: Any) -> Supernet:
    torch.manual_seed(0)
    example = ExampleInput((torch.randn(2, 4, *size),))
    return Supernet(nn.Sequential(conv), example, only_kernels(**options))


CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = {
    "square": (nn.Conv2d(4, 6, 7, padding=3), (9, 9), (7, 5, 3, 1)),
    "with stride": (nn.Conv2d(4, 6, 5, padding=2, stride=2), (9, 9), (5, 3, 1)),
    "tall": (nn.Conv2d(4, 6, (7, 1), padding=(3, 0)), (9, 9), (7, 5, 3, 1)),
    "wide and tall": (nn.Conv2d(4, 6, (3, 5), padding=(1, 2)), (9, 9), (5, 3, 1)),
    "even": (nn.Conv2d(4, 6, 4, stride=2, padding=1), (8, 8), (4, 2)),
    "even and odd": (nn.Conv2d(4, 6, (4, 5), stride=2, padding=2), (8, 8), (5, 3, 1)),
    "dilated": (nn.Conv2d(4, 6, 5, padding=4, dilation=2), (9, 9), (5, 3, 1)),
    "dilated by two numbers": (nn.Conv2d(4, 6, 3, padding=(1, 3), dilation=(1, 3)), (9, 9), (3, 1)),
    "depthwise": (nn.Conv2d(4, 4, 5, padding=2, groups=4), (9, 9), (5, 3, 1)),
    "same": (nn.Conv2d(4, 6, 5, padding="same"), (9, 9), (5, 3, 1)),
    "same and even": (nn.Conv2d(4, 6, 4, padding="same"), (9, 9), (4, 2)),
    "more padding than needed": (nn.Conv2d(4, 6, 3, padding=3), (9, 9), (3, 1)),
    "less padding than needed": (nn.Conv2d(4, 6, 7, padding=1), (9, 9), (7, 5)),
    "one dimension": (nn.Conv1d(4, 6, 5, padding=2), (9,), (5, 3, 1)),
    "three dimensions": (nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1)), (2, 5, 5), (3, 1)),
}


def zero_outside(weight: Tensor, extents: tuple[int, ...]) -> None:
    """Sets all but the centre of a kernel to zero."""
    mask = torch.zeros_like(weight)
    centre = mask
    for dim, extent in enumerate(extents, start=2):
        centre = centre.narrow(dim, (weight.shape[dim] - extent) // 2, extent)
    centre.fill_(1)
    weight.mul_(mask)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_small_kernel_is_the_centre_of_the_full_one(name: str, transform: bool) -> None:
    conv, size, values = CONVOLUTIONS[name]
    supernet = supernet_of(conv, *size, transformation_matrices=transform)
    (choice,) = supernet.space.choices
    assert (choice.name, choice.values) == ("kernel:0", values)
    x = torch.randn(3, 4, *size)
    for value in values[1:]:
        extents = cropped(tuple(conv.weight.shape[2:]), value)
        with torch.no_grad(), supernet.activate({"kernel:0": value}):
            small = supernet.model(x)
            zero_outside(conv.weight, extents)
        full = supernet.model(x)
        assert small.shape == full.shape
        assert torch.allclose(small, full, atol=1e-6)
        assert tuple(extract(supernet, {"kernel:0": value})[0].weight.shape[2:]) == extents


@pytest.mark.parametrize(
    ("kernel", "size", "expected"),
    [
        ((7, 1), 5, (5, 1)),
        ((7, 1), 1, (1, 1)),
        ((5, 4), 3, (3, 2)),
        ((5, 4), 1, (1, 2)),
        ((6,), 4, (4,)),
        ((3,), 5, (3,)),
    ],
)
def test_extents_stay_odd_or_even(kernel: tuple[int, ...], size: int, expected: tuple[int, ...]) -> None:
    assert cropped(kernel, size) == expected


@pytest.mark.parametrize(
    ("options", "values", "reason"),
    [
        ({"max_num_kernels": 2}, (7, 5), ""),
        ({"min_kernel_size": 3}, (7, 5, 3), ""),
        ({"max_num_kernels": 1}, None, "at most 1 kernel sizes are allowed"),
        ({"min_kernel_size": 6}, None, "no smaller kernel of at least 6"),
    ],
)
def test_sizes_follow_the_config(options: dict[str, int], values: tuple[int, ...] | None, reason: str) -> None:
    conv = nn.Conv2d(4, 6, 7, padding=3)
    if values is None:
        with pytest.raises(ModelError, match=f"kernel of 0: {reason}"):
            supernet_of(conv, 9, 9, **options)
    else:
        assert supernet_of(conv, 9, 9, **options).space.choices[0].values == values


@pytest.mark.parametrize("padding", [0, "valid", 1])
def test_a_kernel_without_enough_padding_stays(padding: int | str) -> None:
    conv = nn.Conv2d(4, 6, 5, padding=padding, dilation=2)
    with pytest.raises(ModelError, match="kernel of 0: a kernel of 3 would need less padding than 0"):
        supernet_of(conv, 9, 9)


def test_a_computed_weight_stays() -> None:
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3, padding=1))
    model = nn.Sequential(conv, nn.Conv2d(6, 6, 3, padding=1))
    supernet = Supernet(model, ExampleInput((torch.randn(1, 4, 8, 8),)), only_kernels())
    assert [choice.name for choice in supernet.space.choices] == ["kernel:1"]
    assert supernet.static_layers()["kernel"] == {"0": "its weight is computed from others"}


def crops(supernet: Supernet) -> list[CropHook]:
    return [module for module in supernet.model.modules() if isinstance(module, CropHook)]


def test_matrices_start_as_the_identity_and_learn() -> None:
    conv = nn.Conv2d(4, 6, 7, padding=3)
    supernet = supernet_of(conv, 9, 9)
    (crop,) = crops(supernet)
    assert {size: matrix.shape for size, matrix in crop.matrices.items()} == {"5": (25, 25), "3": (9, 9), "1": (1, 1)}
    assert all(torch.equal(matrix, torch.eye(len(matrix))) for matrix in crop.matrices.values())
    ids = {id(parameter) for parameter in supernet.parameters()}
    assert ids == {id(conv.weight), id(conv.bias), *map(id, crop.matrices.values())}
    with supernet.activate({"kernel:0": 3}):
        supernet.model(torch.randn(2, 4, 9, 9)).square().sum().backward()
    assert crop.matrices["5"].grad is not None
    assert crop.matrices["5"].grad.any()
    assert crop.matrices["3"].grad is not None
    assert crop.matrices["3"].grad.any()
    assert crop.matrices["1"].grad is None
    assert conv.weight.grad is not None
    assert conv.weight.grad[:, :, 1:6, 1:6].any()
    assert not conv.weight.grad[:, :, 0].any()


def test_matrices_make_each_size_from_the_next_larger_one() -> None:
    conv = nn.Conv2d(4, 6, 5, padding=2, bias=False)
    supernet = supernet_of(conv, 9, 9)
    (crop,) = crops(supernet)
    with torch.no_grad():
        for matrix in crop.matrices.values():
            matrix.copy_(torch.randn_like(matrix))
    three = (conv.weight[:, :, 1:4, 1:4].reshape(6, 4, 9) @ crop.matrices["3"]).reshape(6, 4, 3, 3)
    one = three[:, :, 1:2, 1:2] * crop.matrices["1"]
    for size, weight in (("3", three), ("1", one)):
        assert torch.allclose(extract(supernet, {"kernel:0": int(size)})[0].weight, weight, atol=1e-6)


def test_without_matrices_there_is_nothing_more_to_train() -> None:
    supernet = supernet_of(nn.Conv2d(4, 6, 5, padding=2), 9, 9, transformation_matrices=False)
    assert len(list(supernet.parameters())) == 2


def test_tied_layers_share_the_choice_and_the_matrices() -> None:
    torch.manual_seed(0)
    supernet = Supernet(Tied().eval(), ExampleInput((torch.randn(1, 3, 8, 8),)), only_kernels())
    names = [choice.name for choice in supernet.space.choices]
    assert names == ["kernel:stem.0", "kernel:one"]
    assert len(crops(supernet)) == 2
    small = extract(supernet, supernet.space.minimum)
    assert small.one.weight is small.two.weight
    assert small.one.weight.shape[2:] == (1, 1)


def test_the_net_of_odd_kernels_has_a_choice_for_each() -> None:
    model, example = build("kernels")
    supernet = Supernet(model, example, only_kernels())
    assert {choice.name: choice.values for choice in supernet.space.choices} == {
        "kernel:tall": (7, 5, 3, 1),
        "kernel:wide": (7, 5, 3, 1),
        "kernel:even": (4, 2),
        "kernel:dilated": (5, 3, 1),
        "kernel:same": (5, 3, 1),
    }


def test_a_weight_of_a_product_has_no_kernel() -> None:
    class Batched(nn.Module):
        """Its second weight has three dimensions, as that of a convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.weight = nn.Conv1d(3, 8, 3, padding=1), nn.Parameter(torch.randn(2, 8, 5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.matmul(self.conv(x).transpose(1, 2).unsqueeze(1), self.weight)

    config = ElasticityConfig(available_elasticity_dims=("kernel",))
    supernet = Supernet(Batched().eval(), torch.randn(2, 3, 9), config)
    assert [choice.name for choice in supernet.space.choices] == ["kernel:conv"]
    assert supernet.static_layers() == {"kernel": {}}
