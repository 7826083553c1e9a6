"""What the model's own code does not let be smaller is found by trial, and stays as it is with the reason."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext.config import DepthConfig, ElasticityConfig
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.refusals import refused_choices
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import Head, assert_close

BIG = dict.fromkeys("abcdefgh", 4)
SMALL = dict.fromkeys("abcdefgh", 1)


@pytest.mark.parametrize("bad", ["", "a", "h", "cf", "abcdefgh"])
def test_the_fewest_choices_are_refused(bad: str) -> None:
    tried: list[dict[str, int]] = []

    def attempt(subnet: Mapping[str, int]) -> None:
        tried.append(dict(subnet))
        for name in bad:
            if subnet[name] < 4:
                raise ValueError(f"{name} is small\nand more")

    refused = refused_choices(BIG, SMALL, attempt)
    assert refused == {name: f"the model does not run with less of it: {name} is small" for name in bad}
    assert tried[0] == BIG
    assert len(tried) <= 2 + 4 * len(bad)


def test_of_choices_that_fail_together_one_stays() -> None:
    def attempt(subnet: Mapping[str, int]) -> None:
        assert subnet["b"] == 4 or subnet["g"] == 4, "not both"

    assert list(refused_choices(BIG, SMALL, attempt)) == ["g"]


def test_an_error_without_a_text_says_where_it_was_raised() -> None:
    class Checks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] < 4:
                raise AssertionError  # as a bare ``assert``, of which pytest makes one with a text
            return x

    model = nn.Sequential(Checks())

    def attempt(subnet: Mapping[str, int]) -> None:
        model(torch.zeros(1, subnet["a"]))

    line = inspect.getsourcelines(Checks)[1] + 3
    reason = refused_choices(BIG, SMALL, attempt)["a"]
    assert reason == f"the model does not run with less of it: AssertionError in test_refusals.py, line {line}"


def test_an_error_without_a_text_in_pytorch_says_where_it_was_called() -> None:
    inner: dict[str, Any] = {"__name__": "torch.inner"}
    exec("def fail(): raise ValueError", inner)

    def attempt(subnet: Mapping[str, int]) -> None:
        if subnet["a"] < 4:
            inner["fail"]()

    line = inspect.getsourcelines(attempt)[1] + 2
    assert refused_choices(BIG, SMALL, attempt)["a"].endswith(f": ValueError in test_refusals.py, line {line}")


def test_a_model_that_never_runs_is_not_the_fault_of_a_choice() -> None:
    def attempt(_: Mapping[str, int]) -> None:
        raise ValueError("never")

    with pytest.raises(ValueError, match="never"):
        refused_choices(BIG, SMALL, attempt)


class Insists(nn.Module):
    """Compares the width of every second layer to a number, as much code of users does."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if number == 0 else 16, 16, 3, padding=1) for number in range(4))
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        for number, conv in enumerate(self.convs):
            x = conv(x)
            assert number % 2 == 0 or x.shape[1] == 16, f"not {x.shape[1]} channels"
        return self.head(x)


class ThroughNumpy(nn.Module):
    """Computes outside of PyTorch, where no operation is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(torch.from_numpy(self.one(x).detach().numpy() * 2)))


class Translates(nn.Module):
    """``nn.Transformer`` compares the width of its inputs to its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 32)
        self.transformer = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
        self.head = nn.Linear(32, 20)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        output: Tensor = self.head(self.transformer(self.embedding(source), self.embedding(target)))
        return output


@pytest.mark.parametrize(
    ("model", "inputs", "refused", "left"),
    [
        (
            Insists(),
            (torch.randn(2, 3, 8, 8),),
            {"width:convs.1": "not 4 channels", "width:convs.3": "not 4 channels"},
            "width:convs.2",
        ),
        (ThroughNumpy(), (torch.randn(2, 3, 8, 8),), {"width:one": "Given groups=1, weight of size"}, "width:two"),
        (
            Translates(),
            (torch.randint(0, 20, (2, 7)), torch.randint(0, 20, (2, 5))),
            {"width:embedding": "the feature number of src and tgt must be equal to d_model"},
            "width:transformer.encoder.layers.0.linear1",
        ),
    ],
)
def test_everything_else_is_elastic(
    model: nn.Module, inputs: tuple[Tensor, ...], refused: dict[str, str], left: str
) -> None:
    model.eval()
    plain = copy.deepcopy(model)
    supernet = Supernet(model, inputs)
    assert supernet.refused.keys() == refused.keys()
    static = supernet.static_layers()["width"]
    for name, reason in refused.items():
        expected = f"the model does not run with less of it: {reason}"
        assert supernet.refused[name].startswith(expected)
        assert static[name.partition(":")[2]].startswith(expected)
    assert left in supernet.space.minimum
    with torch.no_grad():
        assert torch.equal(model(*inputs), plain(*inputs))
        with supernet.activate(supernet.space.minimum):
            assert_close([extract(supernet, supernet.active)(*inputs)], [model(*inputs)])


def test_a_block_without_which_the_model_does_not_run_always_runs() -> None:
    class Remembers(nn.Module):
        """Its code reads what a block has left behind."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 16, 1), Head(16)
            self.blocks = nn.ModuleList(Leaves() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                block.width = 0
                x = block(x)
            assert self.blocks[0].width, "the first block has not run"
            return self.head(x)

    class Leaves(nn.Module):
        """Leaves a number behind."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.width = x.shape[1]
            return x + self.last(self.norm(self.conv(x)).relu())

    config = ElasticityConfig(depth=DepthConfig(mode="independent"))
    supernet = Supernet(Remembers().eval(), torch.randn(2, 3, 4, 4), config)
    reason = "the model does not run with less of it: the first block has not run"
    assert supernet.refused == {"depth:blocks.0": reason}
    assert supernet.static_layers()["depth"] == {"blocks.0": reason}
    assert "depth:blocks.1" in supernet.space.minimum


def test_what_fails_in_a_later_round_of_probes_is_found_too() -> None:
    class HoldsItsWeight(nn.Module):
        """Uses its weight by another name, and compares the width of its input to that of the weight by its own."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.linear = nn.Linear(8, 16), nn.Linear(16, 4)
            self.weights = [self.linear.weight]

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            if x.shape[-1] != self.linear.weight.shape[1]:
                raise ValueError("another width")
            return F.linear(x, self.weights[0], self.linear.bias)

    model = HoldsItsWeight().eval()
    with pytest.raises(ModelError, match=r"Nothing of HoldsItsWeight is elastic.*width of stem: .*another width"):
        Supernet(model, torch.randn(2, 8), ElasticityConfig(("width",)))
