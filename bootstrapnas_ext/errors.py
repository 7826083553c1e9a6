"""Every error that the package raises for a user's mistake.

Command-line tools print such an error as one line and exit with code 2; anything else that escapes is a defect of the
package and keeps its traceback.
"""

from __future__ import annotations


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
