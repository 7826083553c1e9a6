"""The super-network: its maximum is the given model, its subnets use only their part, and it can be saved."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from bootstrapnas_ext.config import ElasticityConfig, KernelConfig, WidthConfig
from bootstrapnas_ext.errors import CheckpointError, ModelError, SubnetError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import (
    NETS,
    TORCHVISION,
    Flatten,
    Head,
    assert_close,
    assert_equal,
    build,
    conv_bn,
    image,
    other_input,
    outputs,
    own_state,
    some_subnets,
)

ALL = [*NETS, *TORCHVISION]


@pytest.mark.parametrize("name", ALL)
def test_the_maximum_is_the_given_model_exactly(name: str) -> None:
    model, example = build(name)
    other = other_input(example)
    with torch.no_grad():
        before = outputs(model, example), outputs(model, other)
        supernet = Supernet(model, example)
        assert supernet.active == supernet.space.maximum
        assert_equal(outputs(model, example), before[0])
        assert_equal(outputs(model, other), before[1])
        for subnet in some_subnets(supernet, 1):
            with supernet.activate(subnet):
                outputs(model, other)
        assert_equal(outputs(model, example), before[0])
        with supernet.activate(supernet.space.maximum):
            assert_equal(outputs(model, other), before[1])


@pytest.mark.parametrize("name", [*NETS, "mobilenet_v3_small"])
def test_the_maximum_trains_like_the_given_model_exactly(name: str) -> None:
    model, example = build(name)
    twin = copy.deepcopy(model).train()
    supernet = Supernet(model, example)
    model.train()
    other = other_input(example, 4)
    results = []
    for net in (twin, model):
        torch.manual_seed(3)
        results.append(outputs(net, other))
        sum(result.square().sum() for result in results[-1]).backward()  # type: ignore[union-attr]
    assert_equal(*results)
    assert supernet.active == supernet.space.maximum
    state = own_state(model)
    assert all(torch.equal(tensor, state[key]) for key, tensor in twin.state_dict().items())
    gradients = {key: p.grad for key, p in model.named_parameters() if "nncf" not in key}
    for key, parameter in twin.named_parameters():
        assert (parameter.grad is None) == (gradients[key] is None)
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[key])


@pytest.mark.parametrize("name", NETS)
def test_supernets_and_models_can_be_copied(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    twin = copy.deepcopy(supernet)
    bare = copy.deepcopy(model)
    subnet = supernet.space.minimum
    with torch.no_grad():
        whole = outputs(model, example)
        with supernet.activate(subnet):
            small = outputs(model, example)
            assert_equal(outputs(twin.model, example), whole)  # each has a subnet of its own
            assert_equal(outputs(bare, example), whole)
        with twin.activate(subnet):
            assert_equal(outputs(twin.model, example), small)
            assert_equal(outputs(model, example), whole)
        for parameter in twin.parameters():
            parameter.zero_()
        assert_equal(outputs(model, example), whole)
        assert_close(outputs(extract(twin, subnet), example), outputs(extract(twin, subnet), example))


@pytest.fixture
def supernet() -> Supernet:
    return Supernet(*build("residual"))


def test_the_subnet_before_runs_again_after_the_block(supernet: Supernet) -> None:
    one, two = some_subnets(supernet, 1)
    supernet.set_active(one)

    def fail() -> None:
        with supernet.activate(two):
            assert supernet.active == two
            raise ZeroDivisionError("any error")

    with pytest.raises(ZeroDivisionError, match="any error"):
        fail()
    assert supernet.active == one


def test_a_subnet_of_another_space_is_refused(supernet: Supernet) -> None:
    before = supernet.active
    for refuse in (supernet.set_active, supernet.cost, lambda subnet: supernet.activate(subnet).__enter__()):
        with pytest.raises(SubnetError, match="must be one of"):
            refuse({**supernet.space.maximum, "width:layer1.conv1": 5})
    assert supernet.active == before


def test_a_subnet_stays_active_when_a_forward_fails(supernet: Supernet) -> None:
    subnet = supernet.space.minimum
    with supernet.activate(subnet):
        expected = supernet.model(torch.ones(1, 3, 8, 8))
        with pytest.raises(RuntimeError, match="channels"):
            supernet.model(torch.ones(1, 4, 8, 8))
        assert torch.equal(supernet.model(torch.ones(1, 3, 8, 8)), expected)
    stem: Any = supernet.model.stem
    assert "weight" not in vars(stem[0])  # nothing is left in the place of the parameters
    assert stem[0].weight.shape[0] == 16


@pytest.mark.parametrize("name", NETS)
def test_a_state_is_restored(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    supernet.set_active(supernet.space.minimum)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    buffer = io.BytesIO()
    torch.save(supernet.state_dict(), buffer)
    buffer.seek(0)
    other = Supernet(*build(name, seed=1))
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert other.active == supernet.space.minimum
    with torch.no_grad():
        assert_equal(outputs(other.model, example), outputs(model, example))
        supernet.set_active(supernet.space.maximum)
        other.set_active(supernet.space.maximum)
        assert_equal(outputs(other.model, example), outputs(model, example))


def test_a_state_is_a_copy(supernet: Supernet) -> None:
    state = supernet.state_dict()
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.zero_()
    assert any(tensor.any() for name, tensor in state["model"].items() if name.endswith("weight"))


def damage(state: dict[str, Any], key: str) -> dict[str, Any]:
    if key == "no structure":
        del state["structure"]
    elif key == "no model":
        del state["model"]
    elif key == "no choices":
        del state["structure"]["choices"]
    elif key == "missing choice":
        del state["structure"]["choices"]["width:layer1.conv1"]
    elif key == "other values":
        state["structure"]["choices"]["width:layer1.conv1"] = [16, 8]
    elif key == "active":
        state["structure"]["active"]["width:layer1.conv1"] = 5
    elif key == "missing tensor":
        del state["model"]["stem.0.weight"]
    elif key == "another shape":
        state["model"]["stem.0.weight"] = torch.zeros(1)
    elif key == "no tensor":
        state["model"]["stem.0.weight"] = 3
    elif key == "one more tensor":
        state["model"]["more"] = torch.zeros(1)
    return state


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("no structure", "has no 'structure'"),
        ("no model", "has no 'model'"),
        ("no choices", "has no 'choices' or no 'active'"),
        ("missing choice", r"choice 'width:layer1\.conv1' is missing there and \[16, 12, 8, 4\] here"),
        ("other values", r"choice 'width:layer1\.conv1' is \[16, 8\] there and \[16, 12, 8, 4\] here"),
        ("active", r"damaged: Choice 'width:layer1\.conv1' must be one of \[16, 12, 8, 4\], but got 5"),
        ("missing tensor", r"tensor 'stem\.0\.weight' is missing, but of shape \(16, 3, 3, 3\) in the model"),
        ("another shape", r"tensor 'stem\.0\.weight' is of shape \(1,\), but of shape \(16, 3, 3, 3\) in the model"),
        ("no tensor", r"tensor 'stem\.0\.weight' is missing"),
        ("one more tensor", r"tensor 'more' is of shape \(1,\), but not in the model"),
    ],
)
def test_the_state_of_another_supernet_changes_nothing(supernet: Supernet, key: str, message: str) -> None:
    before = own_state(supernet.model)
    other = Supernet(*build("residual", seed=1))
    other.set_active(other.space.minimum)
    state = damage(other.state_dict(), key)
    with pytest.raises(CheckpointError, match=message):
        supernet.load_state_dict(state)
    assert all(torch.equal(before[name], tensor) for name, tensor in own_state(supernet.model).items())
    assert supernet.active == supernet.space.maximum


def test_a_structure_is_restored_without_the_weights(supernet: Supernet) -> None:
    other = Supernet(*build("residual", seed=1))
    other.set_active(other.space.minimum)
    before = own_state(supernet.model)
    supernet.load_structure(other.structure())
    assert supernet.active == other.space.minimum
    assert all(torch.equal(before[name], tensor) for name, tensor in own_state(supernet.model).items())
    wrong = other.structure()
    wrong["active"].popitem()
    with pytest.raises(CheckpointError, match="damaged: The subnet has no value for the choice"):
        supernet.load_structure(wrong)


class Fails(Flatten):
    """Cannot be called."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("five is no image")


