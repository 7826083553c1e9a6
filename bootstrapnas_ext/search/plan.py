"""What a search is of: all that stays the same from its first trial to its last, however often it is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

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
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    settings: SearchSettings
    reference: Measurement | None = None

    def __post_init__(self) -> None:
        names = [objective.name for objective in self.objectives]
        if len(set(names)) != len(names) or len(names) < 2:
            msg = f"`objectives` must be two or more different names, but got {names}."
            raise ConfigError(msg)

    def differences(self, other: SearchPlan) -> list[str]:
        """
        Returns what makes the other plan's trials other trials, one phrase a difference; the references do not.

        :param other: The plan of now, where this is the plan of before.
        """
        return [*_space_differences(self.space, other.space), *self._other_differences(other)]

    def _other_differences(self, other: SearchPlan) -> Iterator[str]:
        before, now = (", ".join(f"{o.name} ({o.direction})" for o in plan.objectives) for plan in (self, other))
        if before != now:
            yield f"the objectives are {before} there, but {now} here"
        for field in fields(SearchSettings):
            before, now = (repr(getattr(plan.settings, field.name)) for plan in (self, other))
            if before != now:
                yield f"{field.name} is {before} there, but {now} here"

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
        )


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
