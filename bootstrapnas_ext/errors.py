"""Every error that the package raises for a user's mistake, and how it warns.

Command-line tools print such an error as one line and exit with code 2; anything else that escapes is a defect of the
package and keeps its traceback.
"""

from __future__ import annotations

import sys
import warnings
from itertools import count


class BootstrapNASError(Exception):
    """Base of all errors of the package: the message says what is wrong, where, which rule, which value, what to do."""


class ConfigError(BootstrapNASError):
    """A config that the schema or a rule across keys refuses."""


class ModelError(BootstrapNASError):
    """A model that cannot be traced, has no elastic layer, or does not fit the given weights."""


class SubnetError(BootstrapNASError):
    """A subnet that is not in the search space."""


class DataError(BootstrapNASError):
    """A dataset that is missing, empty or damaged."""


class CheckpointError(BootstrapNASError):
    """A checkpoint or results database that is missing, damaged or of another super-network."""


class TrainingError(BootstrapNASError):
    """A training run that cannot go on, for example because its loss is not finite."""


class DivergenceError(TrainingError):
    """A loss or a gradient that is not finite; the weights are those before the step."""


class ExportError(BootstrapNASError):
    """An export that failed or whose outputs differ from the super-network's by more than the tolerance."""


class RegistryError(BootstrapNASError):
    """A name that is not registered, or is registered already."""


def first_line(error: BaseException) -> str:
    """
    Returns the first line of an error's message, or its type if it has none, for a message of one line.

    :param error: Any exception.
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def warn(message: str) -> None:
    """
    Warns of something, with the line of the user's code that has led to it, outside of this package and of NNCF.

    :param message: What is to change, where and how.
    """
    for level in count(1):
        try:
            name = str(sys._getframe(level).f_globals.get("__name__"))
        except ValueError:  # there is no such line
            break
        if name.partition(".")[0] not in ("bootstrapnas_ext", "nncf"):
            break
    warnings.warn(message, UserWarning, stacklevel=level + 1)
