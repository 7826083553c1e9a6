"""What a search is of: all that stays the same from its first trial to its last, however often it is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bootstrapnas_ext.differences import differences
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.search.algorithms import SearchSettings
from bootstrapnas_ext.search.objectives import Objective
from bootstrapnas_ext.search.trial import Measurement
from bootstrapnas_ext.space import Choice, SearchSpace


@dataclass(frozen=True)
class SearchPlan:
    """
    What a search is of.

    :param space: The subnets to choose from.
    :param objectives: Two or more, with different names. Their order counts: the first that is not accuracy is the
        cost that the best subnet has least of.
    :param settings: How subnets are proposed.
    :param reference: Measurement of the input model, or ``None``. A resumed search keeps the one that it began with.
    :param measured_with: What the measurements of a subnet depend on besides the subnet, by name, as JSON can hold it:
        for example a fingerprint of the super-network's weights.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    settings: SearchSettings
    reference: Measurement | None = None
    measured_with: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [objective.name for objective in self.objectives]
        if len(set(names)) != len(names) or len(names) < 2:
            msg = f"`objectives` must be two or more different names, but got {names}."
            raise ConfigError(msg)
        # A plan of this process and the same plan read back from the database must be equal.
        object.__setattr__(self, "measured_with", json.loads(json.dumps(dict(self.measured_with))))

    def differences(self, other: SearchPlan) -> list[str]:
        """
        Returns what makes the other plan's trials other trials, one phrase a difference; the references do not.

        :param other: The plan of now, where this is the plan of before.
        """
        return [
            *_space_differences(self.space, other.space),
            *self._other_differences(other),
            *_value_differences(self.measured_with, other.measured_with),
        ]

    def _other_differences(self, other: SearchPlan) -> Iterator[str]:
        before, now = (", ".join(f"{o.name} ({o.direction})" for o in plan.objectives) for plan in (self, other))
        if before != now:
            yield f"the objectives are {before} there, but {now} here"
        yield from _value_differences(asdict(self.settings), asdict(other.settings))

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchPlan:
        """
        Returns the plan that :meth:`to_json` wrote.

        :param data: What it returned, perhaps after a round trip through JSON.
        """
        choices = (Choice(c["name"], tuple(c["values"]), c["dimension"]) for c in data["space"]["choices"])
        return cls(
            SearchSpace(tuple(choices)),
            tuple(Objective(**objective) for objective in data["objectives"]),
            SearchSettings(**data["settings"]),
            None if data["reference"] is None else Measurement(**data["reference"]),
            data["measured_with"],
        )


def _value_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, there, here in differences(before, now):
        yield f"{name} is {there!r} there, but {here!r} here"


def _space_differences(before: SearchSpace, now: SearchSpace) -> Iterator[str]:
    """Yields at most one phrase: the first difference, as one wrong super-network differs in very many choices."""
    there, here = ({choice.name: choice for choice in space.choices} for space in (before, now))
    for name in [*there, *(name for name in here if name not in there)]:
        if name not in here:
            yield f"the choice {name!r} exists only there"
        elif name not in there:
            yield f"the choice {name!r} exists only here"
        elif there[name] != here[name]:
            yield f"the choice {name!r} is one of {list(there[name].values)} there, but {list(here[name].values)} here"
        else:
            continue
        return
    if list(there) != list(here):
        yield "the choices have another order"
