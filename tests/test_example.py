"""Example inputs from a config and from a user's function."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bootstrapnas_ext.config import InputInfo
from bootstrapnas_ext.errors import ConfigError, ModelError
from bootstrapnas_ext.example import from_forward, from_input_info


def test_shapes_types_fillers_and_keywords() -> None:
    example = from_input_info(
        [
            InputInfo((1, 3, 8, 8)),
            InputInfo((1, 5), type="long", filler="zeros", keyword="tokens"),
            InputInfo((1, 2), filler="random", keyword="noise"),
        ]
    )
    (image,) = example.args
    assert torch.equal(image, torch.ones(1, 3, 8, 8))
    assert torch.equal(example.kwargs["tokens"], torch.zeros(1, 5, dtype=torch.int64))
    noise = example.kwargs["noise"]
    assert noise.unique().numel() == 2
    assert bool(((noise >= 0) & (noise < 1)).all())


def test_random_integers_are_zeros_and_ones() -> None:
    (tokens,) = from_input_info([InputInfo((2, 20), filler="random", type="long")]).args
    assert tokens.dtype == torch.int64
    assert set(tokens.flatten().tolist()) == {0, 1}


def test_random_filler_is_the_same_each_time() -> None:
    info = [InputInfo((1, 4), filler="random")]
    assert torch.equal(from_input_info(info).args[0], from_input_info(info).args[0])


def test_no_input_info_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'input_info' is missing"):
        from_input_info([])


class Two(nn.Module):
    def forward(self, image: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
        return image * scale


def test_forward_function_is_watched() -> None:
    model = Two()
    image, scale = torch.ones(2, 3), torch.full((1,), 2.0)
    example = from_forward(model, lambda m: m(image, scale=scale))
    assert example.args[0] is image
    assert example.kwargs["scale"] is scale
    assert not model._forward_pre_hooks


def test_forward_function_that_fails_is_an_error() -> None:
    with pytest.raises(ModelError, match="`dummy_forward_fn` failed: TypeError"):
        from_forward(Two(), lambda m: m())


def test_forward_function_that_never_calls_is_an_error() -> None:
    with pytest.raises(ModelError, match="must call the model"):
        from_forward(Two(), lambda _: None)
