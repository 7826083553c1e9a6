"""Which subnets to take from a finished search: a pure function of its trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bootstrapnas_ext.errors import CheckpointError, ConfigError
from bootstrapnas_ext.search.objectives import ACCURACY, OBJECTIVES, Objective
from bootstrapnas_ext.search.trial import Measurement, Trial

BEST = "best"
MOST_ACCURATE = "most_accurate"


@dataclass(frozen=True)
class Bound:
    """
    A range that a measurement has to be in.

    :param name: Of the measurement.
    :param low: Smallest value that is in.
    :param high: Largest value that is in.
    """

    name: str
    low: float = -math.inf
    high: float = math.inf

    def violation(self, trial: Trial) -> float:
        """
        Returns how far the trial is outside, as a part of the limit; 0 inside. Rounding errors are inside.

        :param trial: With the measurement.
        """
        value = trial.values[self.name]
        limit = self.low if value < self.low else self.high if value > self.high else value
        return 0.0 if math.isclose(value, limit) else abs(value - limit) / (abs(limit) or 1.0)

    def __str__(self) -> str:
        limits = ((">=", self.low), ("<=", self.high))
        return " and ".join(f"{self.name} {sign} {limit:.6g}" for sign, limit in limits if math.isfinite(limit))


@dataclass(frozen=True)
class Selection:
    """
    The chosen subnets.

    :param chosen: Name to trial. There always is ``best``.
    :param satisfied: Whether the trials keep to all bounds; if not, ``best`` is the one that is nearest to it.
    :param reason: One sentence for people: why ``best`` was chosen.
    """

    chosen: Mapping[str, Trial]
    satisfied: bool
    reason: str

    @property
    def labels(self) -> dict[str, str]:
        """The chosen subnets' names as people see them: with a star where they do not keep to the bounds."""
        return {name: name if self.satisfied else f"{name}*" for name in self.chosen}

    @property
    def labelled(self) -> dict[str, Trial]:
        """The chosen subnets by their labels, as pictures show them."""
        return {self.labels[name]: trial for name, trial in self.chosen.items()}

    @property
    def best(self) -> Trial:
        """The trial that was looked for."""
        return self.chosen[BEST]


def select(
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    reference: Measurement | None = None,
    *,
    acc_delta: float,
    ref_acc: float | None = None,
    constraints: Mapping[str, Mapping[str, float]] | None = None,
) -> Selection:
    """
    Chooses subnets of a search.

    A trial is accepted if its accuracy is at least ``ref_acc - acc_delta`` and it keeps to the constraints. Chosen are,
    of the accepted trials,

    - ``best``: the smallest cost. The cost is the first objective that is not accuracy; of equal trials, the next
      objectives decide, then the accuracy, then the earlier trial;
    - ``lowest_<objective>``, one for each further cost: the smallest of that cost; where more is better, it is
      ``highest_<objective>``;
    - ``most_accurate``: the highest accuracy.

    If no trial is accepted, the only one chosen is ``best``: the one that is nearest, by the sum of what it is outside
    of each bound, as parts of the bounds.

    :param trials: At least one.
    :param objectives: Of the search, in its order.
    :param reference: Of the input model; needed for ratios, and for the accuracy if there is no ``ref_acc``.
    :param acc_delta: Accepted loss of accuracy, in percentage points.
    :param ref_acc: Accuracy that the loss is counted from, in percent; ``None`` takes that of the reference. Where no
        accuracy was measured, none is asked for.
    :param constraints: Measurement to its limits: ``min`` and ``max`` in its own unit, ``min_ratio`` and ``max_ratio``
        as parts of the reference.
    :raises CheckpointError: If there are no trials.
    :raises ConfigError: If a constraint is about what was not measured, or what it needs of the reference is missing.
    """
    if not trials:
        msg = "Nothing can be chosen: the search has no finished trial; resume it (`resume=True`, --resume) first."
        raise CheckpointError(msg)
    measured = set.intersection(*(set(trial.values) for trial in trials))
    accuracy = [OBJECTIVES.get(ACCURACY)] if ACCURACY in measured else []
    costs = [objective for objective in objectives if objective.name != ACCURACY]
    bounds = [_bound(name, limits, measured, reference) for name, limits in (constraints or {}).items()]
    if accuracy:
        bounds.insert(0, _accuracy_bound(reference, ref_acc, acc_delta))

    order = [*costs, *accuracy]
    accepted = [trial for trial in trials if not any(bound.violation(trial) for bound in bounds)]
    if not accepted:
        return _nearest(trials, order, bounds)
    orders = {BEST: order}
    for cost in costs[1:]:
        orders[f"{_superlative(cost)}_{cost.name}"] = [cost, *order]
    if accuracy:
        orders[MOST_ACCURATE] = [*accuracy, *costs]
    chosen = {name: min(accepted, key=_rank(order)) for name, order in orders.items()}
    reason = (
        f"{len(accepted)} of {len(trials)} trials keep to {_text(bounds)}; of these, trial {chosen[BEST].number} has "
        f"the {_superlative(order[0])} {order[0].name}."
    )
    return Selection(chosen, True, reason)


