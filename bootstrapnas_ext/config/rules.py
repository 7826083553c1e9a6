"""The words in which the config dataclasses are written: constrained types, and what breaks a rule."""

from __future__ import annotations

import difflib
import re
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


@dataclass(frozen=True, eq=False)  # types are hashed with their annotations, and sets have no hash
class Registered:
    """
    Says that a string is a name which code may add to, attached to its type by ``Annotated``.

    :param kind: What is named, in the singular, for messages.
    :param names: The names so far. Configs know names only, not what they stand for, which may need torch.
    """

    kind: str
    names: set[str]

    def complaint(self, value: str) -> str | None:
        """Returns what is wrong if the name is not registered."""
        if value in self.names:
            return None
        return (
            f"must be a registered {self.kind} (import one of your own before the config is read), but got {value!r}; "
            f"{suggest(value, sorted(self.names))}"
        )


class ScopeSyntax:
    """Says that a string names layers of a model, attached to its type by ``Annotated``."""

    def complaint(self, value: str) -> str | None:
        """Returns what is wrong if the string does not follow :data:`Scope`."""
        if value.startswith(REGEX):
            try:
                re.compile(value.removeprefix(REGEX))
            except re.error as error:
                return f"must be a regular expression after {REGEX!r}, but got {value!r}: {error}"
        elif value.startswith("{") and not value.startswith(TYPE):
            return f"must be a name, or begin with {REGEX!r} or {TYPE!r}, but got {value!r}"
        return None if value.removeprefix(TYPE) else f"must name layers, but got {value!r}"


class Violation(NamedTuple):
    """
    One thing that is wrong with a config.

    :param path: Keys and indices from the top of the config, or from the dataclass that reports it.
    :param message: The rule, the value and what to do.
    """

    path: tuple[str | int, ...]
    message: str


@runtime_checkable
class Checked(Protocol):
    """A rule for a string, attached to its type by ``Annotated``, which a JSON Schema cannot express."""

    def complaint(self, value: str) -> str | None:
        """Returns the rule, the value and what to do; ``None`` if nothing is wrong."""


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


REGEX, TYPE = "{re}", "{type}"

PositiveInt = Annotated[int, Rule("minimum", 1)]
NonNegativeInt = Annotated[int, Rule("minimum", 0)]
PositiveFloat = Annotated[float, Rule("exclusiveMinimum", 0)]
NonNegativeFloat = Annotated[float, Rule("minimum", 0)]
Fraction = Annotated[float, Rule("minimum", 0), Rule("maximum", 1)]
ProperFraction = Annotated[float, Rule("exclusiveMinimum", 0), Rule("exclusiveMaximum", 1)]
Percent = Annotated[float, Rule("minimum", 0), Rule("maximum", 100)]

# The names that the package itself registers; registering another adds it. The registries cannot be asked: what is in
# them needs torch, and configs do not.
DIMENSIONS = {"width", "depth", "kernel"}
STRATEGIES = {"progressive_shrinking", "random", "fair", "sandwich", "attentive"}
SEARCH_ALGORITHMS = {"NSGA2", "random"}
OBJECTIVES = {"accuracy", "macs", "parameters", "latency_ms"}
MEASURES = set(OBJECTIVES)

Dimension = Annotated[str, Registered("elastic dimension", DIMENSIONS)]
Dimensions = Annotated[tuple[Dimension, ...], Rule("minItems", 1), Rule("uniqueItems", True)]
Strategy = Annotated[str, Registered("training strategy", STRATEGIES)]
SearchAlgorithm = Annotated[str, Registered("search algorithm", SEARCH_ALGORITHMS)]
Objective = Annotated[str, Registered("objective", OBJECTIVES)]
Measure = Annotated[str, Registered("measure", MEASURES)]

Scope = Annotated[str, ScopeSyntax()]
"""Names layers of a model: the path of a module stands for all below it, the name of an operation for itself, that of a
parameter for all operations that read it, ``{re}`` before a regular expression for every operation in whose module's
path or own name it is found, and ``{type}`` before a kind of operation, such as ``conv2d``, for all of that kind."""
Scopes = Scope | tuple[Scope, ...] | None
SomeScopes = Scope | Annotated[tuple[Scope, ...], Rule("minItems", 1)] | None


class TopLevelScope(str):
    """An item of :data:`Scopes` that stands at the top level of a config, which counts for all elastic dimensions."""


def scope_list(scopes: Scopes) -> tuple[str, ...]:
    """
    Returns scopes one by one.

    :param scopes: One, several, or none.
    """
    if scopes is None:
        return ()
    return (scopes,) if isinstance(scopes, str) else scopes
