"""Distillation: the loss, both teachers, and the term for a loop of one's own."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from bootstrapnas_ext.config.training import DistillationConfig
from bootstrapnas_ext.errors import TrainingError
from bootstrapnas_ext.training.distillation import (
    DistillationLoss,
    InPlaceTeacher,
    InputModelTeacher,
    create_distillation,
    no_distillation,
    soft_target_loss,
)
from tests.training.fake_supernet import SPACE, FakeSupernet, TinyNet, make_data

IMAGES, _ = make_data(8)


def distil(supernet: FakeSupernet, source: str, weight: float = 1.0) -> DistillationLoss:
    loss = create_distillation(DistillationConfig(source=source, weight=weight), supernet, TinyNet())
    assert isinstance(loss, DistillationLoss)
    return loss


def test_soft_target_loss_is_the_divergence_times_the_squared_temperature() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    p, q = (teacher / 4).softmax(dim=1), (student / 4).softmax(dim=1)
    expected = 16 * (p * (p / q).log()).sum() / 5
    torch.testing.assert_close(soft_target_loss(student, teacher, temperature=4.0), expected)


def test_soft_target_loss_of_maps_is_the_mean_over_places() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    flat = [x.permute(0, 2, 3, 1).reshape(32, 3) for x in (student, teacher)]
    torch.testing.assert_close(soft_target_loss(student, teacher, 2.0), soft_target_loss(*flat, 2.0))


def test_soft_target_loss_of_equals_is_zero_and_gives_the_teacher_no_gradient() -> None:
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    assert soft_target_loss(student, student, 2.0).item() == pytest.approx(0.0, abs=1e-7)
    soft_target_loss(student, teacher, 2.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_soft_target_loss_of_half_precision_is_computed_in_single() -> None:
    student, teacher = torch.randn(4, 3, dtype=torch.bfloat16), torch.randn(4, 3, dtype=torch.bfloat16)
    loss = soft_target_loss(student, teacher, 2.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, soft_target_loss(student.float(), teacher.float(), 2.0))


def test_input_model_teaches_as_it_was_and_in_evaluation_mode() -> None:
    model = TinyNet()
    expected = copy.deepcopy(model).eval()(IMAGES)
    output = InputModelTeacher(model.train())(IMAGES)
    assert torch.equal(output, expected)
    assert not output.requires_grad
    assert model.training
    assert model.head.weight.requires_grad


def test_maximum_teaches_the_others_and_leaves_them_active() -> None:
    supernet = FakeSupernet()
    supernet.model.eval()
    expected = supernet.model(IMAGES)
    teacher = InPlaceTeacher(supernet)
    assert teacher(IMAGES) is None
    with supernet.activate(SPACE.minimum):
        output = teacher(IMAGES)
        assert supernet.active == SPACE.minimum
    assert torch.equal(output, expected)
    assert not output.requires_grad


@pytest.mark.parametrize("source", ["maximum", "input_model"])
def test_loss_of_the_last_pass_reaches_the_student_only(source: str) -> None:
    supernet = FakeSupernet()
    supernet.set_active(SPACE.minimum)
    loss = distil(supernet, source)
    supernet.model(IMAGES)
    value = loss()
    assert value.item() > 0
    value.backward()
    gradient = supernet.model.head.weight.grad
    assert gradient is not None
    assert gradient[:, :4].abs().sum() > 0
    assert gradient[:, 4:].abs().sum() == 0, "the teacher's channels must get no gradient"


def test_weight_scales_the_loss() -> None:
    supernet = FakeSupernet()
    supernet.set_active(SPACE.minimum)
    once, thrice = distil(supernet, "maximum"), distil(supernet, "maximum", weight=3.0)
    supernet.model(IMAGES)
    torch.testing.assert_close(thrice(), 3 * once())


def test_maximum_learns_nothing_from_itself() -> None:
    supernet = FakeSupernet()
    loss = distil(supernet, "maximum")
    supernet.model(IMAGES)
    assert loss().item() == 0.0


def test_loss_without_a_training_pass_since_the_last_call_is_refused() -> None:
    supernet = FakeSupernet()
    loss = distil(supernet, "input_model")
    supernet.model(IMAGES)
    loss()
    with torch.no_grad():
        supernet.model(IMAGES)
    supernet.model.eval()
    supernet.model(IMAGES)
    with pytest.raises(TrainingError, match="needs a forward pass of the model in training mode since its last call"):
        loss()


def test_output_that_is_not_a_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    model = Pair()
    loss = DistillationLoss(model, lambda x: x, temperature=1.0, weight=1.0)
    model(IMAGES)
    with pytest.raises(TrainingError, match="one tensor of logits, but it is tuple"):
        loss()


def test_copy_of_the_model_is_not_remembered_and_can_be_made_between_pass_and_loss(tmp_path: Path) -> None:
    supernet = FakeSupernet()
    supernet.set_active(SPACE.minimum)
    loss = distil(supernet, "maximum")
    supernet.model(IMAGES)
    other = copy.deepcopy(supernet.model)
    other(2 * IMAGES)
    torch.save(other, tmp_path / "model.pt")
    with_copy = loss()
    supernet.model(IMAGES)
    torch.testing.assert_close(with_copy, loss())


def test_closed_loss_remembers_nothing() -> None:
    supernet = FakeSupernet()
    loss = distil(supernet, "input_model")
    loss.close()
    supernet.model(IMAGES)
    with pytest.raises(TrainingError, match="there was none"):
        loss()


def test_no_distillation_is_zero() -> None:
    loss = create_distillation(DistillationConfig(source="none"), FakeSupernet(), TinyNet())
    assert loss is no_distillation
    assert loss().item() == 0.0
