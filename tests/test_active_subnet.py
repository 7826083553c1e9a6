"""The active subnet: only its part of each tensor is read, trained and counted in norm statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from nncf.torch.function_hook.wrapper import ForwardWithHooks
from torch import Tensor, nn

from bootstrapnas_ext.config import ElasticityConfig, KernelConfig
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import (
    NETS,
    TORCHVISION,
    active_positions,
    assert_close,
    assert_equal,
    build,
    other_input,
    outputs,
    own_state,
    some_subnets,
)


def without_skips(supernet: Supernet, subnet: Subnet) -> Subnet:
    """The subnet with all its blocks."""
    blocks = {c.name: c.values[0] for c in supernet.space.choices if c.dimension == "depth"}
    return supernet.space.validate({**subnet, **blocks})


@pytest.mark.parametrize("name", [*NETS, "mobilenet_v3_small", "densenet121"])
def test_nncfs_own_executor_computes_the_same_from_the_registered_hooks(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    other = other_input(example)
    for subnet in some_subnets(supernet, 2):
        with supernet.activate(without_skips(supernet, subnet)), torch.no_grad():
            by_nncf = outputs(lambda *args, **kwargs: ForwardWithHooks.__call__(model.forward, *args, **kwargs), other)
            assert_close(by_nncf, outputs(model, other))


def nothing() -> Tensor:
    return torch.tensor([], dtype=torch.long)


@pytest.mark.parametrize("name", [*NETS, *TORCHVISION])
def test_only_the_active_items_are_read(name: str) -> None:
    model, example = build(name)
    config = ElasticityConfig(kernel=KernelConfig(transformation_matrices=False))  # they read more than the centre
    supernet = Supernet(model, example, config)
    for subnet in some_subnets(supernet, 1):
        positions = active_positions(supernet, subnet)
        saved = own_state(model)
        with supernet.activate(subnet), torch.no_grad():
            expected = outputs(model, example)
            for key, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    active = positions.get(key, nothing())
                    tensor.fill_(float("nan"))
                    tensor.view(-1)[active] = saved[key].flatten()[active]
            assert_equal(outputs(model, example), expected)
        model.load_state_dict(saved)


def loss_of(model: nn.Module, example: ExampleInput) -> Tensor:
    return torch.stack([result.square().mean() for result in outputs(model, example)]).sum()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", [*NETS, "mobilenet_v3_small"])
def test_a_training_step_moves_exactly_the_active_weights(name: str, training: bool) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    other = other_input(example, 4)
    state = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1)
    for subnet in some_subnets(supernet, 1):
        positions = active_positions(supernet, subnet)
        small = extract(supernet, subnet)
        model.train(training)
        torch.manual_seed(3)
        with supernet.activate(subnet):
            loss_of(model, other).backward()
        optimizer.step()
        gradients: dict[str, Tensor | None] = {}
        if not (training and isinstance(small, torch.fx.GraphModule)):
            torch.manual_seed(3)
            loss_of(small.train(training), other).backward()
            gradients = {key.removeprefix("small."): parameter.grad for key, parameter in small.named_parameters()}
        moved = 0
        for key, parameter in model.named_parameters():
            if "nncf" in key:
                continue
            inactive = torch.ones(parameter.numel(), dtype=torch.bool)
            inactive[positions.get(key, nothing())] = False
            gradient = torch.zeros_like(inactive) if parameter.grad is None else parameter.grad.flatten()
            assert not gradient[inactive].any(), key
            changed = (state[key] != parameter).flatten()
            assert not changed[gradient == 0].any(), key
            moved += int(changed.sum())
            expected = gradients.get(key)
            if expected is not None:
                assert_close([gradient[~inactive]], [expected.flatten()[positions[key].argsort()]], 1e-4)
        assert moved
        optimizer.zero_grad()
        model.load_state_dict(state)
        model.eval()


@pytest.mark.parametrize("name", [*NETS, "mobilenet_v3_small", "densenet121"])
def test_norm_statistics_move_only_where_the_subnet_is(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    other = other_input(example, 4)
    for subnet in some_subnets(supernet, 2):
        positions = active_positions(supernet, subnet)
        before = own_state(model)
        small = extract(supernet, subnet)
        model.train()
        torch.manual_seed(3)
        with supernet.activate(subnet):
            outputs(model, other)
        model.eval()
        after = own_state(model)
        for key, _ in model.named_buffers():
            if key in positions:
                untouched = torch.ones(before[key].numel(), dtype=torch.bool)
                untouched[positions[key]] = False
                assert torch.equal(after[key].flatten()[untouched], before[key].flatten()[untouched])
                assert not torch.equal(after[key], before[key])
            elif not key.endswith("num_batches_tracked"):
                assert torch.equal(after[key], before[key]), key
        if not isinstance(small, torch.fx.GraphModule):
            small.train()
            torch.manual_seed(3)
            outputs(small, other)
            for key, tensor in small.named_buffers():
                if key.endswith("num_batches_tracked"):
                    assert torch.equal(after[key], tensor)
                else:
                    assert_close([after[key].flatten()[positions[key]]], [tensor.flatten()])
            present = {key for key, _ in small.named_buffers()}
            skipped = [key for key, _ in model.named_buffers() if key not in present]
            assert all(torch.equal(after[key], before[key]) for key in skipped)


def test_blocks_in_the_models_own_code_do_not_run_when_they_are_skipped() -> None:
    model, example = build("loose")
    supernet = Supernet(model, example)
    before = own_state(model)
    ran: list[str] = []
    branches: Any = model.branches
    for index, branch in enumerate(branches):
        branch[1].register_forward_pre_hook(lambda *_, index=index: ran.append(f"conv of {index}"))
    model.train()
    kept = {choice.name: 1 for choice in supernet.space.choices if choice.dimension == "depth"}
    skipped = {**supernet.space.maximum, **kept, next(iter(kept)): 0}
    with supernet.activate(skipped):
        outputs(model, other_input(example))
    assert ran == ["conv of 1", "conv of 2"]
    after = own_state(model)
    statistics = [key for key, _ in model.named_buffers()]
    changed = {key for key in statistics if not torch.equal(before[key], after[key])}
    assert changed == {key for key in statistics if not key.startswith("branches.0")}
