"""Attributes that have other values while a subnet runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.graph import Place
from bootstrapnas_ext.shadows import shadowed
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_close, build, outputs


def test_shadowed_attributes_come_back_also_after_an_error() -> None:
    conv = nn.Conv2d(3, 8, 3)
    model = nn.ModuleDict({"conv": conv})
    before = dict(vars(conv))
    values = {Place("conv", "weight"): torch.zeros(1), Place("conv", "groups"): 7, Place("conv", "new"): 1}

    def fail() -> None:
        with shadowed(model, values):
            assert conv.weight.shape == (1,)
            assert (conv.groups, conv.new) == (7, 1)
            raise ZeroDivisionError("any error")

    with pytest.raises(ZeroDivisionError, match="any error"):
        fail()
    assert conv.weight.shape == (8, 3, 3, 3)
    assert vars(conv) == before
    assert dict(conv.named_parameters()).keys() == {"weight", "bias"}


def add(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.add_(0.1)


def replace_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.1


def replace_parameters(model: nn.Module) -> None:
    state = {
        name: tensor * 0.9 if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)


def adapt_norms(model: nn.Module) -> None:
    model.train()
    model(torch.randn(4, 3, 8, 8))
    model.eval()


@pytest.mark.parametrize("name", ["chain", "concat", "norms", "tied"])
def test_a_subnet_sees_every_change_of_the_weights(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    subnet = supernet.space.sample(np.random.default_rng(1))
    with supernet.activate(subnet), torch.no_grad():
        for change in (add, replace_data, replace_parameters, adapt_norms):
            outputs(model, example)  # keeps views of the weights as they are now
            change(model)
            assert_close(outputs(model, example), outputs(extract(supernet, subnet), example))


def test_modes_without_gradients_do_not_share_tensors() -> None:
    model, example = build("chain")
    supernet = Supernet(model, example)
    with supernet.activate(supernet.space.minimum):
        with torch.inference_mode():
            outputs(model, example)
        model.train()
        with torch.no_grad():
            outputs(model, example)  # writes into statistics
        model.eval()
        outputs(model, example)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_of_blocks_that_are_left_out_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model, example = build("residual")
    supernet = Supernet(model, example)
    made: list[str] = []

    def noted(forward: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
        def note(value: Any) -> Any:
            made.append(name)
            return forward(value)

        return note

    for port in supernet.executor.ports:
        for hook in port.hooks:
            monkeypatch.setattr(hook, "forward", noted(hook.forward, port.op.name))
    depth = {choice.name: 0 for choice in supernet.space.choices if choice.dimension == "depth"}
    with supernet.activate({**supernet.space.minimum, **depth}), torch.no_grad():
        outputs(model, example)
    skipped = {
        supernet.graph.ops[op].name for block in supernet.executor.skipped(supernet.space.minimum) for op in block.ops
    }
    assert skipped
    assert made
    assert skipped.isdisjoint(made)


@pytest.mark.parametrize("name", ["mobile", "residual", "vision_transformer"])
def test_a_copy_of_a_model_that_has_run_is_a_model_of_its_own(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        expected = outputs(model, example)
        other = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.zero_()
        assert_close(outputs(other, example), expected)
