"""What a super-network checks on itself: a wrong hook or a wrong rule is found when it is built, with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.config.rules import DIMENSIONS
from bootstrapnas_ext.elasticity import ELASTICITIES, ActiveSubnet, Elasticity, Hook, PortHook, Refused
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.graph import AXIS_RULES, Layout, Op, Propagation
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.self_check import subnet_must_run
from bootstrapnas_ext.space import Choice
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import build, image, outputs

Change = Callable[[Tensor, int], Tensor]
SCALES: list[Change] = []


class Scale(PortHook):
    """Changes a weight, by the value of a choice, as the last of ``SCALES`` says."""

    def forward(self, value: Tensor) -> Tensor:
        return SCALES[-1](value, self.cell.subnet["scale:weight"])


@pytest.fixture
def scaled() -> Iterator[Callable[[Change], ElasticityConfig]]:
    """A registered elastic dimension that changes the first weight of a model."""

    @ELASTICITIES.register("scale")
    def build_scale(propagation: Propagation, cell: ActiveSubnet, _: ElasticityConfig, __: Refused) -> Elasticity:
        layer = propagation.layers[0]
        (port,) = (port for port, value in layer.op.tensor_ports if value == layer.weight)
        return Elasticity(
            "scale", (Choice("scale:weight", (2, 1), "scale"),), (Hook(layer.op.name, port, None, Scale(cell)),)
        )

    def config(change: Change) -> ElasticityConfig:
        SCALES.append(change)
        return ElasticityConfig(available_elasticity_dims=("scale",))

    yield config
    del ELASTICITIES._entries["scale"]
    DIMENSIONS.discard("scale")
    SCALES.clear()


def test_an_elasticity_of_the_users_own(scaled: Callable[[Change], ElasticityConfig]) -> None:
    model, example = build("chain")
    (whole,) = outputs(model, example)
    supernet = Supernet(model, example, scaled(lambda weight, value: weight if value == 2 else weight[:] * 0.5))
    assert torch.equal(outputs(model, example)[0], whole)
    with supernet.activate({"scale:weight": 1}):
        assert not torch.allclose(outputs(model, example)[0], whole)


def test_a_hook_that_changes_the_maximum_is_found_with_the_first_operation(
    scaled: Callable[[Change], ElasticityConfig],
) -> None:
    model, example = build("chain")
    wrong = scaled(lambda weight, value: weight * (1.0 if value == 1 else 1.0001))
    with pytest.raises(ModelError, match="must equal the given model exactly, but the results of the operation 'lay"):
        Supernet(model, example, wrong)
    assert type(model.forward).__name__ == "method"


def test_a_builder_must_leave_out_what_is_refused(scaled: Callable[[Change], ElasticityConfig]) -> None:
    model, example = build("chain")
    wrong = scaled(lambda weight, value: weight if value == 2 else weight[:8])
    with pytest.raises(
        ModelError, match="makes the choice 'scale:weight', but the model does not run with less of it: Given weight"
    ):
        Supernet(model, example, wrong)


def test_a_wrong_rule_of_the_users_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rolls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.roll(self.one(x), 1, 1))

    def keeps_all(p: Propagation, op: Op) -> list[Layout]:
        """Wrongly says that the channels of the result have nothing to do with those of the argument."""
        return [p.static_layout(p.output_shape(op))]

    monkeypatch.setitem(AXIS_RULES._entries, "roll", keeps_all)
    message = re.escape("/roll/0 returns the shapes [(1, 4, 8, 8)], but its axis rule predicts [(1, 16, 8, 8)]")
    with pytest.raises(ModelError, match=message):
        Supernet(Rolls(), ExampleInput((image(),)))


def test_whatever_fails_is_explained() -> None:
    def fail() -> None:
        with subnet_must_run():
            raise KeyError("conv1")

    with pytest.raises(ModelError, match="does not run as predicted: 'conv1'") as caught:
        fail()
    assert isinstance(caught.value.__cause__, KeyError)


def test_outputs_of_every_structure_are_compared() -> None:
    class Structured(nn.Module):
        """The second output, deep in a structure, is random."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 5, 1)

        def forward(self, x: Tensor) -> Any:
            return self.two(self.one(x)), {"noise": [torch.randn(3)], "none": None, "name": "x"}

    with pytest.raises(ModelError, match="other outputs for the same input in eval mode"):
        Supernet(Structured(), ExampleInput((image(),)))