class RandomOutputs(Flatten):
    """Dropout that ignores the mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5, training=True))


class ObjectOutput(Flatten):
    """Returns an object of which nobody knows the tensors."""

    def forward(self, x: Tensor) -> Any:
        return type("Result", (), {"logits": super().forward(x)})()


class ReadsWidth(nn.Module):
    """Code that refuses to run with fewer channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 16, 1), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if x.shape[1] != 16:
            raise ValueError("sixteen channels are needed")
        return self.head(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Fails(), "Fails could not be traced with this input: ValueError: five is no image.*Check `input_info`"),
        (RandomOutputs(), "gives other outputs for the same input in eval mode.*remove what is random"),
        (ObjectOutput(), "must return a tensor, or tuples, lists or dictionaries of them, but it returned a Result"),
        (nn.Sequential(nn.ReLU(), nn.Flatten()), "Nothing of Sequential is elastic.*No layer with a weight"),
        (nn.Conv2d(3, 8, 1), "Nothing of Conv2d is elastic.*width of weight: output of the model"),
        (
            ReadsWidth(),
            "Nothing of.*width of conv: the model does not run with less of it: sixteen channels",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_model_of_which_no_supernet_can_be_made_stays_as_it_was(model: nn.Module, message: str) -> None:
    model.train()
    if isinstance(model, Flatten):
        model.pool.eval()
    modes = [module.training for module in model.modules()]
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    state = own_state(model)
    with pytest.raises(ModelError, match=message):
        Supernet(model, ExampleInput((image(),)))
    assert [module.training for module in model.modules()] == modes
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_wrong_inputs_are_an_error_of_the_model() -> None:
    model, _ = build("two_inputs")
    with pytest.raises(ModelError, match="TypeError: missing a required argument: 'y'"):
        Supernet(model, ExampleInput((image(),)))


def test_a_supernet_is_made_of_a_plain_model_only(supernet: Supernet) -> None:
    with pytest.raises(ModelError, match="has NNCF hooks already"):
        Supernet(supernet.model, supernet.example)
    assert supernet.model(image()).shape == (1, 5)


def test_building_keeps_modes_and_statistics() -> None:
    model, example = build("residual")
    model.train()
    model.layer1.eval()
    state = own_state(model)
    Supernet(model, example)
    assert model.training
    assert not model.layer1.training
    assert all(torch.equal(state[name], tensor) for name, tensor in own_state(model).items())


def test_a_model_of_buffers_only() -> None:
    class Buffers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.matrix = nn.Buffer(torch.randn(16, 3, 1, 1)), nn.Buffer(torch.randn(5, 16))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.conv2d(x, self.kernel).mean((2, 3)), self.matrix)

    supernet = Supernet(Buffers(), ExampleInput((image(),)))
    assert supernet.device == torch.device("cpu")
    assert [choice.name for choice in supernet.space.choices] == ["width:kernel"]


