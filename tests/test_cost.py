"""Computed costs of subnets against counted ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from bootstrapnas_ext.cost import MACS_RULES, Cost, Shape, ShapeOf
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.graph import Op, Ref
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import NETS, TORCHVISION, Head, build, image, outputs, some_subnets


def counted_macs(model: nn.Module, example: ExampleInput) -> int:
    # The counter does not know the attention kernel of the CPU, but the products that it stands for.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        outputs(model, example)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", [*NETS, *TORCHVISION])
def test_computed_costs_are_the_counted_ones(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    for subnet in [supernet.space.maximum, *some_subnets(supernet, 2)]:
        cost = supernet.cost(subnet)
        small = extract(supernet, subnet)
        assert cost.macs == counted_macs(small, example)
        assert cost.parameters == sum(parameter.numel() for parameter in small.parameters())
    assert supernet.cost(supernet.space.minimum).macs < supernet.cost(supernet.space.maximum).macs


def test_the_cost_needs_no_forward_and_leaves_the_active_subnet() -> None:
    model, example = build("residual")
    supernet = Supernet(model, example)
    expected = supernet.cost(supernet.space.minimum)

    def fail(*_: object) -> None:
        raise AssertionError

    model.register_forward_pre_hook(fail)
    assert supernet.cost(dict(supernet.space.minimum)) == expected
    assert supernet.active == supernet.space.maximum


def test_costs_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), Head(16)).eval()
    supernet = Supernet(model, ExampleInput((torch.randn(2, 3, 8, 8),)))
    subnet = Subnet({"width:0": 8, "kernel:0": 1})
    assert supernet.cost(subnet) == Cost(
        macs=2 * (8 * 3 * 64 + 8 * 5), parameters=8 * 3 + 8 + 2 * 8 + 8 * 5 + 5, weights=8 * 3 + 8 * 5
    )
    small = supernet.cost({"width:0": 4, "kernel:0": 3})
    assert small == Cost(macs=2 * (4 * 27 * 64 + 4 * 5), parameters=4 * 27 + 4 + 8 + 20 + 5, weights=4 * 27 + 20)


def test_shared_weights_count_once_and_their_operations_twice() -> None:
    model, example = build("tied")
    supernet = Supernet(model, example)
    tied = 16 * 16 * 9
    cost = supernet.cost(supernet.space.maximum)
    assert cost.weights == 16 * 27 + tied + 16 * 5
    assert cost.macs == 64 * (16 * 27 + 2 * tied) + 16 * 5


CALLS = {
    "conv1d": (torch.conv1d, [(2, 4, 9), (6, 2, 3)], {"groups": 2}),
    "conv2d": (torch.conv2d, [(2, 4, 9, 8), (6, 4, 3, 2)], {"stride": 2}),
    "conv2d without batch": (torch.conv2d, [(4, 9, 8), (6, 4, 3, 2)], {}),
    "conv3d": (torch.conv3d, [(1, 4, 5, 5, 5), (4, 1, 3, 3, 3)], {"groups": 4, "padding": 1}),
    "conv_transpose1d": (torch.conv_transpose1d, [(2, 4, 9), (4, 6, 3)], {}),
    "conv_transpose2d": (torch.conv_transpose2d, [(2, 4, 5, 6), (4, 3, 3, 2)], {"stride": 2}),
    "conv_transpose3d": (torch.conv_transpose3d, [(2, 4, 3, 3, 3), (4, 3, 2, 2, 2)], {}),
    "linear": (nn.functional.linear, [(2, 3, 7), (5, 7)], {}),
    "matmul": (torch.matmul, [(2, 3, 4, 5), (2, 3, 5, 6)], {}),
    "bmm": (torch.bmm, [(3, 4, 5), (3, 5, 6)], {}),
    "mm": (torch.mm, [(4, 5), (5, 6)], {}),
    "rmatmul": (Tensor.__rmatmul__, [(4, 5), (6, 4)], {}),
    "addmm": (torch.addmm, [(6,), (4, 5), (5, 6)], {}),
    "baddbmm": (torch.baddbmm, [(3, 4, 6), (3, 4, 5), (3, 5, 6)], {}),
    "inner": (torch.inner, [(3, 4), (5, 4)], {}),
    "tensordot": (torch.tensordot, [(3, 4, 5), (4, 5, 6)], {"dims": 2}),
    "einsum": (partial(torch.einsum, "bihd,bjhd->bhij"), [(2, 3, 4, 5), (2, 6, 4, 5)], {}),
    "einsum without arrow": (partial(torch.einsum, "...c,cd"), [(2, 3, 5), (5, 6)], {}),
    "einsum of three": (partial(torch.einsum, "bij,jk,bk->bi"), [(2, 3, 4), (4, 5), (2, 5)], {}),
    "einsum with dots": (partial(torch.einsum, "b...d,de->b...e"), [(2, 3, 4, 5), (5, 6)], {}),
}


def operation(kind: str, shapes: Sequence[Shape], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Op, ShapeOf]:
    """Returns an operation whose output has the last of the shapes, and what knows them all."""

    def shape(value: Ref | int) -> Shape:
        return shapes[value.value if isinstance(value, Ref) else value]

    return Op(kind, kind, "", args, kwargs, (len(shapes) - 1,)), shape


@pytest.mark.parametrize("name", CALLS)
def test_each_rule_counts_as_pytorch_does(name: str) -> None:
    function, shapes, options = CALLS[name]
    kind = name.split()[0]
    tensors = [torch.zeros(shape) for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        result = function(*tensors, **options)
    before, refs = getattr(function, "args", ()), tuple(map(Ref, range(len(shapes))))
    op, shape = operation(kind, [*shapes, tuple(result.shape)], (*before, *refs), options)
    assert 2 * MACS_RULES.get(kind)(op, shape) == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("kind", "function", "arguments"),
    [
        ("linear", nn.functional.linear, {"weight": (5, 7), "input": (2, 3, 7)}),
        ("matmul", torch.matmul, {"other": (3, 5, 6), "input": (3, 4, 5)}),
        ("conv2d", torch.conv2d, {"bias": (6,), "weight": (6, 4, 3, 2), "input": (2, 4, 9, 8)}),
        ("addmm", torch.addmm, {"mat2": (5, 6), "mat1": (4, 5), "input": (6,)}),
    ],
)
def test_names_tell_which_argument_is_which(kind: str, function: Any, arguments: dict[str, Shape]) -> None:
    with FlopCounterMode(display=False) as counter:
        result = function(**{name: torch.zeros(shape) for name, shape in arguments.items()})
    shapes = [*arguments.values(), tuple(result.shape)]
    op, shape = operation(kind, shapes, (), {name: Ref(number) for number, name in enumerate(arguments)})
    assert 2 * MACS_RULES.get(kind)(op, shape) == counter.get_total_flops() > 0


def test_attention_counts_as_pytorch_does_where_it_counts_it() -> None:
    # The counter has a formula, but does not apply it to the kernel of the CPU.
    query, key, value = (2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 7)
    op, shape = operation("attention", [query, key, value, (2, 3, 4, 7)], (Ref(0), Ref(1), Ref(2)), {})
    found = MACS_RULES.get("scaled_dot_product_attention")(op, shape)
    assert 2 * found == sdpa_flop_count(query, key, value) > 0


class Recurrent(nn.Module):
    """A layer or cells between two linear layers, which take its sequence of states."""

    def __init__(self, layer: nn.Module, features: int) -> None:
        super().__init__()
        self.one, self.layer, self.two = nn.Linear(6, 16), layer, nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        if isinstance(self.layer, nn.RNNCellBase):
            state: Any = None
            for step in x.unbind(1):
                state = self.layer(step, state)
            x = state[0] if isinstance(state, tuple) else state
        else:
            x = self.layer(x)[0].mean(1)
        return self.two(x)


RECURRENT = {
    "gru": (lambda: nn.GRU(16, 12, num_layers=2, batch_first=True, bidirectional=True), 24),
    "gru without bias": (lambda: nn.GRU(16, 12, batch_first=True, bias=False), 12),
    "rnn_tanh": (lambda: nn.RNN(16, 12, batch_first=True), 12),
    "rnn_relu": (lambda: nn.RNN(16, 12, batch_first=True, nonlinearity="relu"), 12),
    "gru_cell": (lambda: nn.GRUCell(16, 12), 12),
    "lstm_cell": (lambda: nn.LSTMCell(16, 12), 12),
    "rnn_tanh_cell": (lambda: nn.RNNCell(16, 12), 12),
    "rnn_relu_cell": (lambda: nn.RNNCell(16, 12, nonlinearity="relu"), 12),
    "lstm": (lambda: nn.LSTM(16, 12, num_layers=2, batch_first=True), 12),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_are_elastic_and_counted(name: str) -> None:
    torch.manual_seed(0)
    layer, features = RECURRENT[name]
    model = Recurrent(layer(), features).eval()
    supernet = Supernet(model, torch.randn(2, 7, 6))
    assert name.split()[0] in {op.kind for op in supernet.graph.ops}
    assert {choice.values[0] for choice in supernet.space.choices} == {16, 12}
    assert not supernet.refused
    x = torch.randn(3, 9 if "cell" not in name else 7, 6)
    for subnet in [supernet.space.maximum, *some_subnets(supernet, 2)]:
        small = extract(supernet, subnet)
        with torch.no_grad(), supernet.activate(subnet):
            torch.testing.assert_close(small(x), model(x))
        counted = counted_macs(small, supernet.example)
        if name == "lstm":  # PyTorch does not see into its kernel
            weights = [weight for weight in small.layer.parameters() if weight.ndim == 2]
            counted += 2 * 7 * sum(weight.numel() for weight in weights)
        assert supernet.cost(subnet).macs == counted


def test_every_rule_is_tested() -> None:
    tested = {name.split()[0] for name in (*CALLS, *RECURRENT)}
    assert tested | {"scaled_dot_product_attention"} == set(MACS_RULES)


def test_a_part_of_the_model_without_batch_counts_once() -> None:
    class WithoutBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 16, 3), nn.Linear(16, 16), nn.Linear(16, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(torch.relu(self.one(self.conv(x[0]).mean((1, 2)))))

    model, example = WithoutBatch().eval(), ExampleInput((image(),))
    supernet = Supernet(model, example)
    for subnet in some_subnets(supernet, 2):
        assert supernet.cost(subnet).macs == counted_macs(extract(supernet, subnet), example)
