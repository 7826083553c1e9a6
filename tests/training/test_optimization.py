"""Parameter groups and memory layouts."""

from __future__ import annotations

import torch
from torch import nn

from bootstrapnas_ext import Supernet
from bootstrapnas_ext.training import weight_decay_groups
from bootstrapnas_ext.training.optimization import channels_last, make_channels_last


class Net(nn.Module):
    """A large kernel, two kinds of norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 5, padding=2)
        self.batch_norm = nn.BatchNorm2d(16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.head(self.pointwise(self.batch_norm(self.conv(x)).relu()).mean(dim=(2, 3))))


def test_weights_decay_and_norms_and_biases_do_not() -> None:
    model = Net()
    decaying, exempt = weight_decay_groups(model.parameters(), 0.1)
    assert (decaying["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)
    expected = [model.conv.weight, model.pointwise.weight, model.head.weight]
    assert {id(p) for p in decaying["params"]} == {id(p) for p in expected}
    assert len(exempt["params"]) == 3 + 2 + 2
    assert [len(group["params"]) for group in weight_decay_groups([model.head.bias], 0.1)] == [1]


def test_groups_of_a_supernet_hold_everything_that_is_trained_the_matrices_of_kernels_too() -> None:
    torch.manual_seed(0)
    model = Net()
    own = {id(parameter) for parameter in model.parameters()}
    supernet = Supernet(model, torch.randn(1, 3, 8, 8))
    grouped = [p for group in weight_decay_groups(supernet.parameters(), 0.1) for p in group["params"]]
    matrices = [parameter for parameter in grouped if id(parameter) not in own]
    assert own < {id(parameter) for parameter in grouped}
    assert [tuple(matrix.shape) for matrix in matrices] == [(9, 9), (1, 1)], "from 5 to 3, from 3 to 1"
    before = [matrix.clone() for matrix in matrices]
    optimizer = torch.optim.SGD(grouped, lr=0.1)
    with supernet.activate(supernet.space.minimum):
        model(torch.randn(4, 3, 8, 8)).square().mul(torch.randn(4, 4)).sum().backward()
    optimizer.step()
    assert all(not torch.equal(matrix, old) for matrix, old in zip(matrices, before, strict=True))
    supernet.release()


def test_channels_last_changes_layout_and_nothing_else() -> None:
    model = Net().eval()
    x = torch.randn(2, 3, 8, 8)
    before, parameters = model(x), list(model.parameters())
    make_channels_last(model)
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(mine is other for mine, other in zip(parameters, model.parameters(), strict=True))
    torch.testing.assert_close(model(channels_last(x)), before)
    assert channels_last(x).is_contiguous(memory_format=torch.channels_last)
    assert channels_last(before) is before


def test_supernet_works_in_channels_last() -> None:
    torch.manual_seed(0)
    model = Net().eval()
    supernet = Supernet(model, torch.randn(1, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    subnets = (supernet.space.maximum, supernet.space.minimum)
    outputs = []
    for _ in range(2):
        for subnet in subnets:
            with supernet.activate(subnet):
                outputs.append(model(channels_last(x)))
        make_channels_last(model)
    for before, after in zip(outputs[:2], outputs[2:], strict=True):
        torch.testing.assert_close(before, after)
    supernet.release()
