"""Whole families of torchvision, at the size that they are made for: the oracles on one model of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision

from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_close, assert_equal, other_input, outputs, randomize_norms, some_subnets

MODELS: dict[str, dict[str, Any]] = {
    "alexnet": {},
    "convnext_tiny": {},
    "densenet121": {},
    "efficientnet_b0": {},
    "efficientnet_v2_s": {},
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "mnasnet1_0": {},
    "mobilenet_v2": {},
    "mobilenet_v3_large": {},
    "regnet_y_400mf": {},
    "resnet50": {},
    "resnext50_32x4d": {},
    "shufflenet_v2_x1_0": {},
    "squeezenet1_1": {},
    "swin_t": {},
    "vgg11_bn": {},
    "vit_b_32": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_oracles_hold(name: str) -> None:
    model = randomize_norms(getattr(torchvision.models, name)(weights=None, **MODELS[name])).eval()
    size = 299 if name == "inception_v3" else 224
    example = ExampleInput((torch.randn(1, 3, size, size),))
    with torch.no_grad():
        before = outputs(model, example)
        supernet = Supernet(model, example)
        assert_equal(outputs(model, example), before)
        for subnet in some_subnets(supernet, 2):
            small = extract(supernet, subnet)
            other = other_input(example, 2)
            with supernet.activate(subnet):
                assert_close(outputs(small, other), outputs(model, other))
        supernet.reorganize()
        assert_close(outputs(model, example), before, 1e-4)
