"""The sample's models: published structure, and plain modules after extraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bootstrapnas_ext as bnas
from bootstrapnas_ext.errors import ConfigError, ModelError
from samples.classification.models import CifarResNet, create_model
from samples.classification.weights import load_weights

SHARED = Path(__file__).parents[4] / "shared" / "models"


def test_resnet_has_the_published_structure() -> None:
    model = create_model("resnet20", 10)
    names = list(model.state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.bias"} <= {*names}
    assert not [name for name in names if "shortcut" in name]
    assert sum(parameter.numel() for parameter in model.parameters()) == 269_722
    assert [len(create_model(f"resnet{depth}", 10).layer3) for depth in (20, 32, 44, 56)] == [3, 5, 7, 9]


@pytest.mark.parametrize("depth", [20, 56])
def test_published_weights_fit(depth: int) -> None:
    path = SHARED / f"resnet{depth}_cifar10_jpeg.pt"
    if not path.is_file():
        pytest.skip(f"there are no published weights at {path}")
    model = create_model(f"resnet{depth}", 10)
    load_weights(model, path)
    assert torch.equal(model.conv1.weight, torch.load(path, weights_only=True)["conv1.weight"])


def test_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    shortcut = create_model("resnet20", 10).layer2[0].shortcut
    x = torch.randn(2, 16, 8, 8)
    y = shortcut(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_extracted_subnet_is_the_same_class_with_smaller_attributes(rng: np.random.Generator) -> None:
    supernet = bnas.Supernet(create_model("resnet20", 10).eval(), bnas.ExampleInput((torch.randn(1, 3, 16, 16),)))
    x = torch.randn(3, 3, 16, 16)
    for subnet in [supernet.space.minimum, *(supernet.space.sample(rng) for _ in range(4))]:
        small = bnas.extract(supernet, subnet)
        assert type(small) is CifarResNet
        with supernet.activate(subnet), torch.no_grad():
            assert torch.allclose(small(x), supernet.model(x), atol=1e-5)
    assert small.layer2[0].shortcut.pad != supernet.model.layer2[0].shortcut.pad


def test_mobilenet_for_cifar_keeps_a_resolution_of_four() -> None:
    model = create_model("mobilenet_v2_cifar", 7).eval()
    x = torch.randn(1, 3, 32, 32)
    assert model.features(x).shape == (1, 1280, 4, 4)
    assert model(x).shape == (1, 7)


def test_torchvision_models_are_known_by_name() -> None:
    assert create_model("squeezenet1_1", 5)(torch.randn(1, 3, 64, 64)).shape == (1, 5)


def make_linear(num_classes: int) -> nn.Module:
    """A model as a user has it."""
    return nn.Linear(4, num_classes)


def make_nothing(num_classes: int) -> int:
    """Not a model."""
    return num_classes


def make_failure() -> nn.Module:
    """Takes no number of classes."""
    return nn.Identity()


not_a_function = 3


def test_function_of_the_user() -> None:
    assert create_model(f"{__name__}:make_linear", 6).out_features == 6


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("resnet_20", ConfigError, r"\$\.model: there is no model 'resnet_20', .*; did you mean 'resnet20'\?"),
        ("no.such.module:function", ConfigError, "'no.such.module:function' cannot be imported"),
        (f"{__name__}:no_function", ConfigError, "no_function"),
        (f"{__name__}:not_a_function", ConfigError, "must be a function, but it is a int"),
        (f"{__name__}:make_nothing", ModelError, r"must return a torch\.nn\.Module, but it returned a int"),
        (f"{__name__}:make_failure", ModelError, "failed when it was called with num_classes=10: TypeError"),
    ],
)
def test_what_is_not_a_model(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_model(name, 10)
