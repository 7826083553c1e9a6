"""Comparison of outputs."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export import Backend, verification_inputs, verify
from bootstrapnas_ext.inputs import ExampleInput
from tests.export.nets import nested_example


def identity(x: Tensor) -> Tensor:
    return x


def inputs(*values: float) -> list[ExampleInput]:
    return [ExampleInput((torch.tensor([[value] for value in values]),))]


def test_differences_are_those_of_the_worst_element() -> None:
    def off(x: Tensor) -> Tensor:
        return x + torch.tensor([[0.5], [-0.25]])

    report = verify(identity, {"exact": Backend(identity), "off": Backend(off, 0.2)}, inputs(1.0, -4.0))
    assert report.batch_sizes == (2,)
    assert report.differences["exact"].max_absolute == 0
    assert report.differences["off"].max_absolute == pytest.approx(0.5)
    assert report.differences["off"].max_relative == pytest.approx(0.5 / 4)


def test_worst_of_all_inputs_and_outputs_is_reported() -> None:
    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        return x, 1000 * x

    def backend(x: Tensor) -> list[Tensor]:
        return [1.01 * x, 1000 * x + 2]

    report = verify(reference, {"b": Backend(backend, 0.1)}, [*inputs(10.0), *inputs(1.0)])
    assert report.differences["b"].max_absolute == pytest.approx(2, rel=1e-3)
    assert report.differences["b"].max_relative == pytest.approx(0.01, rel=1e-3)


def test_difference_above_tolerance_is_an_error_with_figure_and_tolerance() -> None:
    message = r"output 'output' of tampered got \(max_relative=0.25, tolerance=0.01\) for a batch of 2"
    with pytest.raises(ExportError, match=message):
        verify(identity, {"tampered": Backend(lambda x: x + 1, 1e-2)}, inputs(1.0, 4.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_backend_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(ExportError, match="max_relative <= tolerance"):
        verify(identity, {"b": Backend(lambda x: x * value)}, inputs(1.0))


def test_reference_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ExportError, match="Output 'output' of the model is not finite"):
        verify(lambda x: x / 0, {"b": Backend(lambda x: x / 0)}, inputs(1.0))


def test_zero_reference_is_compared_absolutely() -> None:
    report = verify(lambda x: 0 * x, {"b": Backend(lambda x: 0 * x + 1e-5)}, inputs(1.0))
    assert report.differences["b"].max_relative == pytest.approx(1e-5)


def test_outputs_of_another_shape_are_an_error() -> None:
    with pytest.raises(ExportError, match=r"Outputs of b must have the shapes \[\(2, 1\)\], but got \[\(1, 1\)\]"):
        verify(identity, {"b": Backend(lambda x: x[:1])}, inputs(1.0, 2.0))


def test_backend_that_fails_is_named_with_the_batch() -> None:
    def fixed(x: Tensor) -> Tensor:
        return x.reshape(2, 1)

    with pytest.raises(ExportError, match="fixed cannot run a batch of 3: shape"):
        verify(identity, {"fixed": Backend(fixed)}, [*inputs(1.0, 2.0), *inputs(1.0, 2.0, 3.0)])


def test_report_is_json() -> None:
    report = verify(identity, {"b": Backend(identity)}, inputs(1.0))
    assert json.loads(json.dumps(report.as_dict())) == {
        "batch_sizes": [1],
        "differences": {"b": {"max_absolute": 0.0, "max_relative": 0.0, "tolerance": 1e-3}},
    }


def test_inputs_are_the_example_and_random_ones_of_other_batch_sizes() -> None:
    example = nested_example()
    first, *others = verification_inputs(example, seed=1)
    assert first is example
    assert [other.tensors()[0].shape[0] for other in others] == [1, 3]
    for other in others:
        for tensor, like in zip(other.tensors(), example.tensors(), strict=True):
            assert tensor.dtype == like.dtype
            assert tensor.shape[1:] == like.shape[1:]
        assert 0 <= int(other.args[0].min()) <= int(other.args[0].max()) <= 6


def test_inputs_depend_on_the_seed_alone() -> None:
    def drawn(seed: int) -> Tensor:
        return verification_inputs(nested_example(), seed)[-1].kwargs["scale"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
