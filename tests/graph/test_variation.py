"""What a second trace with another input tells: the sizes that follow the batch, and paths that follow the input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.deployment import deploy
from bootstrapnas_ext.errors import ExportError, ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.graph.variation import with_varying_sizes
from bootstrapnas_ext.supernet import Supernet


class Net(nn.Module):
    """Two layers and a function between the hidden channels and the head."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.between = between
        self.calls = 0
        self.cache: Tensor | None = None
        self.stem, self.other, self.head = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        return self.between(self, x)


def value_branch(net: Any, x: Tensor) -> Tensor:
    y = net.stem(x)
    return net.head(F.relu(y) if x.sum() > 0 else torch.sigmoid(y))


def wiring_branch(net: Any, x: Tensor) -> Tensor:
    one, two = net.stem(x), net.other(x)
    return net.head(F.relu(one if x.sum() > 0 else two))


def returning_branch(net: Any, x: Tensor) -> Tensor:
    one, two = net.head(net.stem(x)), net.head(net.other(x))
    return one if x.sum() > 0 else two


def batch_loop(net: Any, x: Tensor) -> Tensor:
    return net.head(torch.stack([F.relu(net.stem(x[index])) for index in range(len(x))]))


def batch_list(net: Any, x: Tensor) -> list[Tensor]:
    return list(net.head(net.stem(x)))


def longer(net: Any, x: Tensor) -> Tensor:
    y = net.head(net.stem(x))
    return y if len(x) == 2 else F.relu(y)


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (value_branch, r"the operations '/relu/0' and '/sigmoid/0' stand at the same place of two traces"),
        (wiring_branch, r"the operation '/relu/0' reads \['stem/linear/0'\] and \['other/linear/0'\] in two traces"),
        (returning_branch, r"it returns the results of \['head/linear/0'\] and \['head/linear/1'\] in two traces"),
        (batch_loop, r"the operations '/stack/0' and '/__getitem__/2' stand at the same place of two traces"),
        (batch_list, r"the operation '/unbind/0' returns 2 tensors in one trace and 3 in another"),
        (longer, r"the operations the end and '/relu/0' stand at the same place of two traces"),
    ],
)
def test_paths_that_follow_the_input(between: Callable[[nn.Module, Tensor], Any], message: str) -> None:
    advice = "Make the part that does not branch a module of its own, for example the backbone"
    with pytest.raises(ModelError, match=f"{message}\\. {advice}"):
        Supernet(Net(between), torch.ones(2, 8))


def test_a_list_of_another_length_is_another_path() -> None:
    class Sum(nn.Module):
        def forward(self, tensors: list[Tensor]) -> Tensor:
            return tensors[0] * 2

    one, two = ([torch.ones(2)] * count for count in (1, 2))
    graphs = [_nncf.trace(Sum(), ([tensor.clone() for tensor in tensors],), {}) for tensors in (one, two)]
    with pytest.raises(ModelError, match="uses 2 tensors in one trace and 3 in another"):
        with_varying_sizes(*graphs)


def test_sizes_that_follow_the_batch_are_marked() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(F.relu(net.stem(x)).t().contiguous().t())

    graph = Supernet(Net(run), torch.ones(2, 8)).graph
    varying = {value.name: value.varying for value in graph.values}
    assert varying["x"] == varying["stem/linear/0"] == (0,)
    assert varying["/contiguous/0"] == (1,)
    assert varying["stem.weight"] == ()
    assert graph.takes_any_batch


def test_a_copy_that_only_some_batch_sizes_need_is_no_other_path() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.stem(x).t().contiguous().t())  # a transposed batch of 1 is contiguous already

    model = Net(run)
    supernet = Supernet(model, torch.ones(1, 8))
    with torch.no_grad(), supernet.activate(supernet.space.minimum):
        assert model(torch.ones(5, 8)).shape == (5, 4)


def test_a_cache_that_the_first_run_fills_is_no_other_path() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        if net.cache is None:
            net.cache = torch.linspace(0, 1, 8).sqrt()
        return net.head(F.relu(net.stem(x * net.cache)))

    graph = Supernet(Net(run), torch.ones(2, 8)).graph
    assert [op.kind for op in graph.ops] == ["linspace", "sqrt", "mul", "linear", "relu", "linear"]


def test_values_that_the_model_refuses_leave_the_batch_known() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        if bool((x < 0).any()):
            raise ValueError("no negative numbers")
        return net.head(F.relu(net.stem(x)))

    model = Net(run)
    graph = Supernet(model, torch.ones(2, 8)).graph
    assert graph.takes_any_batch


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_for_one_batch_size_has_fixed_sizes(batch: int, tmp_path: Path) -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(F.relu(net.stem(x)).view(batch, 16))  # written into the code, so a graph is extracted

    model, x = Net(run), torch.randn(batch, 8)
    supernet = Supernet(model, x)
    assert not supernet.graph.takes_any_batch
    subnet = supernet.space.minimum
    small = extract(supernet, subnet)
    with torch.no_grad(), supernet.activate(subnet):
        assert torch.allclose(small(x), model(x), atol=1e-6)
    with pytest.raises(ExportError, match=r"The model cannot run a batch of \d: shape .* a batch size written in it"):
        deploy(supernet, subnet, tmp_path)


def test_an_example_of_a_larger_batch_may_do() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return net.head(F.relu(x) if x.shape[0] > 1 else F.gelu(x))

    message = (
        r"takes another path for another input.*With a batch of 2 or more it takes one path; an example of that size"
    )
    with pytest.raises(ModelError, match=message):
        Supernet(Net(run), torch.randn(1, 8))
    assert Supernet(Net(run), torch.randn(2, 8)).space.size > 1