def _accuracy_bound(reference: Measurement | None, ref_acc: float | None, acc_delta: float) -> Bound:
    if ref_acc is None:
        ref_acc = _reference_value(reference, ACCURACY, "give `ref_acc`")
    low = ref_acc - acc_delta
    return Bound(ACCURACY, low=low if low > 0 else -math.inf)  # every accuracy is at least 0


def _bound(name: str, limits: Mapping[str, float], measured: set[str], reference: Measurement | None) -> Bound:
    if name not in measured:
        msg = f"A constraint is on {name!r}, which was not measured; measured are {', '.join(sorted(measured))}."
        raise ConfigError(msg)
    if unknown := sorted(set(limits) - {"min", "max", "min_ratio", "max_ratio"}):
        msg = f"A constraint is made of min, max, min_ratio and max_ratio, but that on {name!r} has {unknown[0]!r}."
        raise ConfigError(msg)
    absolute = {
        key: limit * _reference_value(reference, name, "give the limit as `min` or `max`") if "ratio" in key else limit
        for key, limit in limits.items()
    }
    return Bound(
        name,
        low=max((limit for key, limit in absolute.items() if key.startswith("min")), default=-math.inf),
        high=min((limit for key, limit in absolute.items() if key.startswith("max")), default=math.inf),
    )


def _reference_value(reference: Measurement | None, name: str, remedy: str) -> float:
    if reference is None or name not in reference.values:
        msg = f"The {name} of the input model was not measured, so nothing can be asked for relative to it; {remedy}."
        raise ConfigError(msg)
    return reference.values[name]


def _nearest(trials: Sequence[Trial], order: Sequence[Objective], bounds: Sequence[Bound]) -> Selection:
    rank = _rank(order)
    nearest = min(trials, key=lambda trial: (sum(bound.violation(trial) for bound in bounds), rank(trial)))
    missed = ", ".join(f"{b.name} {nearest.values[b.name]:.6g}" for b in bounds if b.violation(nearest))
    reason = (
        f"None of {len(trials)} trials keeps to {_text(bounds)}; the nearest is trial {nearest.number}, with {missed}."
    )
    return Selection({BEST: nearest}, False, reason)


def _rank(order: Sequence[Objective]) -> Callable[[Trial], tuple[float, ...]]:
    return lambda trial: (*(objective.loss(trial.values[objective.name]) for objective in order), trial.number)


def _superlative(objective: Objective) -> str:
    return "lowest" if objective.direction == "minimize" else "highest"


def _text(bounds: Sequence[Bound]) -> str:
    return " and ".join(filter(None, map(str, bounds))) or "the bounds (there are none)"
