"""Accuracy in the middle of training is measured on a copy."""

from __future__ import annotations

from functools import partial

import torch

from bootstrapnas_ext.training.validation import ExtractedAccuracy
from tests.training.fake_supernet import SPACE, FakeSupernet, extract, make_data, recalibrate

IMAGES, LABELS = make_data(48)


def test_subnet_is_recalibrated_and_the_supernet_untouched() -> None:
    supernet = FakeSupernet()
    seen: list[torch.nn.Module] = []
    before = {name: value.clone() for name, value in supernet.model.state_dict().items()}

    def top1(module: torch.nn.Module) -> float:
        seen.append(module)
        return 50.0

    accuracy = ExtractedAccuracy(partial(extract, supernet), partial(recalibrate, IMAGES), top1)
    assert accuracy(SPACE.minimum) == 50.0
    (module,) = seen
    assert module.active == SPACE.minimum
    assert not torch.equal(module.norm.running_mean[:4], before["norm.running_mean"][:4])
    assert supernet.active == SPACE.maximum
    for name, value in supernet.model.state_dict().items():
        assert torch.equal(value, before[name])
