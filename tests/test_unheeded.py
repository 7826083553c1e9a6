"""Settings for layers that the model's own code does not let be smaller are told to be without effect."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext import NNCFConfig, create_compressed_model


class Insists(nn.Module):
    """Its code compares the width of one layer, the kernel of another, and what a block did, to its own numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.wide, self.large = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.one, self.two = Block(), Block()
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.free(x))
        assert x.shape[1] == 16, "it must be 16 wide"
        x = self.large(x)
        assert self.large.weight.shape[2] == 3, "its kernel must be 3"
        self.one.ran = False
        x = self.two(self.one(x))
        assert self.one.ran, "the first block must run"
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.ran = True
        return x + self.last(self.norm(self.first(x)).relu())


def make(**elasticity: Any) -> list[str]:
    """Returns what is warned of."""
    torch.manual_seed(0)
    settings = {"input_info": {"sample_size": [1, 3, 8, 8]}, "bootstrapNAS": {"training": {"elasticity": elasticity}}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        controller, _ = create_compressed_model(Insists().eval(), NNCFConfig.from_dict(settings))
    assert controller.supernet.refused
    assert {warning.filename for warning in caught} <= {__file__}
    return [str(warning.message) for warning in caught]


PATH = "$.bootstrapNAS.training.elasticity."
FAILS = "the model does not run with less of it: "
SKIPPED = [["one/add/0", "two/add/0"], ["large/conv2d/0", "one/add/0"]]


@pytest.mark.parametrize(
    ("elasticity", "expected"),
    [
        ({}, []),
        ({"width": {"overrides": {"free": {"max_num_widths": 2}}}}, []),
        (
            {"width": {"overrides": {"free": {"max_num_widths": 2}, "wide": {"max_num_widths": 2}}}},
            ["width.overrides.wide is without effect on 'wide': " + FAILS + "it must be 16 wide"],
        ),
        (
            {"available_elasticity_dims": ["width"], "width": {"overwrite_groups": [["free"], ["wide"]]}},
            ["width.overwrite_groups[1] is without effect on 'wide': " + FAILS + "it must be 16 wide"],
        ),
        (
            {"kernel": {"overrides": {"{re}^l": {"kernel_sizes": [3, 1]}}}},
            ["kernel.overrides['{re}^l'] is without effect on 'large': " + FAILS + "its kernel must be 3"],
        ),
        (
            {"depth": {"mode": "independent", "skipped_blocks": SKIPPED}},
            ["depth.skipped_blocks[1] is without effect on 'one': " + FAILS + "the first block must run"],
        ),
    ],
)
def test_each_setting_without_effect_is_one_sentence(elasticity: dict[str, Any], expected: list[str]) -> None:
    assert make(**elasticity) == [PATH + sentence for sentence in expected]


def test_a_warning_that_is_an_error_leaves_the_model_as_it_was() -> None:
    model = Insists().eval()
    elasticity = {"width": {"overrides": {"wide": {"max_num_widths": 2}}}}
    settings = {"input_info": {"sample_size": [1, 3, 8, 8]}, "bootstrapNAS": {"training": {"elasticity": elasticity}}}
    for _ in range(2):
        with pytest.raises(UserWarning, match="is without effect on 'wide'"):
            create_compressed_model(model, NNCFConfig.from_dict(settings))
    assert "forward" not in vars(model)
