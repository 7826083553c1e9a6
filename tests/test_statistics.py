"""Norm statistics: those of the maximum stay its own, and so do those of the active subnet."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext import processes
from bootstrapnas_ext.config import ElasticityConfig
from bootstrapnas_ext.errors import CheckpointError
from bootstrapnas_ext.evaluation import recalibrate_batchnorm
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import (
    assert_close,
    assert_equal,
    build,
    conv_bn,
    other_input,
    outputs,
    own_state,
    randomize_norms,
    some_subnets,
)

PER_WIDTH = ElasticityConfig(norm_statistics="per_width")


class Net(nn.Sequential):
    """Two elastic layers with norms, of which the second is the mean of all batches, and a norm of a static width."""

    def __init__(self) -> None:
        super().__init__(conv_bn(3, 16), conv_bn(16, 24), nn.Conv2d(24, 5, 1), nn.BatchNorm2d(5), nn.Flatten())
        self[1][1].momentum = None


def net(config: ElasticityConfig | None = None) -> tuple[Any, Supernet]:
    """Returns a net in training mode, with random norms, and its super-network."""
    torch.manual_seed(0)
    model = randomize_norms(Net())
    return model, Supernet(model, torch.randn(2, 3, 4, 4), config)


def batch(seed: int = 0) -> Tensor:
    return torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def statistics(model: nn.Module) -> list[Tensor]:
    """Copies of the buffers of a model."""
    return [tensor.clone() for name, tensor in own_state(model).items() if name in dict(model.named_buffers())]


def active_statistics(supernet: Supernet) -> list[Tensor]:
    return statistics(extract(supernet, supernet.active))


def second(supernet: Supernet) -> Subnet:
    """Returns the subnet of all second values."""
    return supernet.space.decode([1] * len(supernet.space.choices))


def train(model: nn.Module, *seeds: int) -> None:
    """Runs forwards in training mode, without changing weights."""
    model.train()
    with torch.no_grad():
        for seed in seeds:
            model(batch(seed))


@pytest.mark.parametrize("name", ["chain", "residual", "mobile", "concat", "called_twice", "loose", "densenet121"])
def test_the_active_subnet_is_recalibrated_as_its_extracted_copy_whatever_ran_before(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    batches = [other_input(example, 4) for _ in range(2)]
    before = own_state(model)
    subnets = some_subnets(supernet, 1)
    for subnet, other in zip(subnets, reversed(subnets), strict=True):
        expected = extract(supernet, subnet, lambda module: recalibrate_batchnorm(module, batches))
        model.train()
        for ran in (other, subnet):
            supernet.set_active(ran)
            outputs(model, example.with_batch(3))
        model.eval()
        recalibrate_batchnorm(model, batches)
        with torch.no_grad():
            assert_equal(outputs(model, example), outputs(expected, example))
            assert_equal(outputs(extract(supernet, subnet), example), outputs(expected, example))
    assert_equal(list(own_state(model).values()), list(before.values()))


@pytest.mark.parametrize("config", [None, PER_WIDTH])
def test_processes_recalibrate_the_active_subnet_together(
    config: ElasticityConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, supernet = net(config)
    before = statistics(model)
    supernet.set_active(second(supernet))
    recalibrate_batchnorm(model, [batch(1)])
    alone: Any = extract(supernet, supernet.active)
    monkeypatch.setattr(processes, "add_up", lambda packed: packed[:-1].add_(packed[-1]))  # the mean plus one
    recalibrate_batchnorm(model, [batch(1)], all_processes=True)
    together: Any = extract(supernet, supernet.active)
    for norm, other in ((together[0][1], alone[0][1]), (together[3], alone[3])):
        assert_close([norm.running_mean], [other.running_mean + 1])
        assert_close([norm.running_var], [other.running_var + 1])
    assert_equal(statistics(model), before)


@pytest.mark.parametrize("config", [None, PER_WIDTH])
def test_a_subnet_counts_as_its_extracted_copy_does(config: ElasticityConfig | None) -> None:
    model, supernet = net(config)
    train(model, 8, 9)  # so that the maximum has counted batches of its own
    before = statistics(model)
    for subnet in some_subnets(supernet):
        with supernet.activate(subnet):
            small = extract(supernet, subnet)
            for one in (model, small):
                train(one, 1, 2, 3)
            assert_equal(active_statistics(supernet), statistics(small))
            assert_equal([model.eval()(batch())], [small.eval()(batch())])
    assert_equal(statistics(model), before)


@pytest.mark.parametrize("config", [None, PER_WIDTH])
def test_the_maximum_counts_as_the_given_model_does(config: ElasticityConfig | None) -> None:
    model, supernet = net(config)
    plain = extract(supernet, supernet.space.maximum)
    train(model, 1, 2)
    with supernet.activate(supernet.space.minimum):
        train(model, 3)
    train(model, 4)
    train(plain, 1, 2, 4)
    assert_equal(statistics(model), statistics(plain))
    assert_equal(active_statistics(supernet), statistics(plain))


def test_statistics_last_as_long_as_the_subnet_is_active() -> None:
    model, supernet = net()
    small, other = supernet.space.minimum, second(supernet)
    supernet.set_active(small)
    fresh = active_statistics(supernet)
    train(model, 1)
    counted = active_statistics(supernet)
    assert not torch.equal(counted[0], fresh[0])
    supernet.set_active(dict(small))
    with supernet.activate(other):
        train(model, 2)
        with supernet.activate(small):
            assert_equal(active_statistics(supernet), fresh)
    assert_equal(active_statistics(supernet), counted)
    with supernet.activate(small):
        train(model, 2)
    assert active_statistics(supernet)[2] == counted[2] + 1
    supernet.set_active(other)
    supernet.set_active(small)
    assert_equal(active_statistics(supernet), fresh)


def test_a_subnet_has_the_maximums_until_it_counts() -> None:
    model, supernet = net()
    supernet.set_active(supernet.space.minimum)
    with torch.no_grad():
        model.eval()(batch())
        with supernet.activate(supernet.space.maximum):
            recalibrate_batchnorm(model, [batch(1), batch(2)])
        assert_equal([model(batch())], [extract(supernet, supernet.active).eval()(batch())])
        extract(supernet, supernet.active).train()(batch())
    expected = active_statistics(supernet)
    supernet.set_active(supernet.space.maximum)
    supernet.set_active(supernet.space.minimum)
    assert_equal(active_statistics(supernet), expected)


@pytest.mark.parametrize("config", [None, PER_WIDTH])
@pytest.mark.parametrize("change", ["load", "reorganize"])
def test_all_begin_anew_when_the_maximum_is_another(change: str, config: ElasticityConfig | None) -> None:
    model, supernet = net(config)
    state = copy.deepcopy(model.state_dict())
    small, other = supernet.space.minimum, second(supernet)
    supernet.set_active(small)
    train(model, 1)
    with supernet.activate(other):
        train(model, 2)
        if change == "load":
            model.load_state_dict(state)
        else:
            supernet.reorganize()
        fresh = Supernet(extract(supernet, supernet.space.maximum), torch.randn(2, 3, 4, 4))
        assert_equal(active_statistics(supernet), statistics(extract(fresh, other)))
    assert_equal(active_statistics(supernet), statistics(extract(fresh, small)))


@pytest.mark.parametrize("config", [None, PER_WIDTH])
@pytest.mark.parametrize("name", ["chain", "concat"])
def test_gradients_of_several_subnets_wait_for_one_backward_pass(name: str, config: ElasticityConfig | None) -> None:
    model, example = build(name)
    supernet = Supernet(model, example, config)
    total = torch.zeros(())
    for subnet in [supernet.space.maximum, *some_subnets(supernet), supernet.space.maximum]:
        supernet.set_active(subnet)
        for training in (False, True):
            model.train(training)
            total = total + outputs(model, other_input(example))[0].square().mean()
    total.backward()  # would complain about tensors that were changed since
    assert all(parameter.grad is not None for parameter in supernet.model.parameters() if parameter.ndim > 1)


@pytest.mark.parametrize("config", [None, PER_WIDTH])
def test_modes_types_and_copies(config: ElasticityConfig | None) -> None:
    model, supernet = net(config)
    with supernet.activate(supernet.space.minimum):
        small = extract(supernet, supernet.active)
        for one in (model, small):
            with torch.inference_mode():
                one.train()(batch(1))
            train(one, 2)
            one.double()
            with torch.inference_mode():
                one.eval()(batch().double())
            one.train()(batch(3).double()).sum().backward()
        assert_equal(active_statistics(supernet), statistics(small))
        other = copy.deepcopy(supernet)
        for one in (model, other.model, small):
            one.float()
        train(model, 4)
        for one in (other.model, small):
            train(one, 5)
        assert_equal(active_statistics(other), statistics(small))
        assert not torch.equal(active_statistics(supernet)[0], statistics(small)[0])


class AssigningNorm(nn.Module):
    """A norm that assigns its statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.momentum = 0.1
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((0, 2, 3))
        if self.training:
            self.batches = self.batches + 1
            self.running_mean = (self.running_mean + (mean - self.running_mean) * self.momentum).detach()
        return x - (mean if self.training else self.running_mean)[:, None, None]


