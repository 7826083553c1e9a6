"""How a model runs as its active subnet: attributes in the place of arguments, hooks where code makes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.config import DepthConfig, ElasticityConfig
from bootstrapnas_ext.elasticity import ActiveSubnet, Hook, PortHook
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.execution import Place, Skip, collect_ports, same, shadowed
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import NETS, Head, assert_close, build, conv_bn, image, outputs, some_subnets

IN_CODE = {
    "pad_shortcut": {(":pad:0", 1)},
    "view_constant": {(":view:0", 2)},
    "view_tuple": {(":reshape:0", 1)},
    "split_list": {(":split:0", 1)},
    "functional": {(":conv2d:0", 2)},
    "language_model": {("layers.0:split:0", 1), ("layers.1:split:0", 1)},
    "windows": {
        *((f":view:{number}", port) for number, port in ((0, 6), (2, 3), (3, 6))),
        *((f":reshape:{number}", port) for number, port in ((0, 3), (1, 4), (2, 3), (3, 4))),
    },
}
"""The only nets whose code holds numbers that depend on the subnet, and where."""


@pytest.mark.parametrize("name", NETS)
def test_only_numbers_in_the_models_code_need_hooks_at_run_time(name: str) -> None:
    supernet = Supernet(*build(name))
    assert set(supernet.executor.code_hooks()) == IN_CODE.get(name, set())


def places(supernet: Supernet) -> set[tuple[str, str]]:
    return {(place.module, place.attribute) for port in supernet.executor.ports for place in port.places}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "mobile",
            {("blocks.0.depthwise.0", "groups"), ("blocks.0.depthwise.0", "padding"), ("stem.1", "running_var")},
        ),
        ("pad_attribute", {("padding", "pad")}),
        ("norms", {("group_norm", "num_groups"), ("layer_norm", "normalized_shape"), ("", "gain")}),
        ("functional", {("", "kernel"), ("", "mean"), ("", "variance"), ("", "matrix")}),
        ("tied", {("one", "weight"), ("two", "weight"), ("two", "bias")}),
    ],
)
def test_arguments_that_are_attributes_are_found(name: str, expected: set[tuple[str, str]]) -> None:
    assert places(Supernet(*build(name))) >= expected


def test_sizes_that_the_code_computes_right_are_left_alone() -> None:
    supernet = Supernet(*build("view_shape"))
    assert not [port for port in supernet.executor.ports if port.op.kind == "view"]


class ComputesFromAnother(nn.Module):
    """The code cuts channels that must stay into parts whose size it takes from channels that shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        z = self.two(y).mean((2, 3)).view(x.size(0), 3, y.size(1) // 2)
        return self.fc(z[:, 0] * z[:, 1].flip(1) + z[:, 2])


def test_sizes_that_the_code_computes_wrong_stay_as_they_were() -> None:
    torch.manual_seed(0)
    model = ComputesFromAnother().eval()
    supernet = Supernet(model, ExampleInput((image(),)))
    assert set(supernet.space.maximum) == {"width:one"}
    assert set(supernet.executor.code_hooks()) == {(":view:0", 3)}
    x = torch.randn(3, 3, 8, 8)
    for width in (12, 8, 4):
        with supernet.activate({"width:one": width}), torch.no_grad():
            active = model(x)
        y = F.conv2d(x, model.one.weight[:width], model.one.bias[:width])  # type: ignore[index]
        z = F.conv2d(y, model.two.weight[:, :width], model.two.bias).mean((2, 3)).view(3, 3, 8)
        assert_close([active], [model.fc(z[:, 0] * z[:, 1].flip(1) + z[:, 2])])
        assert_close([extract(supernet, {"width:one": width})(x)], [active])
    assert type(extract(supernet, supernet.space.maximum)) is ComputesFromAnother


class PlainReference(nn.Module):
    """The code uses a parameter by a reference that is no attribute, so that only a hook can change it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(16, 3, 3, 3))
        self.references = [self.kernel]
        self.fc = nn.Linear(16 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.conv2d(x, self.references[0], padding=1).view(-1, 16 * 64))


def test_what_hooks_compute_is_not_counted_as_operations_of_the_model() -> None:
    # The hook of the kernel calls `view` too; the model's own must still be found as the first one.
    torch.manual_seed(0)
    model = PlainReference().eval()
    supernet = Supernet(model, ExampleInput((image(),)))
    assert {(":conv2d:0", 1), (":view:0", 2)} <= set(supernet.executor.code_hooks())
    x = torch.randn(3, 3, 8, 8)
    for subnet in some_subnets(supernet, 3):
        width, size = subnet["width:kernel"], subnet["kernel:kernel"]
        with supernet.activate(subnet), torch.no_grad():
            active = model(x)
        edge = (3 - size) // 2
        kernel = model.kernel[:width, :, edge : 3 - edge, edge : 3 - edge]
        features = F.conv2d(x, kernel, padding=size // 2).flatten(1)
        assert_close([active], [F.linear(features, model.fc.weight[:, : width * 64], model.fc.bias)])


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ((1, 2), [1, 2], True),
        ((1, 2), (2, 1), False),
        (1, 1, True),
        (1, 2, False),
        (1, True, False),
        (1, 1.0, False),
        ("same", "same", True),
        ((1,), 1, False),
    ],
)
def test_arguments_are_compared_by_value_and_type(one: Any, two: Any, expected: bool) -> None:
    assert same(one, two) is expected


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


class Unchanged(PortHook):
    """Changes nothing."""

    def forward(self, value: Any) -> Any:
        return value


def test_a_hook_needs_an_operation_of_the_trace() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1))
    graph = _nncf.trace(model, (image(),), {})
    hook = Hook("0/conv2d/1", 1, None, Unchanged(ActiveSubnet(Subnet({}))))
    with pytest.raises(ModelError, match="meant for the operation '0/conv2d/1', which the model does not have"):
        collect_ports(model, graph, [hook])


def test_without_hooks_a_model_runs_as_it_is() -> None:
    supernet = Supernet(*build("concat"))
    executor = supernet.executor.without_hooks()
    forward = _nncf.original_forward(supernet.model)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        result = executor.run(forward, supernet.active, supernet.example)
    assert torch.equal(result, outputs(supernet.model, supernet.example)[0])


def test_hooks_are_registered_for_what_changes_only() -> None:
    supernet = Supernet(*build("view_shape"))
    keys = {key for key in supernet.model.state_dict() if "nncf" in key}
    assert len(keys) == 1  # the matrix of the kernel
    hooks = getattr(supernet.model, "__nncf_hooks").pre_hooks
    assert not [name for name in hooks if "view" in name]


class NamedResults(nn.Module):
    """A block in the model's own code that asks for one of several results by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = conv_bn(3, 16), conv_bn(16, 16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.branch(x)
        return self.head(x + y * y.max(dim=1, keepdim=True).values)


def test_results_with_names_keep_them_in_skipped_blocks() -> None:
    torch.manual_seed(0)
    model = NamedResults().eval()
    config = ElasticityConfig(available_elasticity_dims=("depth",), depth=DepthConfig(min_block_size=3))
    supernet = Supernet(model, ExampleInput((image(),)), config)
    x = torch.randn(2, 3, 8, 8)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        assert torch.equal(model(x), model.head(model.stem(x)))


def test_operations_of_skipped_blocks_do_not_run() -> None:
    supernet = Supernet(*build("loose"))
    ran: set[str] = set()
    forward = _nncf.original_forward(supernet.model)
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        supernet.executor.run(forward, supernet.active, supernet.example, lambda site, _: ran.add(site))
    traced = {op.site for op in supernet.graph.ops}
    skipped = {
        supernet.graph.ops[op].site for block in supernet.executor.skipped(supernet.space.minimum) for op in block.ops
    }
    assert ran & traced == traced - skipped
    assert len(skipped) == 3 * 6


class PairedAttention(nn.Module):
    """Attention that returns its weights too, in a structure of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, *, scale: float) -> tuple[dict[str, Tensor], Tensor | None]:
        query = self.query(x)
        scores = (query @ x.transpose(1, 2) * scale).softmax(-1)
        return {"mixed": self.out(scores @ x), "scores": scores}, None


class LoosePairs(nn.Module):
    """Residual blocks in the model's own code, around modules that return more than one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(PairedAttention() for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            result, nothing = block(x, scale=0.5)
            assert nothing is None
            x = x + result["mixed"]
        return self.head(x)


def test_a_module_of_several_results_is_left_out_as_a_whole() -> None:
    model = LoosePairs().eval()
    supernet = Supernet(model, torch.randn(2, 5, 6))
    subnet = supernet.space.minimum
    with torch.no_grad(), supernet.activate(subnet):
        skip = Skip(supernet.graph, supernet.executor.skipped(subnet))
        assert list(skip.replace) == [":add:0", ":add:1"]
        assert {place.module for place in skip.forwards} == {"blocks.0", "blocks.1"}
        x = torch.randn(3, 5, 6)
        torch.testing.assert_close(extract(supernet, subnet)(x), model(x))
        channels = subnet["width:stem"]
        smaller = F.linear(model.stem(x)[..., :channels], model.head.weight[:, :channels], model.head.bias)
        torch.testing.assert_close(model(x), smaller)  # a stem and a head are left
