"""Divergences of logits: their values and gradients against other ways to compute them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bootstrapnas_ext.config import DistillationConfig
from bootstrapnas_ext.config.schema import schema_of
from bootstrapnas_ext.training import DIVERGENCES, alpha_divergence, kl, mse

NAMES = list(DIVERGENCES)
NO_CLIP = math.inf


def logits(*shape: int, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher.requires_grad_()


def textbook(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """The alpha-divergence of rows, as it is defined; no clipping."""
    p, q = teacher.softmax(dim=1), student.softmax(dim=1)
    return (q * ((p / q) ** alpha - 1)).sum(dim=1) / (alpha * (alpha - 1))


def gradient(loss: Tensor, student: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(loss, student)
    return result


def test_configs_know_the_divergences() -> None:
    assert schema_of(DistillationConfig)["properties"]["loss"]["enum"] == NAMES


def test_kl_is_that_of_torch_with_values_and_gradients() -> None:
    student, teacher = logits(5, 7)
    reference = nn.KLDivLoss(reduction="batchmean")
    expected = 16 * reference((student / 4).log_softmax(dim=1), (teacher / 4).softmax(dim=1).detach())
    actual = kl(student, teacher, temperature=4.0)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradient(actual, student), gradient(expected, student))


def test_mse_is_the_mean_of_squares_at_any_temperature() -> None:
    student, teacher = logits(5, 7)
    expected = ((student - teacher.detach()) ** 2).sum() / 35
    torch.testing.assert_close(mse(student, teacher, 3.0), expected)


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.5, 2.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_alpha_divergence_without_clipping_is_that_of_the_textbook(alpha: float, temperature: float) -> None:
    student, teacher = logits(6, 5)
    expected = temperature**2 * textbook(student / temperature, teacher.detach() / temperature, alpha).mean()
    actual = alpha_divergence(student, teacher, temperature, alphas=(alpha, alpha), clip=NO_CLIP)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradient(actual, student), gradient(expected, student))


def test_alpha_of_one_is_kl() -> None:
    student, teacher = logits(6, 5)
    near = textbook(student, teacher.detach(), 1.0 + 1e-6).mean()
    actual = alpha_divergence(student, teacher, 2.0, alphas=(1.0, 1.0))
    torch.testing.assert_close(actual, kl(student, teacher, 2.0))
    torch.testing.assert_close(alpha_divergence(student, teacher, alphas=(1.0, 1.0)), near, rtol=1e-4, atol=1e-6)


def test_larger_of_both_counts_item_by_item() -> None:
    student, teacher = logits(40, 5)
    both = [textbook(student, teacher.detach(), -1.0), textbook(student, teacher.detach(), 1.0 + 1e-9)]
    assert 5 < int((both[0] > both[1]).sum()) < 35, "both must occur"
    actual = alpha_divergence(student, teacher, clip=NO_CLIP)
    torch.testing.assert_close(actual, torch.maximum(*both).mean(), rtol=1e-5, atol=1e-6)


def test_clipped_weights_bound_value_and_gradient() -> None:
    student, teacher = logits(1, 3)
    with torch.no_grad():
        student.copy_(torch.tensor([[9.0, 0.0, 0.0]]))
        teacher.copy_(torch.tensor([[0.0, 9.0, 0.0]]))
    p, q = teacher.softmax(dim=1).detach(), student.softmax(dim=1)
    weights = (q / p).clamp(max=5.0).detach()
    assert (q / p).max().item() > 1000
    actual = alpha_divergence(student, teacher, alphas=(-1.0, -1.0))
    torch.testing.assert_close(actual, ((q * weights).sum() - 1) / 2)
    torch.testing.assert_close(gradient(actual, student), gradient((weights * q).sum(), student))


@given(st.floats(0, 60), st.integers(0, 100), st.sampled_from(NAMES))
def test_divergences_are_finite_however_sure_both_are(scale: float, seed: int, name: str) -> None:
    student, teacher = (tensor.detach().float().requires_grad_() for tensor in logits(3, 4, seed=seed, scale=scale))
    loss = DIVERGENCES[name](student, teacher, 1.0, 1)
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(gradient(loss, student)).all())


@pytest.mark.parametrize("name", NAMES)
def test_equals_have_no_loss_and_no_gradient(name: str) -> None:
    student, _ = logits(4, 3)
    loss = DIVERGENCES[name](student, student, 2.0, 1)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(gradient(loss, student), torch.zeros_like(student))


@pytest.mark.parametrize("name", NAMES)
def test_teacher_gets_no_gradient(name: str) -> None:
    student, teacher = logits(4, 3)
    DIVERGENCES[name](student, teacher, 2.0, 1).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "dim"), [((2, 3, 4, 4), 1), ((2, 5, 3), -1), ((2, 3, 6), 1)])
def test_places_count_as_items(name: str, shape: tuple[int, ...], dim: int) -> None:
    pair = logits(*shape)
    rows = [tensor.movedim(dim, -1).reshape(-1, 3) for tensor in pair]
    function = DIVERGENCES[name]
    torch.testing.assert_close(function(*pair, 2.0, dim), function(*rows, 2.0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_single(name: str) -> None:
    student, teacher = (tensor.to(torch.bfloat16) for tensor in logits(4, 3))
    loss = DIVERGENCES[name](student, teacher, 2.0, 1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, DIVERGENCES[name](student.float(), teacher.float(), 2.0, 1))
