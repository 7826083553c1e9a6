"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """
    The exponential moving average of parameters, which often generalises better than the parameters themselves: over
    about ``1 / (1 - decay)`` updates.

    B. Polyak, A. Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 30(4), 1992.

    .. code-block:: python

        average = WeightAverage(supernet.parameters(), decay=0.99)
        for ...:
            optimizer.step()
            average.update()
        with average.applied():
            evaluate(supernet)

    :param parameters: What is averaged; the average begins with their values.
    :param decay: The part of the average that an update keeps, between 0 and 1.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._merge = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.restart()

    def restart(self) -> None:
        """Begins anew with the values that the parameters have now."""
        self._values = [parameter.detach().clone() for parameter in self._parameters]

    def update(self) -> None:
        """Takes the parameters as they are now into the average."""
        self._merge(self._values, [parameter.detach() for parameter in self._parameters], 0)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Gives the parameters the values of the average, for the length of a ``with`` block."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        self._assign(self._values)
        try:
            yield
        finally:
            self._assign(own)

    def get_state(self) -> list[Tensor]:
        """Returns the values of the average, in the order of the parameters."""
        return self._values

    def load_state(self, values: Sequence[Tensor]) -> None:
        """
        Restores what :meth:`get_state` returned.

        :param values: One tensor a parameter.
        :raises ValueError: If their number or shapes differ.
        """
        shapes = [value.shape for value in values]
        expected = [parameter.shape for parameter in self._parameters]
        if shapes != expected:
            msg = f"the average must be of {len(expected)} parameters of the same shapes, but it is of {len(shapes)}"
            raise ValueError(msg)
        for own, value in zip(self._values, values, strict=True):
            own.copy_(value)

    @torch.no_grad()
    def _assign(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)
