"""The cosine with warm-up."""

from __future__ import annotations

import pytest

from bootstrapnas_ext.training.learning_rate import CosineSchedule


def test_falls_from_base_to_zero_along_a_half_cosine() -> None:
    schedule = CosineSchedule(base_lr=0.4, num_epochs=4)
    assert [schedule(epoch) for epoch in (0, 2, 3, 4)] == pytest.approx([0.4, 0.2, 0.4 * 0.14644661, 0.0])


def test_stays_at_zero_after_its_end() -> None:
    assert CosineSchedule(base_lr=0.4, num_epochs=4)(7.5) == 0.0


def test_warm_up_is_linear_and_meets_the_cosine_at_base_lr() -> None:
    schedule = CosineSchedule(base_lr=1.0, num_epochs=6, warmup_epochs=2, warmup_lr=0.2)
    assert [schedule(epoch) for epoch in (0, 1, 2, 4, 6)] == pytest.approx([0.2, 0.6, 1.0, 0.5, 0.0])