@pytest.mark.parametrize("config", [None, PER_WIDTH])
def test_a_norm_that_assigns_its_statistics(config: ElasticityConfig | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), AssigningNorm(16), nn.Conv2d(16, 5, 1), AssigningNorm(5), nn.Flatten())
    supernet = Supernet(model, torch.randn(2, 3, 4, 4), config)
    before = statistics(model)
    with supernet.activate(supernet.space.minimum):
        small = extract(supernet, supernet.active)
        for one in (model, small):
            train(one, 1, 2)
        assert_equal(active_statistics(supernet), statistics(small))
    assert_equal(statistics(model), before)


def sets(supernet: Supernet) -> dict[str, Tensor]:
    """Copies of the statistics per width, by norm, number of the width, and name."""
    state = supernet.state_dict()["model"]
    return {name.partition("/")[2]: tensor for name, tensor in state.items() if "norm_statistics" in name}


def at(supernet: Supernet, **numbers: int) -> Subnet:
    """Returns the subnet of some values, by the choice's name, where the others are the largest."""
    choices = {choice.name.replace(":", "_").replace(".", "_"): choice for choice in supernet.space.choices}
    given = {choices[name].name: choices[name].values[number] for name, number in numbers.items()}
    return supernet.space.validate({**supernet.space.maximum, **given})


