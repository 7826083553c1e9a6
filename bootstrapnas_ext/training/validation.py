"""Accuracy of a subnet in the middle of training, without a trace in the super-network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from bootstrapnas_ext.space import Subnet

Recalibrate = Callable[[nn.Module], None]


@dataclass(frozen=True)
class ExtractedAccuracy:
    """
    Measures a subnet on an extracted copy with norm statistics of its own, as a search and a deployment do.

    .. code-block:: python

        evaluate = ExtractedAccuracy(
            extract=partial(extract, supernet),
            recalibrate=partial(recalibrate_batchnorm, batches=batches),
            top1=partial(top1_accuracy, loader=validation_loader),
        )

    :param extract: Subnet to a module with its own weights, on which the second argument was called before it was
        fixed.
    :param recalibrate: Recomputes the norm statistics of the module that it is called with.
    :param top1: Accuracy of a module on the validation data, in percent.
    """

    extract: Callable[[Subnet, Recalibrate], nn.Module]
    recalibrate: Recalibrate
    top1: Callable[[nn.Module], float]

    def __call__(self, subnet: Subnet) -> float:
        """
        Returns the top-1 of the subnet, in percent.

        :param subnet: A subnet of the super-network.
        """
        return self.top1(self.extract(subnet, self.recalibrate))
