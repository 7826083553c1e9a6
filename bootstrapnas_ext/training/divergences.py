"""How far the logits of a student are from those of its teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

#: From the logits of the student and of the teacher, the temperature and the dimension of the classes, to a scalar.
Divergence = Callable[[Tensor, Tensor, float, int], Tensor]


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, dim: int = 1) -> Tensor:
    """
    Returns the Kullback-Leibler divergence from the softened teacher to the softened student, times the temperature
    squared, which keeps the size of its gradients independent of the temperature.

    G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015,
    https://arxiv.org/abs/1503.02531.

    :param student: Logits of any shape with a dimension of classes.
    :param teacher: Logits of the same shape; no gradient flows into them.
    :param temperature: Both are divided by it before the softmax, positive; larger is softer.
    :param dim: The dimension of the classes.
    :return: A scalar: the sum over classes, the mean over everything else.
    """
    student_log, teacher_log = _log_probabilities(student, teacher, temperature, dim)
    divergence = F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim)
    return divergence.mean() * temperature**2


def mse(student: Tensor, teacher: Tensor, temperature: float = 1.0, dim: int = 1) -> Tensor:
    """
    Returns the mean squared difference of logits.

    T. Kim et al., Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation, IJCAI
    2021, https://arxiv.org/abs/2105.08919.

    :param student: Values of any shape.
    :param teacher: Values of the same shape; no gradient flows into them.
    :param temperature: Without effect: logits that are divided by it and a loss times its square are what they were.
    :param dim: Without effect.
    :return: A scalar: the mean over everything.
    """
    return F.mse_loss(_precise(student), _precise(teacher.detach()))


def alpha_divergence(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    dim: int = 1,
    *,
    alphas: tuple[float, float] = (-1.0, 1.0),
    clip: float = 5.0,
) -> Tensor:
    r"""
    Returns the adaptive alpha-divergence: of two alpha-divergences, the larger one, item by item. The negative alpha
    punishes a student that is surer than its teacher, the positive one a student that misses what its teacher sees.

    D. Wang et al., AlphaNet: Improved Training of Supernets with Alpha-Divergence, ICML 2021,
    https://arxiv.org/abs/2102.07954.

    With p of the teacher and q of the student, :math:`D_\alpha = (\sum q w - 1) / (\alpha (\alpha - 1))` with the
    importance weights :math:`w = (p / q)^\alpha`; for alpha 1 it is the Kullback-Leibler divergence. Its gradient is
    :math:`-\frac{1}{\alpha} \sum w \nabla q`. Weights are cut off at ``clip``, in the value and in the gradient, since
    a few huge ones would dominate a batch; not so where alpha is 1, whose gradient in the logits is bounded.

    :param student: Logits of any shape with a dimension of classes.
    :param teacher: Logits of the same shape; no gradient flows into them.
    :param temperature: As in :func:`kl`.
    :param dim: The dimension of the classes.
    :param alphas: The two, not 0; the paper's by default.
    :param clip: The largest weight, positive; the paper's by default.
    :return: A scalar: the mean over everything but classes.
    """
    student_log, teacher_log = _log_probabilities(student, teacher, temperature, dim)
    first, second = (_one_alpha(student_log, teacher_log, alpha, clip, dim) for alpha in alphas)
    return torch.where(first > second, first, second).mean() * temperature**2


def _one_alpha(student_log: Tensor, teacher_log: Tensor, alpha: float, clip: float, dim: int) -> Tensor:
    """Returns the divergence of each item, with the gradient of clipped weights that are constants."""
    student = student_log.exp()
    if alpha == 1.0:
        return F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim)
    with torch.no_grad():
        weights = (alpha * (teacher_log - student_log)).exp().clamp(max=clip)
        value = ((student * weights).sum(dim) - 1.0) / (alpha * (alpha - 1.0))
    slope = -(weights * student).sum(dim) / alpha
    return value + slope - slope.detach()


def _log_probabilities(student: Tensor, teacher: Tensor, temperature: float, dim: int) -> tuple[Tensor, Tensor]:
    pair = (_precise(student), _precise(teacher.detach()))
    first, second = (F.log_softmax(logits / temperature, dim=dim) for logits in pair)
    return first, second


def _precise(tensor: Tensor) -> Tensor:
    # Autocast may hand over bfloat16, whose 8 bits of mantissa are too few for the difference of two logarithms.
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


DIVERGENCES: Mapping[str, Divergence] = {"kl": kl, "mse": mse, "alpha_divergence": alpha_divergence}
"""The names of the config's ``training.distillation.loss``."""