def test_a_subnet_moves_the_sets_of_its_widths() -> None:
    model, supernet = net(PER_WIDTH)
    begun, before = sets(supernet), statistics(model)
    assert {name.rpartition(".")[0] for name in begun} == {"3.0", *(f"{n}/1.{w}" for n in (0, 1) for w in range(4))}
    for norm, prefix in ((model[0][1], "0/1."), (model[1][1], "1/1."), (model[3], "3.")):
        for name, buffer in norm.named_buffers():
            assert all(torch.equal(own, buffer) for key, own in begun.items() if key.startswith(prefix) and name in key)
    with supernet.activate(at(supernet, width_1_0=2)):
        train(model, 1)
    now = sets(supernet)
    moved = {name.rpartition(".")[0] for name, tensor in now.items() if not torch.equal(tensor, begun[name])}
    assert moved == {"0/1.0", "1/1.2", "3.0"}
    with supernet.activate(at(supernet, kernel_0_0=1)):  # of full widths, but not the maximum
        train(model, 1)
    later = sets(supernet)
    moved = {name.rpartition(".")[0] for name, tensor in later.items() if not torch.equal(tensor, now[name])}
    assert moved == {"0/1.0", "1/1.0", "3.0"}
    assert_equal(statistics(model), before)


def test_sets_last_and_are_saved() -> None:
    model, supernet = net(PER_WIDTH)
    subnet = supernet.space.minimum
    with supernet.activate(subnet):
        train(model, 1, 2)
        counted = active_statistics(supernet)
    with supernet.activate(at(supernet, width_0_0=1, width_1_0=1)):
        train(model, 3)
        kept = sets(supernet)
    small = extract(supernet, subnet).eval()
    assert_equal(statistics(small)[:6], counted[:6])  # the last norm has one set for all subnets
    with supernet.activate(subnet), torch.no_grad():
        assert_equal([model.eval()(batch())], [small(batch())])
    _, other = net(PER_WIDTH)
    other.load_state_dict(supernet.state_dict())
    assert_equal(list(sets(other).values()), list(kept.values()))
    assert_equal(statistics(extract(other, subnet)), statistics(small))
    _, without = net()
    with pytest.raises(CheckpointError, match=r"norm_statistics\.norms\./0/1\.0\.num_batches_tracked' is of shape"):
        without.load_state_dict(supernet.state_dict())


class Joined(nn.Module):
    """A norm over the channels of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 32, 1)
        self.norm, self.head = nn.BatchNorm2d(48), nn.Conv2d(48, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.cat([self.one(x), self.two(x)], 1)))


def test_the_channels_of_each_layer_are_in_the_set_of_its_width() -> None:
    torch.manual_seed(0)
    model: Any = Joined()
    supernet = Supernet(model, torch.randn(2, 3, 4, 4), PER_WIDTH)
    before = statistics(model)
    for one, two in ((1, 2), (1, 3), (0, 3)):
        begun = sets(supernet)
        with supernet.activate(at(supernet, width_one=one, width_two=two)):
            small: Any = extract(supernet, supernet.active)
            for ran in (model, small):
                train(ran, 4)
            assert_equal(active_statistics(supernet), statistics(small))
            model.eval()(batch())  # leaves them alone
        now = sets(supernet)
        for number in range(4):
            mean, counted = begun[f"norm.{number}.running_mean"], small.norm.running_mean
            if number == one:
                width = small.one.out_channels
                mean[:width] = counted[:width]
                assert now[f"norm.{number}.num_batches_tracked"] == begun[f"norm.{number}.num_batches_tracked"] + 1
            if number == two:
                mean[16 : 16 + small.two.out_channels] = counted[small.one.out_channels :]
            assert torch.equal(now[f"norm.{number}.running_mean"], mean)
    assert_equal(statistics(model), before)
