"""The words in which the config dataclasses are written: constrained types, and what breaks a rule."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol, runtime_checkable


class Rule(NamedTuple):
    """
    A keyword of JSON Schema, attached to a type by ``Annotated``.

    :param keyword: For example ``minimum``.
    :param value: For example ``1``.
    """

    keyword: str
    value: float


class FormerName(NamedTuple):
    """
    An older spelling of a key that configs still use, attached to its type by ``Annotated``.

    :param name: The older spelling.
    """

    name: str


@dataclass(frozen=True, eq=False)  # types are hashed with their annotations, and sets have no hash
class Registered:
    """
    Says that a string is a name which code may add to, attached to its type by ``Annotated``.

    :param kind: What is named, in the singular, for messages.
    :param names: The names so far. Configs know names only, not what they stand for, which may need torch.
    """

    kind: str
    names: set[str]


class Violation(NamedTuple):
    """
    One thing that is wrong with a config.

    :param path: Keys and indices from the top of the config, or from the dataclass that reports it.
    :param message: The rule, the value and what to do.
    """

    path: tuple[str | int, ...]
    message: str


@runtime_checkable
class HasRules(Protocol):
    """A config dataclass with rules across its keys, which a JSON Schema cannot express."""

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong, with paths relative to the dataclass."""


def suggest(name: object, known: Iterable[str]) -> str:
    """
    Returns the end of a message about an unknown name: the nearest known one, or all if none is near.

    :param name: What the config says; case does not matter.
    :param known: What it may say.
    """
    names = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(str(name).lower(), names, n=1)
    return f"did you mean {names[near[0]]!r}?" if near else f"known: {', '.join(names.values())}"


PositiveInt = Annotated[int, Rule("minimum", 1)]
NonNegativeInt = Annotated[int, Rule("minimum", 0)]
PositiveFloat = Annotated[float, Rule("exclusiveMinimum", 0)]
NonNegativeFloat = Annotated[float, Rule("minimum", 0)]
Fraction = Annotated[float, Rule("minimum", 0), Rule("maximum", 1)]
Percent = Annotated[float, Rule("minimum", 0), Rule("maximum", 100)]

# The names that the package itself registers; registering another adds it. The registries cannot be asked: what is in
# them needs torch, and configs do not.
DIMENSIONS = {"width", "depth", "kernel"}
STRATEGIES = {"progressive_shrinking"}
SEARCH_ALGORITHMS = {"NSGA2", "random"}
OBJECTIVES = {"accuracy", "macs", "parameters", "latency_ms"}
MEASURES = set(OBJECTIVES)

Dimension = Annotated[str, Registered("elastic dimension", DIMENSIONS)]
Dimensions = Annotated[tuple[Dimension, ...], Rule("minItems", 1), Rule("uniqueItems", True)]
Strategy = Annotated[str, Registered("training strategy", STRATEGIES)]
SearchAlgorithm = Annotated[str, Registered("search algorithm", SEARCH_ALGORITHMS)]
Objective = Annotated[str, Registered("objective", OBJECTIVES)]
Measure = Annotated[str, Registered("measure", MEASURES)]
