"""Elastic width: possible widths, what stays static and why, and channels in order of importance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.config import ElasticityConfig, WidthConfig
from bootstrapnas_ext.elasticity.importance import IMPORTANCES
from bootstrapnas_ext.elasticity.width import ElasticAxis, Run
from bootstrapnas_ext.elasticity.width_rules import width_values
from bootstrapnas_ext.errors import ConfigError, ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import NETS, assert_close, build, other_input, outputs


def only_widths(**options: Any) -> ElasticityConfig:
    return ElasticityConfig(available_elasticity_dims=("width",), width=WidthConfig(**options))


def supernet_of(name: str, **options: Any) -> Supernet:
    model, example = build(name)
    return Supernet(model, example, only_widths(**options))


def values(supernet: Supernet) -> dict[str, tuple[int, ...]]:
    return {choice.name: choice.values for choice in supernet.space.choices}


@pytest.mark.parametrize(
    ("size", "repeat", "options", "expected"),
    [
        (64, 1, {}, (64, 48, 32, 16)),
        (16, 1, {}, (16, 12, 8, 4)),
        (24, 1, {}, (24, 16, 12, 4)),
        (5, 1, {}, (5, 3, 2, 1)),
        (2, 1, {}, (2, 1)),
        (1, 1, {}, (1,)),
        (8, 4, {}, (8, 6, 4, 2)),
        (3, 32, {}, (3, 2, 1)),
        (12, 64, {}, (12, 9, 6, 3)),
        (64, 1, {"divisor": 32}, (64, 48, 32, 16)),
        (128, 1, {"divisor": 32}, (128, 96, 64, 32)),
        (64, 1, {"width_multipliers": (0.5, 1.0)}, (64, 32)),
        (60, 1, {"width_multipliers": (1.0, 0.5, 0.01)}, (60, 24, 8)),
        (64, 1, {"min_width": 32, "width_multipliers": (1.0, 0.5, 0.25)}, (64, 32)),
        (128, 1, {"width_step": 32}, (128, 96, 64, 32)),
        (100, 1, {"width_step": 32, "min_width": 20}, (100, 68, 36)),
        (128, 1, {"min_width": 64}, (128, 96, 64)),
        (16, 1, {"width_step": 32}, (16,)),
        (64, 1, {"max_num_widths": 2}, (64, 48)),
        (64, 1, {"max_num_widths": 1}, (64,)),
        (6, 16, {"width_step": 32, "min_width": 32}, (6, 4, 2)),
    ],
)
def test_possible_widths(size: int, repeat: int, options: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert width_values(size, repeat, WidthConfig(**options)) == expected


AXIS = ElasticAxis((Run("a", 4, 2), Run(None, 3, 1), Run("b", 2, 1)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(4, 2, list(range(13))), (1, 1, [0, 1, 8, 9, 10, 11]), (3, 2, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12])],
)
def test_active_indices_of_an_axis_of_several_runs(a: int, b: int, expected: list[int]) -> None:
    subnet = Subnet({"a": a, "b": b})
    assert AXIS.indices(subnet).tolist() == expected
    assert AXIS.length(subnet) == len(expected)
    assert AXIS.is_elastic
    assert not ElasticAxis((Run(None, 3, 1),)).is_elastic


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chain", {"width:layers.0": (16, 12, 8, 4), "width:layers.4": (24, 16, 12, 4)}),
        ("two_inputs", {"width:left.0": (16, 12, 8, 4)}),
        ("tied", {"width:stem.0": (16, 12, 8, 4)}),
        ("grouped", {"width:stem.0": (4, 3, 2, 1)}),
        ("functional", {"width:kernel": (16, 12, 8, 4), "width:pointwise": (24, 16, 12, 4)}),
        ("split_list", {"width:conv": (16, 12, 8, 4), "width:conv#2": (32, 24, 16, 8), "width:small": (16, 12, 8, 4)}),
        ("dict_output", {"width:one.0": (16, 12, 8, 4)}),
    ],
)
def test_choices_are_named_by_the_first_layer_that_makes_the_channels(
    name: str, expected: dict[str, tuple[int, ...]]
) -> None:
    assert values(supernet_of(name)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chain", {"layers.7.fc": "output of the model"}),
        ("dict_output", {"two.0": "output of the model", "head.fc": "output of the model"}),
        ("glu", {"head.fc": "output of the model"}),
    ],
)
def test_static_layers_have_a_reason(name: str, expected: dict[str, str]) -> None:
    assert supernet_of(name).static_layers()["width"] == expected


def test_a_layer_that_is_too_narrow_has_a_reason() -> None:
    supernet = supernet_of("chain", width_step=8, min_width=16)
    assert values(supernet) == {"width:layers.4": (24, 16)}
    assert supernet.static_layers()["width"]["layers.0"] == "the width settings leave no second width for 16 channels"


@pytest.mark.parametrize("importance", ["L1", "L2", "geometric_median"])
@pytest.mark.parametrize("name", NETS)
def test_sorting_keeps_the_function_of_the_maximum(name: str, importance: str) -> None:
    supernet = supernet_of(name, filter_importance=importance)
    example = other_input(supernet.example)
    with torch.no_grad():
        before = outputs(supernet.model, example)
        state = copy.deepcopy(supernet.model.state_dict())
        supernet.reorganize()
        assert any(not torch.equal(state[key], value) for key, value in supernet.model.state_dict().items())
        assert_close(outputs(supernet.model, example), before)
        small = extract(supernet, supernet.space.minimum)
        with supernet.activate(supernet.space.minimum):
            assert_close(outputs(supernet.model, example), outputs(small, example))


@pytest.mark.parametrize("importance", ["L1", "L2", "geometric_median"])
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("chain", ["layers.0", "layers.4"]),
        ("concat", ["one", "two", "three"]),
        ("flatten", ["conv.0", "fc1"]),
        ("bottleneck", ["branch.0.0", "branch.1.0"]),
        ("perceptron", ["branch.1"]),
        ("conv1d", ["conv1", "conv2"]),
    ],
)
def test_channels_are_sorted_most_important_first(name: str, weights: list[str], importance: str) -> None:
    supernet = supernet_of(name, filter_importance=importance)
    supernet.reorganize()
    score = IMPORTANCES.get(importance)
    for path in weights:
        found = score(supernet.model.get_submodule(path).weight.detach().flatten(1))
        assert (found.diff() <= 1e-4 * found[0]).all(), path
        assert found[0] > found[-1]


def test_channels_of_several_layers_are_sorted_by_the_sum() -> None:
    supernet = supernet_of("mobile")
    supernet.reorganize()
    block: Any = supernet.model.blocks[0]  # type: ignore[index]
    layers = [block.expand[0], block.depthwise[0], block.excite]
    total = sum(layer.weight.detach().flatten(1).abs().sum(1) for layer in layers)
    assert (total.diff() <= 1e-4).all()


def test_whole_groups_of_a_grouped_convolution_are_sorted() -> None:
    supernet = supernet_of("grouped")
    supernet.reorganize()
    model: Any = supernet.model
    total = sum(
        part[0].weight.detach().flatten(1).abs().sum(1).view(4, -1).sum(1)
        for part in (model.stem, model.grouped, model.multiplied)
    )
    assert (total.diff() <= 1e-4).all()


def write_importance(path: Path, model: nn.Module, change: Callable[[dict[str, Tensor]], object] = dict) -> str:
    scores = {name: torch.rand(p.shape[0]) for name, p in model.named_parameters() if name.endswith("weight")}
    change(scores)
    torch.save(scores, path)
    return str(path)


def test_channels_are_sorted_by_a_file(tmp_path: Path) -> None:
    model, example = build("concat")
    path = write_importance(tmp_path / "importance.pt", model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    supernet = Supernet(model, example, only_widths(filter_importance="external", external_importance_path=path))
    supernet.reorganize()
    scores = torch.load(path, weights_only=True)
    orders = {name: scores[f"{name}.weight"].argsort(descending=True) for name in ("one", "two", "three")}
    after = model.state_dict()
    for name in ("one", "two"):
        assert torch.equal(after[f"{name}.weight"], before[f"{name}.weight"][orders[name]])
    whole = torch.cat([orders["one"], 16 + orders["two"]])  # the norm follows the concat
    assert torch.equal(after["norm.running_mean"], before["norm.running_mean"][whole])
    assert torch.equal(after["three.weight"], before["three.weight"][orders["three"]][:, whole])


def test_sorting_by_a_file_twice_changes_nothing_more(tmp_path: Path) -> None:
    model, example = build("mobile")
    path = write_importance(tmp_path / "importance.pt", model)
    supernet = Supernet(model, example, only_widths(filter_importance="external", external_importance_path=path))
    supernet.reorganize()
    once = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    supernet.reorganize()
    assert all(torch.equal(once[name], tensor) for name, tensor in model.state_dict().items())


def test_a_file_may_name_modules_and_needs_elastic_layers_only(tmp_path: Path) -> None:
    model, example = build("chain")
    path = tmp_path / "importance.pt"
    torch.save({"layers.0": torch.arange(16.0), "layers.4": torch.arange(24)}, path)
    before = model.state_dict()["layers.0.weight"].clone()
    supernet = Supernet(model, example, only_widths(filter_importance="external", external_importance_path=str(path)))
    supernet.reorganize()
    assert torch.equal(model.state_dict()["layers.0.weight"], before.flip(0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as a file of tensors: FileNotFoundError"),
        (b"not a file of tensors", "cannot be read as a file of tensors"),
        ([torch.zeros(3)], "must hold a dictionary of weight names to tensors"),
        ({"layers.0": 3}, "must hold a dictionary of weight names to tensors"),
        ({"layers.0": torch.zeros(16)}, "a tensor of shape \\(24,\\) for 'layers.4.weight', but it holds nothing"),
        ({"layers.0": torch.zeros(15)}, "\\(16,\\) for 'layers.0.weight', but it holds a tensor of shape \\(15,\\)"),
    ],
)
def test_a_wrong_file_is_an_error_before_anything_changes(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "importance.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    model, example = build("chain")
    with pytest.raises(ConfigError, match=message):
        Supernet(model, example, only_widths(filter_importance="external", external_importance_path=str(path)))
    assert type(model.forward).__name__ == "method"


def test_no_second_width_anywhere_is_an_error() -> None:
    model, example = build("flatten")
    with pytest.raises(ModelError, match=r"width of conv\.0: the width settings leave no second width for 16 channels"):
        Supernet(model, example, only_widths(max_num_widths=1))


def test_weights_that_share_memory_are_static() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
    )
    model[2].weight = nn.Parameter(model[1].weight.detach())  # no tied weight: two parameters
    supernet = Supernet(model.eval(), torch.randn(1, 3, 4, 4), only_widths())
    assert values(supernet).keys() == {"width:3"}
    assert supernet.static_layers()["width"]["1"] == "'1.weight' shares its memory with '2.weight'"


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_weights_of_operations_without_a_rule_are_named() -> None:
    class Projected(nn.Module):
        """A recurrent layer that no rule covers."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.layer = nn.Linear(4, 16), nn.LSTM(16, 12, proj_size=8, batch_first=True)
            self.two, self.three = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.three(self.two(self.layer(self.one(x))[0]))

    supernet = Supernet(Projected().eval(), torch.randn(2, 5, 4), only_widths())
    static = supernet.static_layers()["width"]
    assert static.keys() == {"one", "layer", "three"}
    assert static["layer"] == static["one"] == "layer/lstm/0 projects its state"
