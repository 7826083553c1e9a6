"""Example inputs of any structure."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.inputs import ExampleInput


def nested() -> ExampleInput:
    return ExampleInput(
        (torch.zeros(2, 3), {"a": torch.ones(2), "b": [torch.tensor(5.0), 7]}), {"mask": torch.full((4, 4), 2.0)}
    )


def test_tensors_are_found_in_any_nesting() -> None:
    assert [tuple(tensor.shape) for tensor in nested().tensors()] == [(2, 3), (2,), (), (4, 4)]


def test_map_keeps_the_structure_and_what_is_no_tensor() -> None:
    mapped = nested().map(lambda tensor: tensor + 1)
    assert mapped.args[1]["b"][1] == 7
    assert mapped.args[1]["b"][0] == 6
    assert mapped.kwargs["mask"].unique() == 3
    assert nested().args[0].sum() == 0


def test_to_moves_all_tensors() -> None:
    assert {tensor.device.type for tensor in nested().to("meta").tensors()} == {"meta"}


def function(x: Tensor, batch: dict[str, Any], *rest: Tensor, mask: Tensor | None = None) -> None: ...


def test_tensors_have_the_names_of_the_parameters_however_they_are_passed() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    by_position = ExampleInput((one, {"y": [two]}, two), {"mask": one}).named(function)
    assert list(by_position) == ["x", "batch['y'][0]", "rest[0]", "mask"]
    by_name = ExampleInput((), {"mask": one, "batch": {"y": [two]}, "x": one}).named(function)
    assert by_name == {"x": one, "batch['y'][0]": two, "mask": one}
    assert next(iter(by_name)) == "x"


def test_an_input_that_does_not_fit_the_function() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'batch'"):
        ExampleInput((torch.zeros(1),)).named(function)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_another_batch_size_repeats_or_leaves_out_items(size: int) -> None:
    batch = torch.arange(6.0).view(2, 3)
    (tensor,) = ExampleInput((batch,)).with_batch(size).tensors()
    assert torch.equal(tensor, batch[[index % 2 for index in range(size)]])


def test_only_tensors_with_a_batch_get_another_size() -> None:
    example = nested().with_batch(3)
    assert [tuple(tensor.shape) for tensor in example.tensors()] == [(3, 3), (3,), (), (4, 4)]


@pytest.mark.parametrize(("example", "size"), [(nested(), 2), (ExampleInput((torch.tensor(1.0), 3)), 1)])
def test_the_batch_size_is_that_of_the_first_tensor(example: ExampleInput, size: int) -> None:
    assert example.batch_size == size


def test_arguments_that_are_no_tuple_are_refused() -> None:
    with pytest.raises(ModelError, match=r"as in ExampleInput\(\(tensor,\)\), but got Tensor"):
        ExampleInput(torch.zeros(1, 3))  # type: ignore[arg-type]