def test_models_of_half_precision() -> None:
    model, example = build("kernels")
    example = example.map(Tensor.bfloat16)
    supernet = Supernet(model.bfloat16(), example)
    with supernet.activate(supernet.space.minimum):
        (active,) = outputs(model, example)
    assert active.dtype == torch.bfloat16
    assert_equal([active], outputs(extract(supernet, supernet.space.minimum), example))


def test_an_input_of_a_skipped_block_is_found_however_it_is_passed() -> None:
    class BlockOnTheSecondInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(conv_bn(3, 16), nn.Conv2d(16, 3, 1), nn.BatchNorm2d(3))
            self.head = Head(3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(2 * x + (y + self.branch(y)))

    torch.manual_seed(0)
    model = BlockOnTheSecondInput().eval()
    x, y = image(), image()
    supernet = Supernet(model, ExampleInput((), {"x": x, "y": y}))
    assert supernet.space.minimum["depth:/add/0"] == 0
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        expected = model.head(2 * x + y)
        for result in (model(x, y), model(x, y=y), model(x=x, y=y), model(y=y, x=x)):
            assert torch.equal(result, expected)


def test_a_skipped_block_does_not_overwrite_the_input() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(conv_bn(3, 16), nn.Conv2d(16, 3, 1), nn.BatchNorm2d(3))
            self.head = Head(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu_(x + self.branch(x)))

    model = InPlace().eval()
    x = image()
    kept = x.clone()
    supernet = Supernet(model, ExampleInput((x,)))
    with supernet.activate(supernet.space.minimum):
        model(x)
    assert "depth" in supernet.space.dimensions
    assert torch.equal(x, kept)


class SharedNorm(nn.Module):
    """One norm without weights for tensors of different widths: one module attribute, two numbers of groups."""

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_groups = 8

        def forward(self, x: Tensor) -> Tensor:
            return F.group_norm(x, self.num_groups)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm, self.head = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 96, 1), self.Norm(), Head(96)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.two(self.norm(self.one(x)))))


