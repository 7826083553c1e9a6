"""Batches as calls of the model."""

from __future__ import annotations

import torch

from bootstrapnas_ext.inputs import ExampleInput, as_input


def test_every_structure_becomes_the_arguments_of_a_call() -> None:
    one, two = torch.ones(1), torch.ones(2)
    assert as_input(one).args == (one,)
    assert as_input([one, two]).args == (one, two)
    assert as_input((one, two)).args == (one, two)
    assert as_input({"x": one}).kwargs == {"x": one}
    example = ExampleInput((one,), {"mask": two})
    assert as_input(example) is example
