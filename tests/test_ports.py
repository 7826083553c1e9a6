"""Arguments that a subnet changes, and the attributes that they come from."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.elasticity import ActiveSubnet, Hook, PortHook
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.ports import collect_ports, same
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import build, image


def places(supernet: Supernet) -> set[tuple[str, str]]:
    return {(place.module, place.attribute) for place in supernet.executor.shadows.places}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "mobile",
            {("blocks.0.depthwise.0", "groups"), ("blocks.0.depthwise.0", "padding"), ("stem.1", "running_var")},
        ),
        ("pad_attribute", {("padding", "pad")}),
        ("norms", {("group_norm", "num_groups"), ("layer_norm", "normalized_shape"), ("", "gain")}),
        ("functional", {("", "kernel"), ("", "mean"), ("", "variance"), ("", "matrix")}),
        ("tied", {("one", "weight"), ("two", "weight"), ("two", "bias")}),
    ],
)
def test_arguments_that_are_attributes_are_found(name: str, expected: set[tuple[str, str]]) -> None:
    assert places(Supernet(*build(name))) >= expected


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ((1, 2), [1, 2], True),
        ((1, 2), (2, 1), False),
        (1, 1, True),
        (1, 2, False),
        (1, True, False),
        (1, 1.0, False),
        ("same", "same", True),
        ((1,), 1, False),
    ],
)
def test_arguments_are_compared_by_value_and_type(one: Any, two: Any, expected: bool) -> None:
    assert same(one, two) is expected


class Unchanged(PortHook):
    """Changes nothing."""

    def forward(self, value: Any) -> Any:
        return value


def test_a_hook_needs_an_operation_of_the_trace() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1))
    graph = _nncf.trace(model, (image(),), {})
    hook = Hook("0/conv2d/1", 1, None, Unchanged(ActiveSubnet(Subnet({}))))
    with pytest.raises(ModelError, match="meant for the operation '0/conv2d/1', which the model does not have"):
        collect_ports(model, graph, [hook])
