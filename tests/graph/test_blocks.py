"""Blocks that may be skipped: the ones that a person would name, and none whose skipping would break something."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.graph import Propagation
from bootstrapnas_ext.graph.blocks import Block, block_between, find_blocks, find_chains
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import BasicBlock, Head, assert_close, build, conv_bn, outputs, randomize_norms, some_subnets


def propagate(model: nn.Module, *args: Tensor) -> Propagation:
    return Propagation(_nncf.trace(model.eval(), args, {}))


def of_zoo(name: str) -> Propagation:
    model, example = build(name)
    return Propagation(_nncf.trace(model, example.args, example.kwargs))


def modules(blocks: list[Block]) -> list[str]:
    return [",".join(call.module for call in block.calls) for block in blocks]


def ends(p: Propagation, blocks: list[Block]) -> list[str]:
    return [p.graph.ops[block.ops[-1]].name for block in blocks]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chain", []),
        ("residual", ["layer1", "layer2.1", "layer2.2"]),
        ("mobile", ["blocks.0", "blocks.1"]),
        ("module_gate", ["gate"]),
        ("pre_activation", ["blocks.0", "blocks.1"]),
        ("nested_skips", ["one", "two"]),
        ("concat", []),
    ],
)
def test_blocks_that_are_modules(name: str, expected: list[str]) -> None:
    assert modules(find_blocks(of_zoo(name), 3, 50)) == expected


def test_blocks_that_are_no_modules_are_found_by_their_addition() -> None:
    p = of_zoo("loose")
    blocks = find_blocks(p, 5, 50)
    assert ends(p, blocks) == ["/add/0", "/add/1", "/add/2"]
    assert all(block.residual and not block.calls for block in blocks)
    assert [len(chain) for chain in find_chains(blocks)] == [1, 1, 1]  # an activation is between any two


def test_resnet50_has_twelve_blocks_in_four_chains() -> None:
    blocks = find_blocks(propagate(torchvision.models.resnet50(weights=None), torch.randn(1, 3, 32, 32)), 5, 50)
    assert len(blocks) == 12
    assert [len(chain) for chain in find_chains(blocks)] == [2, 3, 5, 2]
    assert modules(blocks)[:3] == ["layer1.1", "layer1.2", "layer2.1"]


def test_sizes_of_blocks_are_limited() -> None:
    p = of_zoo("residual")
    assert {len(block.ops) for block in find_blocks(p, 7, 7)} == {7}
    assert all(len(block.ops) >= 8 for block in find_blocks(p, 8, 50))
    assert "layer1" not in modules(find_blocks(p, 8, 50)) + modules(find_blocks(p, 1, 6))


def test_a_block_needs_a_layer_with_weights() -> None:
    model = nn.Sequential(conv_bn(3, 8), nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid()), conv_bn(8, 8))
    found = modules(find_blocks(propagate(model, torch.randn(1, 3, 8, 8)), 1, 50))
    assert "1" not in found


class ReadInside(nn.Module):
    """The middle of what looks like a block is used again behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv_bn(3, 8), conv_bn(8, 8), conv_bn(8, 8)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        middle = self.one(x)
        return self.head(x + self.two(middle) + middle)


def test_nothing_inside_a_block_is_read_outside() -> None:
    p = propagate(ReadInside(), torch.randn(1, 3, 8, 8))
    for block in find_blocks(p, 1, 50):
        inside = {value for op in block.ops for value in p.graph.ops[op].outputs} - {block.exit}
        for index, op in enumerate(p.graph.ops):
            assert index in block.ops or inside.isdisjoint(op.tensors)


class OnTheInput(nn.Module):
    """A block that begins at the model's input and is followed by an operation that overwrites its argument."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 3, 1), nn.BatchNorm2d(3))
        self.head = Head(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu_(x + self.branch(x)))


class OnAnOutput(OnTheInput):
    """The same in the middle, where the entry is returned too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.stem(x)
        return x, super().forward(x)


@pytest.mark.parametrize("model", [OnTheInput(), OnAnOutput()])
def test_the_in_place_operation_behind_a_block_belongs_to_it(model: nn.Module) -> None:
    p = propagate(model, torch.randn(1, 3, 8, 8))
    (block,) = [block for block in find_blocks(p, 5, 50) if block.residual]
    assert p.graph.ops[block.ops[-1]].name == "/relu_/0"  # else it would overwrite the entry of the skipped block


def test_blocks_are_named_by_the_operations_around_them() -> None:
    p = of_zoo("residual")
    block = block_between(p, "stem/2/relu/0", "layer1/relu/relu_/1")
    assert modules([block]) == ["layer1"]
    two = block_between(p, "layer2/0/relu/relu_/1", "layer2/2/relu/relu_/1")
    assert modules([two]) == ["layer2.1,layer2.2"]


