"""The search space as plain values: choices, subnets, and the space that they span. Needs numpy only."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bootstrapnas_ext.errors import SubnetError


@dataclass(frozen=True)
class Choice:
    """
    One elastic variable.

    :param name: Unique in the space, for example ``width:layer1.0.conv1``.
    :param values: What the variable may be, largest first, strictly descending; the first is the given model's value.
    :param dimension: The elastic dimension that it belongs to, for example ``width``.
    """

    name: str
    values: tuple[int, ...]
    dimension: str

    def __post_init__(self) -> None:
        if not self.values or any(a <= b for a, b in zip(self.values, self.values[1:], strict=False)):
            msg = f"`values` must be strictly descending and not empty, but choice {self.name!r} got {self.values}."
            raise ValueError(msg)


class Subnet(Mapping[str, int]):
    """
    One value for every choice: frozen, hashable, comparable, JSON-able; never a model.

    .. code-block:: python

        >>> subnet = Subnet({"width:conv1": 16})
        >>> subnet["width:conv1"], dict(subnet)
        (16, {'width:conv1': 16})

    :param values: Choice name to value.
    """

    __slots__ = ("_hash", "_values")

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = dict(values)
        self._hash = hash(frozenset(self._values.items()))

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subnet) and self._values == other._values

    def __reduce__(self) -> tuple[type[Subnet], tuple[dict[str, int]]]:
        # Hashes of strings differ from process to process, so the stored one must not travel.
        return Subnet, (self._values,)

    def __repr__(self) -> str:
        return f"Subnet({self._values!r})"


@dataclass(frozen=True)
class SearchSpace:
    """
    All subnets that a super-network holds: the product of its choices.

    :param choices: The elastic variables; their names are unique.
    """

    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        names = [choice.name for choice in self.choices]
        if len(set(names)) != len(names):
            repeated = sorted({name for name in names if names.count(name) > 1})
            msg = f"Choice names must be unique, but {', '.join(map(repr, repeated))} occur more than once."
            raise ValueError(msg)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Elastic dimensions that occur, in order of first occurrence."""
        return tuple(dict.fromkeys(choice.dimension for choice in self.choices))

    @property
    def size(self) -> int:
        """Number of different subnets, at least 1; exact, of any magnitude."""
        return math.prod(len(choice.values) for choice in self.choices)

    @property
    def maximum(self) -> Subnet:
        """The subnet that equals the given model."""
        return Subnet({choice.name: choice.values[0] for choice in self.choices})

    @property
    def minimum(self) -> Subnet:
        """The subnet of all smallest values."""
        return Subnet({choice.name: choice.values[-1] for choice in self.choices})

    def sample(self, rng: np.random.Generator) -> Subnet:
        """
        Draws a subnet, every value of a choice equally likely.

        :param rng: The only source of randomness.
        """
        return self.decode([int(rng.integers(len(choice.values))) for choice in self.choices])

    def encode(self, subnet: Mapping[str, int]) -> NDArray[np.int64]:
        """
        Returns the index of each choice's value; 0 is the largest. Shape ``(len(choices),)``.

        :param subnet: A subnet of this space.
        :raises SubnetError: If it is not in the space.
        """
        subnet = self.validate(subnet)
        return np.array([choice.values.index(subnet[choice.name]) for choice in self.choices], dtype=np.int64)

    def decode(self, indices: Sequence[int] | NDArray[np.int64]) -> Subnet:
        """
        Returns the subnet of the value indices, the inverse of :meth:`encode`.

        :param indices: One index a choice, ``0 <= index < len(choice.values)``.
        """
        return Subnet(
            {choice.name: choice.values[int(index)] for choice, index in zip(self.choices, indices, strict=True)}
        )

    def validate(self, subnet: Mapping[str, int]) -> Subnet:
        """
        Returns the subnet with its choices in the order of the space.

        :param subnet: Choice name to value, for example read from JSON.
        :raises SubnetError: If a choice is missing or unknown, or a value is not one of its choice's.
        """
        known = {choice.name for choice in self.choices}
        for name in subnet:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                msg = f"The subnet names the choice {name!r}, which this super-network does not have{hint}"
                raise SubnetError(msg)
        for choice in self.choices:
            if choice.name not in subnet:
                msg = f"The subnet has no value for the choice {choice.name!r}; give one of {list(choice.values)}."
                raise SubnetError(msg)
            if subnet[choice.name] not in choice.values:
                msg = f"Choice {choice.name!r} must be one of {list(choice.values)}, but got {subnet[choice.name]!r}."
                raise SubnetError(msg)
        # The space's own number is taken, which is an integer where JSON may hold 16.0.
        return Subnet({choice.name: choice.values[choice.values.index(subnet[choice.name])] for choice in self.choices})

    def restrict(self, open_values: Mapping[str, int | None]) -> SearchSpace:
        """
        Returns the part of the space that a training stage uses.

        :param open_values: Elastic dimension to how many of each choice's largest values are open, at least 1; ``None``
            opens all. The choices of dimensions that are not named stay at their largest value.
        """
        return SearchSpace(
            tuple(
                Choice(choice.name, choice.values[: open_values.get(choice.dimension, 1)], choice.dimension)
                for choice in self.choices
            )
        )
