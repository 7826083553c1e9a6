"""Distillation: both teachers, logits and features, and what is remembered of a pass."""

from __future__ import annotations

import copy
from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext import Supernet
from bootstrapnas_ext.config import DistillationConfig
from bootstrapnas_ext.errors import ConfigError, TrainingError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.training import Distillation, kl
from bootstrapnas_ext.training.distillation import class_dim, feature_loss, logits_of
from tests.training.fake_supernet import SPACE, FakeSupernet, TinyNet, make_data

IMAGES, _ = make_data(8)


def distil(supernet: Any, input_model: nn.Module | None = None, step: int = 0, **config: Any) -> Distillation:
    return Distillation(supernet, input_model or TinyNet(), DistillationConfig(**config), lambda: step)


def count_calls(model: nn.Module) -> list[bool]:
    """Returns a list that gets for each call of the model from now on whether gradients were on."""
    calls: list[bool] = []
    model.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    return calls


def test_input_model_teaches_as_it_was_and_in_evaluation_mode() -> None:
    supernet, input_model = FakeSupernet(), TinyNet().train()
    expected = copy.deepcopy(input_model).eval()(IMAGES)
    loss = distil(supernet, input_model, temperature=2.0)
    output = supernet.model(IMAGES)
    torch.testing.assert_close(loss("input_model"), kl(output, expected, 2.0))
    assert input_model.training
    assert all(parameter.grad is None for parameter in input_model.parameters())


def test_maximum_teaches_the_others_and_leaves_them_active() -> None:
    supernet = FakeSupernet()
    loss = distil(supernet)
    expected = supernet.model(IMAGES)
    loss("none")
    with supernet.activate(SPACE.minimum):
        output = supernet.model(2 * IMAGES)
        calls = count_calls(supernet.model)
        value = loss("maximum")
        assert supernet.active == SPACE.minimum
    assert calls == [False], "the lesson before was for other inputs"
    with torch.no_grad():
        expected = supernet.model(2 * IMAGES)
    torch.testing.assert_close(value, kl(output, expected))


@pytest.mark.parametrize("source", ["maximum", "input_model"])
def test_loss_of_the_last_pass_reaches_the_student_only(source: Any) -> None:
    supernet = FakeSupernet()
    supernet.set_active(SPACE.minimum)
    loss = distil(supernet, features=("stem", "head"))
    supernet.model(IMAGES)
    value = loss(source)
    assert value.item() > 0
    value.backward()
    gradient = supernet.model.head.weight.grad
    assert gradient is not None
    assert gradient[:, :4].abs().sum() > 0
    assert gradient[:, 4:].abs().sum() == 0, "the teacher's channels must get no gradient"


def test_pass_of_the_maximum_is_the_lesson_of_its_step() -> None:
    supernet = FakeSupernet()
    loss = distil(supernet)
    expected = supernet.model(IMAGES)
    loss("none")
    calls = count_calls(supernet.model)
    for _ in range(2):
        with supernet.activate(SPACE.minimum):
            output = supernet.model(IMAGES)
            torch.testing.assert_close(loss("maximum"), kl(output, expected))
    assert calls == [True, True], "the students, and no teacher"


def test_input_model_runs_once_for_all_passes_of_a_step() -> None:
    supernet, input_model = FakeSupernet(), TinyNet()
    calls = count_calls(input_model)
    loss = distil(supernet, input_model)
    for subnet in (SPACE.maximum, SPACE.minimum):
        with supernet.activate(subnet):
            supernet.model(IMAGES)
            assert loss("input_model").item() > 0
    assert calls == [False]


@pytest.mark.parametrize("steps", [[0, 1], [-1, -1]])
def test_lesson_of_another_step_is_not_taken(steps: list[int]) -> None:
    supernet, now = FakeSupernet(), iter(steps)
    step = next(now)
    loss = Distillation(supernet, TinyNet(), DistillationConfig(), lambda: step)
    supernet.model(IMAGES)
    loss("none")
    with torch.no_grad():
        supernet.model.head.weight.mul_(3.0)  # as an optimizer's step
    step = next(now)
    calls = count_calls(supernet.model)
    with supernet.activate(SPACE.minimum):
        supernet.model(IMAGES)
        loss("maximum")
    assert calls == [True, False]


def test_weight_scales_the_loss() -> None:
    supernet = FakeSupernet()
    supernet.set_active(SPACE.minimum)
    once, thrice = distil(supernet), distil(supernet, weight=3.0)
    supernet.model(IMAGES)
    torch.testing.assert_close(thrice("maximum"), 3 * once("maximum"))


@pytest.mark.parametrize("name", ["kl", "mse", "alpha_divergence"])
def test_config_names_the_loss(name: Any) -> None:
    supernet = FakeSupernet()
    supernet.set_active(SPACE.minimum)
    loss = distil(supernet, loss=name)
    supernet.model(IMAGES)
    value = loss("maximum")
    others = [distil(supernet, loss=other) for other in ("kl", "mse", "alpha_divergence") if other != name]
    supernet.model(IMAGES)
    assert all(abs(other("maximum").item() - value.item()) > 1e-6 for other in others)


def test_subnet_of_a_pass_is_that_which_ran() -> None:
    supernet = FakeSupernet()
    loss = distil(supernet)
    expected = supernet.model(IMAGES)
    loss("none")
    with supernet.activate(SPACE.minimum):
        output = supernet.model(IMAGES)
    assert supernet.active == SPACE.maximum
    torch.testing.assert_close(loss("maximum"), kl(output, expected))