def test_a_module_that_is_called_with_different_widths() -> None:
    torch.manual_seed(0)
    model = SharedNorm().eval()
    supernet = Supernet(model, ExampleInput((image(),)))
    x = torch.randn(3, 3, 8, 8)
    for subnet in some_subnets(supernet, 4):
        one, two = (subnet[choice.name] for choice in supernet.space.choices)
        with supernet.activate(subnet), torch.no_grad():
            active = model(x)
        weight, bias = model.one.weight[: one * 8], model.one.bias[: one * 8]  # type: ignore[index]
        by_hand = F.group_norm(F.conv2d(x, weight, bias), one)
        weight, bias = model.two.weight[: two * 12, : one * 8], model.two.bias[: two * 12]  # type: ignore[index]
        by_hand = F.group_norm(F.conv2d(by_hand, weight, bias), two).mean((2, 3))
        expected = F.linear(by_hand, model.head.fc.weight[:, : two * 12], model.head.fc.bias)
        assert_close([active], [expected])


def reference(name: str, classes: int, size: int) -> Supernet:
    model = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    return Supernet(model, ExampleInput((torch.randn(1, 3, size, size),)))


@pytest.mark.parametrize(
    ("name", "classes", "size", "flops", "weights"),
    [("resnet50", 10, 32, 166_862_848, 23_475_392), ("mobilenet_v2", 1000, 224, 601_548_544, 3_469_760)],
)
def test_the_maximum_costs_what_nncf_2_reports(name: str, classes: int, size: int, flops: int, weights: int) -> None:
    supernet = reference(name, classes, size)
    cost = supernet.cost(supernet.space.maximum)
    assert 2 * cost.macs == flops
    assert cost.weights == weights


def test_only_what_the_config_names_is_elastic() -> None:
    model, example = build("residual")
    config = ElasticityConfig(
        available_elasticity_dims=("kernel", "width"),
        width=WidthConfig(max_num_widths=2),
        kernel=KernelConfig(transformation_matrices=False),
    )
    supernet = Supernet(model, example, config)
    assert supernet.space.dimensions == ("kernel", "width")
    assert {len(c.values) for c in supernet.space.choices} == {2}
    assert set(supernet.static_layers()) == {"kernel", "width"}
    assert not [name for name in model.state_dict() if "nncf" in name]
