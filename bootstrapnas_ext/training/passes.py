"""A prepared step: its passes, in the order in which a loop runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.training.strategies import Pass


@dataclass(frozen=True)
class Passes:
    """
    The passes of a step. Going through them activates the subnet of each; it may be done more than once.

    .. code-block:: python

        for subnet in scheduler.step():
            controller.loss(criterion(model(images), labels)).backward()

    :param passes: What the strategy named.
    :param begin: Makes a pass the current one.
    """

    passes: tuple[Pass, ...]
    begin: Callable[[Pass], None]

    def __iter__(self) -> Iterator[Subnet]:
        for one in self.passes:
            self.begin(one)
            yield one.subnet

    def __len__(self) -> int:
        return len(self.passes)
