"""What a search measures, by NNCF 2's names."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from bootstrapnas_ext.errors import BootstrapNASError
from bootstrapnas_ext.space import SearchSpace

Variables = tuple[int, ...]
"""A subnet as a search algorithm sees it: the index of a value for each variable."""


class BaseEvaluator(ABC):
    """
    Measures the active subnet; less is better. A subclass says how.

    What it remembers, also from a file or a state that was loaded, a search does not measure again. What is loaded must
    come from a search of the same super-network with the same dimensions enabled.

    :param name: For records and plots.
    :param ideal_val: The best value that there can be.
    """

    def __init__(self, name: str, ideal_val: float) -> None:
        self.name = name
        self.ideal_value = ideal_val
        self.current_value = -1.0
        self.cache: dict[Variables, float] = {}
        self._space: SearchSpace | None = None

    def begin_search(self, space: SearchSpace) -> None:
        """
        Forgets what was measured in a search of other subnets, which the same variables stand for.

        :param space: The subnets of the search.
        """
        if self._space not in (None, space):
            self.cache.clear()
        self._space = space

    @abstractmethod
    def evaluate_subnet(self) -> float:
        """Returns the value of the active subnet."""

    def evaluate_and_add_to_cache_from_pymoo(self, pymoo_repr: Variables) -> float:
        """
        Measures the active subnet and remembers what was found.

        :param pymoo_repr: The subnet.
        """
        self.current_value = _number(self.name, self.evaluate_subnet())
        self.add_to_cache(pymoo_repr, self.current_value)
        return self.current_value

    def add_to_cache(self, subnet_config_repr: Variables, measurement: float) -> None:
        """
        Remembers a value.

        :param subnet_config_repr: The subnet.
        :param measurement: Its value.
        """
        self.cache[subnet_config_repr] = measurement

    def retrieve_from_cache(self, subnet_config_repr: Variables) -> tuple[bool, float]:
        """
        Returns whether a value is known, and the value, 0 if not.

        :param subnet_config_repr: The subnet.
        """
        known = subnet_config_repr in self.cache
        return known, self.cache.get(subnet_config_repr, 0)

    def get_state(self) -> dict[str, Any]:
        """Returns name, values and all that is remembered."""
        return {
            "name": self.name,
            "current_value": self.current_value,
            "ideal_value": self.ideal_value,
            "cache": dict(self.cache),
        }

    def update_from_state(self, state: dict[str, Any]) -> None:
        """
        Restores what :meth:`get_state` returned.

        :param state: The state.
        """
        self.name = state["name"]
        self.current_value = state["current_value"]
        self.ideal_value = state["ideal_value"]
        self.cache = dict(state["cache"])

    def export_cache_to_csv(self, cache_file_path: str | Path) -> None:
        """
        Writes ``cache_<name>.csv``: a line of subnet and value for all that is remembered.

        :param cache_file_path: The folder.
        """
        with (Path(cache_file_path) / f"cache_{self.name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(self.cache.items())

    def load_cache_from_csv(self, cache_file_path: str | Path) -> None:
        """
        Reads what :meth:`export_cache_to_csv` wrote.

        :param cache_file_path: The file.
        """
        with Path(cache_file_path).open(encoding="utf-8", newline="") as file:
            for subnet, value in csv.reader(file):
                self.add_to_cache(tuple(int(part) for part in subnet.strip("()").split(",") if part), float(value))


class MACsEvaluator(BaseEvaluator):
    """
    Counts multiply-accumulates.

    :param eval_func: Returns those of the active subnet, in millions.
    """

    def __init__(self, eval_func: Callable[[], float]) -> None:
        super().__init__("MACs", 0)
        self._eval_func = eval_func

    def evaluate_subnet(self) -> float:
        return self._eval_func()


class AccuracyEvaluator(BaseEvaluator):
    """
    Measures accuracy; the value is negative, since less is better.

    :param model: The super-network's model.
    :param eval_func: Called with the model and the loader; returns the accuracy in percent.
    :param val_loader: For ``eval_func``.
    :param is_top1: Whether it is top-1 or top-5, for the name.
    """

    def __init__(
        self, model: nn.Module, eval_func: Callable[[nn.Module, Any], float], val_loader: Any, is_top1: bool = True
    ) -> None:
        super().__init__("top1_acc" if is_top1 else "top5_acc", -100)
        self._model = model
        self._eval_func = eval_func
        self._val_loader = val_loader

    def evaluate_subnet(self) -> float:
        return -_number("validate_fn", self._eval_func(self._model, self._val_loader))


class EvaluatorHandler:
    """
    An evaluator with what it finds for the maximum subnet, which must be active.

    :param evaluator: The evaluator.
    """

    def __init__(self, evaluator: BaseEvaluator) -> None:
        self.evaluator = evaluator
        self.input_model_value = _number(evaluator.name, evaluator.evaluate_subnet())

    @property
    def name(self) -> str:
        """Name of the evaluator."""
        return self.evaluator.name

    def value_of(self, variables: Variables) -> float:
        """
        Returns the value of the active subnet, measured unless the evaluator remembers it.

        :param variables: The subnet.
        """
        known, value = self.evaluator.retrieve_from_cache(variables)
        return value if known else self.evaluator.evaluate_and_add_to_cache_from_pymoo(variables)

    @property
    def current_value(self) -> float:
        """What was found last."""
        return self.evaluator.current_value


def _number(source: str, value: Any) -> float:
    """Returns what a function or an evaluator of the user's found, which may be a tensor of one value."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"What {source!r} measures must be one number, but got {value!r}; return only that."
        raise BootstrapNASError(msg) from error
