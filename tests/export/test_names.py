"""Names of input and output tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.export import input_names, output_tensors
from bootstrapnas_ext.inputs import ExampleInput
from tests.export.nets import Nested, nested_example


class Variadic(nn.Module):
    def forward(self, first: Tensor, *others: Tensor, **named: Tensor) -> Tensor:
        return first


def test_inputs_are_named_after_the_arguments_in_the_order_of_the_tensors() -> None:
    example = nested_example()
    names = input_names(Nested(), example)
    assert names == ["tokens", "pair_0", "pair_1", "unused", "scale"]
    assert len(names) == len(example.tensors())


def test_inputs_without_an_argument_of_their_own_are_numbered() -> None:
    one = torch.ones(1)
    assert input_names(Variadic(), ExampleInput((one, one, one), {"mask": one})) == [
        "first",
        "input_1",
        "input_2",
        "mask",
    ]


def test_arguments_that_are_no_tensors_have_no_name() -> None:
    one = torch.ones(1)
    assert input_names(Nested(), ExampleInput((one, None, 3), {"scale": one})) == ["tokens", "scale"]


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (lambda t: t, ["output"]),
        (lambda t: (t, t), ["output_0", "output_1"]),
        (lambda t: [t, (t, t)], ["output_0", "output_1_0", "output_1_1"]),
        (lambda t: {"logits": t, "features": (t, None, t)}, ["logits", "features_0", "features_2"]),
    ],
)
def test_outputs_are_named_after_their_place(structure, names) -> None:
    assert list(output_tensors(structure(torch.ones(1)))) == names


def test_outputs_of_other_types_are_refused() -> None:
    with pytest.raises(ModelError, match="'output_1' is of type int"):
        output_tensors((torch.ones(1), 3))


def test_outputs_without_a_tensor_are_refused() -> None:
    with pytest.raises(ModelError, match="hold no tensor"):
        output_tensors({"loss": None})
