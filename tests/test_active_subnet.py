"""The active subnet: only its part of each tensor is read, trained and counted in norm statistics."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from nncf.torch.function_hook.wrapper import ForwardWithHooks
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bootstrapnas_ext.config import ElasticityConfig, KernelConfig
from bootstrapnas_ext.errors import ModelError
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


# NNCF's executor does not know the stand-in for attention.
@pytest.mark.parametrize(
    "name", [*(name for name in NETS if name != "vision_transformer"), "mobilenet_v3_small", "densenet121"]
)
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
def test_training_a_subnet_moves_its_own_norm_statistics_only(name: str) -> None:
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
            with supernet.statistics():
                after = own_state(model)
        model.eval()
        norms = {path for path, module in model.named_modules() if isinstance(module, _NormBase)}
        for key, tensor in own_state(model).items():
            assert torch.equal(tensor, (before if key.rpartition(".")[0] in norms else after)[key])
        for key in (key for key, _ in model.named_buffers() if key in before):
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
        with supernet.statistics():
            after = own_state(model)
    assert ran == ["conv of 1", "conv of 2"]
    statistics = [key for key, _ in model.named_buffers()]
    changed = {key for key in statistics if not torch.equal(before[key], after[key])}
    assert changed == {key for key in statistics if not key.startswith("branches.0")}


class MoreInTraining(nn.Module):
    """Adds once more in training, in the same code that adds the branch of a block that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training:
            x = x + 5.0
        return (x + 0.5 * self.branch(x)).mean((2, 3))


def test_code_that_runs_other_operations_in_training_is_refused() -> None:
    model = MoreInTraining()
    supernet = Supernet(
        model, ExampleInput((torch.randn(2, 3, 8, 8),)), ElasticityConfig(available_elasticity_dims=("depth",))
    )
    with supernet.activate(supernet.space.minimum):
        model.eval()(torch.randn(2, 3, 8, 8))
        with pytest.raises(ModelError, match="runs '/add' 2 times, and 1 times when it was traced"):
            model.train()(torch.randn(2, 3, 8, 8))


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=True) if self.training else self.body(x)
        return x.mean((2, 3))


def test_activation_checkpointing_is_refused() -> None:
    model = Checkpointed().train()
    supernet = Supernet(model, ExampleInput((torch.randn(1, 3, 8, 8),)))
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    with supernet.activate(supernet.space.minimum), pytest.raises(ModelError, match="Turn checkpointing off"):
        model(torch.randn(2, 3, 8, 8))


def test_a_model_that_changes_its_input_in_place_leaves_the_example_as_it_was() -> None:
    class Normalizing(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5).div_(0.25))

    x = torch.rand(1, 3, 8, 8)
    before = x.clone()
    Supernet(Normalizing(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)), ExampleInput((x,)))
    assert torch.equal(x, before)


class RunningMean(nn.Module):
    """Keeps a mean by assigning its buffer, and reads it in the same forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean((0, 2, 3))
        return x - self.mean[:, None, None]


def test_a_buffer_that_the_models_code_assigns_keeps_what_the_subnet_did_not_see() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), RunningMean(), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    mean: Any = model[1].mean
    mean.copy_(torch.randn(16))
    before = mean.clone()
    supernet = Supernet(model, torch.randn(2, 3, 4, 4))
    small = extract(supernet, supernet.space.minimum).train()
    x = torch.randn(4, 3, 4, 4)
    model.train()
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        assert_close([model(x)], [small(x)])
    assert model[1].mean is mean
    assert_close([mean[:4]], [small[1].mean])
    assert torch.equal(mean[4:], before[4:])


def test_checkpointing_is_found_after_a_forward_in_another_mode() -> None:
    model = Checkpointed()
    supernet = Supernet(model, torch.randn(2, 3, 8, 8))
    with supernet.activate(supernet.space.minimum):
        model.eval()(torch.randn(2, 3, 8, 8))  # with gradients, and without checkpoints
        with pytest.raises(ModelError, match="activation checkpointing"):
            model.train()(torch.randn(2, 3, 8, 8))


def test_one_forward_at_a_time_and_no_replicas() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Flatten(), nn.Linear(16 * 16, 3)).eval()
    supernet = Supernet(model, torch.randn(2, 3, 4, 4))
    found: list[str] = []

    def run_again(*_: object) -> None:
        def run() -> None:
            try:
                model(torch.randn(2, 3, 4, 4))
            except ModelError as error:
                found.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    model[1].register_forward_pre_hook(run_again)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        model(torch.randn(2, 3, 4, 4))
    assert found == ["A super-network runs one forward at a time, but two threads run it; extract a subnet for each."]
    with pytest.raises(ModelError, match=r"nn\.DataParallel runs copies"):
        model._replicate_for_data_parallel()
