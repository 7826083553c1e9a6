"""What training needs of a super-network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn

from bootstrapnas_ext.space import SearchSpace, Subnet


class Cost(Protocol):
    """What a subnet costs; :class:`bootstrapnas_ext.cost.Cost` is one."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward with the example input."""


class TrainableSupernet(Protocol):
    """
    The part of a super-network that training uses; :class:`bootstrapnas_ext.supernet.Supernet` has it.

    Training is written against this protocol, so that its tests need no traced model.
    """

    @property
    def model(self) -> nn.Module:
        """The model to call: it runs the active subnet. All subnets share its parameters."""

    @property
    def space(self) -> SearchSpace:
        """All subnets."""

    @property
    def active(self) -> Subnet:
        """The subnet that ``model`` runs now."""

    def activate(self, subnet: Mapping[str, int]) -> AbstractContextManager[None]:
        """
        Returns a context in which ``model`` runs the subnet; the previous one is restored at its end.

        :param subnet: A subnet of ``space``.
        """

    def set_active(self, subnet: Mapping[str, int]) -> None:
        """
        Makes ``model`` run the subnet from now on.

        :param subnet: A subnet of ``space``.
        """

    def cost(self, subnet: Mapping[str, int]) -> Cost:
        """
        Returns what a subnet costs.

        :param subnet: A subnet of ``space``.
        """

    def keeps_first_channels(self, module: str) -> bool:
        """
        Returns whether in every subnet the output of a module is the first part of that in the maximum subnet.

        :param module: Path of a module of ``model``.
        """

    def reorganize(self) -> None:
        """Sorts channels by importance without changing the function of the maximum subnet, which must be active."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Returns everything that is trained."""

    def state_dict(self) -> dict[str, Any]:
        """Returns weights and structure; ``torch.load(weights_only=True)`` reads it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Restores what :meth:`state_dict` returned.

        :param state: The state of a super-network of the same structure.
        :raises CheckpointError: If it is of another one.
        """
