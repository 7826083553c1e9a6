"""How a model runs as its active subnet: attributes in the place of arguments, hooks where code makes them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import NETS, assert_close, build, image, outputs, some_subnets

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
    assert set(supernet.executor.code_hooks) == IN_CODE.get(name, set())


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
    assert set(supernet.executor.code_hooks) == {(":view:0", 3)}
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
    assert {(":conv2d:0", 1), (":view:0", 2)} <= set(supernet.executor.code_hooks)
    x = torch.randn(3, 3, 8, 8)
    for subnet in some_subnets(supernet, 3):
        width, size = subnet["width:kernel"], subnet["kernel:kernel"]
        with supernet.activate(subnet), torch.no_grad():
            active = model(x)
        edge = (3 - size) // 2
        kernel = model.kernel[:width, :, edge : 3 - edge, edge : 3 - edge]
        features = F.conv2d(x, kernel, padding=size // 2).flatten(1)
        assert_close([active], [F.linear(features, model.fc.weight[:, : width * 64], model.fc.bias)])


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


class SplitsHeads(nn.Module):
    """Makes one tuple of sizes of which one is the subnet's and another the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.values, self.out = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length = tokens.shape
        sizes = (batch, length, 4, 4)
        heads = self.values(self.embedding(tokens)).view(sizes).transpose(1, 2)
        return self.out((heads * heads.mean(2, keepdim=True)).transpose(1, 2).reshape((batch, length, 4 * 4)))


def test_sizes_that_are_the_inputs_stay_the_inputs() -> None:
    torch.manual_seed(0)
    model = SplitsHeads().eval()
    plain = copy.deepcopy(model)
    supernet = Supernet(model, torch.randint(0, 20, (2, 7)))
    longer = torch.randint(0, 20, (3, 11))
    with torch.no_grad():
        assert torch.equal(model(longer), plain(longer))
        with supernet.activate({**supernet.space.minimum, "width:values": 1}):
            x = F.linear(model.embedding(longer)[..., : supernet.active["width:embedding"]], *first_head(supernet))
            assert_close(
                [model(longer)], [F.linear(x * x.mean(1, keepdim=True), model.out.weight[:, :4], model.out.bias)]
            )


def first_head(supernet: Supernet) -> tuple[Tensor, Tensor]:
    linear = supernet.model.values
    return linear.weight[:4, : supernet.active["width:embedding"]], linear.bias[:4]


class ManyPairs(nn.Module):
    """Takes the width of each layer from another layer, whose width is as large in some subnets."""

    def __init__(self) -> None:
        super().__init__()
        self.ones, self.twos, self.heads = (nn.ModuleList(nn.Linear(8, 8) for _ in range(24)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        total = x.new_zeros(())
        for one, two, head in zip(self.ones, self.twos, self.heads, strict=True):
            y, other = one(x), two(x)
            total = total + head(y.view(x.shape[0], other.shape[1])) + other.sum()
        return total


def test_what_is_right_by_chance_is_told_from_what_is_right() -> None:
    torch.manual_seed(0)
    model = ManyPairs().eval()
    supernet = Supernet(model, torch.randn(2, 8))
    rng = np.random.default_rng(5)
    x = torch.randn(3, 8)
    for _ in range(3):
        subnet = supernet.sample(rng)
        with torch.no_grad(), supernet.activate(subnet):
            assert model(x).shape == (3, 8)


def test_any_two_choices_are_small_without_the_other_in_some_subnet() -> None:
    supernet = Supernet(ManyPairs().eval(), torch.randn(2, 8))
    names = [choice.name for choice in supernet.space.choices if choice.dimension == "width"]
    subnets = supernet._told_apart()
    assert len(names) == 48  # of the layers of both lists
    assert len(subnets) == 12
    small = {name: {number for number, one in enumerate(subnets) if one[name] < 8} for name in names}
    assert all(small[one] - small[two] for one in names for two in names if one != two)