def test_maximum_learns_nothing_from_itself() -> None:
    supernet = FakeSupernet()
    loss = distil(supernet)
    supernet.model(IMAGES)
    assert loss("maximum").item() == 0.0


def test_loss_without_a_training_pass_since_the_last_call_is_refused() -> None:
    supernet = FakeSupernet()
    loss = distil(supernet)
    supernet.model(IMAGES)
    loss("input_model")
    with torch.no_grad():
        supernet.model(IMAGES)
    supernet.model.eval()
    supernet.model(IMAGES)
    with pytest.raises(TrainingError, match="needs a forward pass of the model in training mode since its last call"):
        loss("input_model")
    assert loss("none").item() == 0.0


def test_logits_are_found_in_what_models_return() -> None:
    logits = torch.zeros(2, 3)
    for output in (logits, {"logits": logits}, UserDict(logits=logits, loss=None), SimpleNamespace(logits=logits)):
        assert logits_of(output) is logits


@pytest.mark.parametrize(
    ("output", "found"),
    [((torch.zeros(2, 3),), "tuple"), ({"scores": 1}, "dict"), (torch.zeros(5), r"\(5,\)")],
)
def test_output_without_logits_is_refused(output: Any, found: str) -> None:
    with pytest.raises(TrainingError, match=rf"has such `logits`, but it is {found}; wrap the model"):
        logits_of(output)


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [((2, 10), None, 1), ((2, 7, 10), None, 2), ((2, 10, 8, 8), None, 1), ((2, 8, 8, 10), -1, -1), ((2, 10, 7), 1, 1)],
)
def test_dimension_of_the_classes(shape: tuple[int, ...], given: int | None, expected: int) -> None:
    assert class_dim(torch.zeros(shape), given) == expected


@pytest.mark.parametrize("given", [2, -3])
def test_dimension_that_the_logits_do_not_have_is_refused(given: int) -> None:
    match = rf"distillation\.class_dim must be a dimension .* whose shape is \(2, 3\), but got {given}"
    with pytest.raises(TrainingError, match=match):
        class_dim(torch.zeros(2, 3), given)


def test_features_are_compared_over_the_channels_of_the_student() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 5, generator=generator), torch.randn(2, 8, 5, 5, generator=generator)
    expected = (student - teacher[:, :3]).square().sum() / 150
    torch.testing.assert_close(feature_loss({"a": student}, {"a": teacher, "b": teacher}), expected)
    both = feature_loss({"a": student, "b": teacher}, {"a": teacher, "b": teacher})
    torch.testing.assert_close(both, expected / 2)
    assert feature_loss({}, {"a": teacher}).item() == 0.0


def test_feature_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"the module 'lstm' returns tuple; name another in \$\.bootstrapNAS"):
        feature_loss({"lstm": (IMAGES, IMAGES)}, {"lstm": (IMAGES, IMAGES)})


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("body", r"features\[1\] must be the path of a module of the model, but got 'body'"),
        ("norm", r"features\[1\] must be a module whose subnets keep its first channels, but got 'norm'"),
    ],
)
def test_feature_that_cannot_be_compared_is_refused_at_once(name: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        distil(FakeSupernet(), features=("head", name))


def test_copy_of_the_model_is_not_remembered_and_can_be_made_between_pass_and_loss(tmp_path: Path) -> None:
    supernet = FakeSupernet()
    supernet.set_active(SPACE.minimum)
    loss = distil(supernet, features=("head",))
    supernet.model(IMAGES)
    other = copy.deepcopy(supernet.model)
    other(2 * IMAGES)
    for model in (other, supernet.model):
        torch.save(model, tmp_path / "model.pt")
        torch.load(tmp_path / "model.pt", weights_only=False)(3 * IMAGES)
    with_copy = loss("maximum")
    supernet.model(IMAGES)
    torch.testing.assert_close(with_copy, loss("maximum"))


class Joined(nn.Module):
    """Two convolutions, joined; a block that may be skipped; and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(3, 16, 3, padding=1) for _ in range(2))
        self.joined = nn.Identity()
        self.mixed = nn.Conv2d(32, 16, 1)
        self.block = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.mixed(F.relu(torch.cat([self.left(x), self.right(x)], dim=1)))
        x = x + self.block(x)
        return {"logits": self.head(x.mean(dim=(2, 3)))}


def test_features_of_a_real_supernet() -> None:
    model = Joined()
    input_model = copy.deepcopy(model)
    supernet = Supernet(model, torch.randn(1, 3, 8, 8))
    assert supernet.space.dimensions == ("width", "depth", "kernel")
    loss = distil(supernet, input_model, features=("left", "mixed", "block"))
    x = torch.randn(4, 3, 8, 8)
    model.train()
    with supernet.activate(supernet.space.minimum):
        features: dict[str, Tensor] = {}
        model.left.register_forward_hook(lambda *call: features.update(left=call[-1]))
        model(x)
        assert features["left"].shape[1] < 16
        value = loss("maximum")
        value.backward()
    assert value.item() > 0
    assert model.left.weight.grad is not None
    small = extract(supernet, supernet.space.minimum)
    assert small(x)["logits"].shape == (4, 4)
    watched = [name for name, module in small.named_modules() if module._forward_hooks]
    assert watched == ["left"], "the hook of the user"
    supernet.release()


def test_feature_that_is_joined_from_two_layers_is_refused() -> None:
    supernet = Supernet(Joined(), torch.randn(1, 3, 8, 8))
    assert [supernet.keeps_first_channels(name) for name in ("left", "mixed", "head")] == 3 * [True]
    assert not supernet.keeps_first_channels("no_such_module")
    assert not supernet.keeps_first_channels("joined"), "it computes nothing"
    supernet.release()