@pytest.mark.parametrize(
    ("before", "last", "message"),
    [
        (
            "stem/2/relu/7",
            "layer1/relu/relu_/1",
            "must name operations of the model, but got 'stem/2/relu/7'. Did you mean",
        ),
        ("stem/2/relu/0", "nothing", "must name operations of the model, but got 'nothing'"),
        ("layer1/relu/relu_/1", "stem/2/relu/0", "may not be skipped"),
        ("stem/2/relu/0", "layer2/0/relu/relu_/1", "may not be skipped"),
        ("layer1/conv1/conv2d/0", "layer1/relu/relu_/1", "may not be skipped"),
        ("layer2/0/conv1/conv2d/0", "layer2/0/conv2/conv2d/0", "may not be skipped"),
    ],
)
def test_a_named_block_that_may_not_be_skipped(before: str, last: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        block_between(of_zoo("residual"), before, last)


class Assigns(nn.Module):
    """A branch that writes into its own result by index."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = conv_bn(3, 8), BasicBlock(8, 8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.branch.bn1(self.branch.conv1(x))
        y[:, :, 0] = 0
        return self.head(x + self.branch.conv2(y))


def test_a_named_block_may_begin_with_an_input_of_the_model() -> None:
    p = propagate(nn.Sequential(BasicBlock(3, 3), nn.Conv2d(3, 4, 1)).eval(), torch.ones(1, 3, 8, 8))
    (name,) = [value.name for value in p.graph.values if value.source == "input"]
    block = block_between(p, name, "0/relu/relu_/1")
    assert (p.graph.values[block.entry].source, modules([block])) == ("input", ["0"])
    with pytest.raises(ModelError, match="may not be skipped"):
        block_between(p, name, "1/conv2d/0")


def test_an_assignment_by_index_belongs_to_the_block() -> None:
    model = randomize_norms(Assigns()).eval()
    p = propagate(model, torch.randn(1, 3, 8, 8))
    (block,) = [block for block in find_blocks(p, 1, 50) if block.residual]
    assert [p.graph.ops[op].kind for op in block.ops] == ["conv2d", "batch_norm", "setitem", "conv2d", "add"]
    with pytest.raises(ModelError, match="may not be skipped"):
        block_between(p, "stem/2/relu/0", "/__setitem__/0")
    supernet = Supernet(model, torch.randn(2, 3, 8, 8))
    x = torch.randn(3, 3, 8, 8)
    for subnet in some_subnets(supernet, 2):
        with supernet.activate(subnet), torch.no_grad():
            assert_close(outputs(model, ExampleInput((x,))), outputs(extract(supernet, subnet), ExampleInput((x,))))


class OverwritesBehindAChain(nn.Module):
    """Two blocks in a row, then an in-place operation, then a use of what entered the first block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(ResidualBlock(8), ResidualBlock(8))

    def forward(self, x: Tensor) -> Tensor:
        entered = self.stem(x)
        y = nn.functional.relu(self.blocks(entered), inplace=True)
        return (y - entered).mean((2, 3))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def test_an_in_place_operation_behind_a_chain_spoils_no_entry() -> None:
    p = propagate(OverwritesBehindAChain(), torch.randn(1, 3, 8, 8))
    blocks = find_blocks(p, 5, 50)
    assert [block.calls[0].module for block in blocks] == ["blocks.0"]


class MaskedLayer(nn.Module):
    """A layer of which only a part is a module, and which also reads what the model has made of another input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mix, self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = self.norm1(x + self.mix(x) * weights)
        return self.norm2(x + self.down(F.relu(self.up(x))))


class Masked(nn.Module):
    """Layers that share what is made of a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layers, self.fc = nn.Linear(6, 16), nn.ModuleList([MaskedLayer(), MaskedLayer()]), Head(16)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x, weights = self.embed(x), mask.float().unsqueeze(-1) * 0.5
        for layer in self.layers:
            x = layer(x, weights)
        return self.fc(x.transpose(1, 2).unsqueeze(-1))


def test_a_whole_layer_that_reads_a_mask_is_a_block() -> None:
    model = randomize_norms(Masked()).eval()
    example = ExampleInput((torch.randn(2, 4, 6), torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])))
    blocks = find_blocks(propagate(model, *example.args), 5, 100)
    assert [[call.module for call in block.calls] for block in blocks] == [["layers.0"], ["layers.1"]]
    supernet = Supernet(model, example)
    for subnet in some_subnets(supernet, 3):
        small = extract(supernet, subnet)
        assert type(small) is Masked
        with supernet.activate(subnet), torch.no_grad():
            assert_close(outputs(model, example), outputs(small, example))
