"""``NNCFConfig``, the dictionary that NNCF 2.x passed around, and the live objects that travel with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from bootstrapnas_ext.config.keys import InputInfo, TopLevel
from bootstrapnas_ext.config.nncf2 import translate
from bootstrapnas_ext.config.rules import Scopes, TopLevelScope, scope_list
from bootstrapnas_ext.config.search import SearchConfig
from bootstrapnas_ext.config.training import TrainingConfig
from bootstrapnas_ext.config.validation import format_path, read_config
from bootstrapnas_ext.errors import ConfigError, warn


class NNCFExtraConfigStruct:
    """Base of what :meth:`NNCFConfig.register_extra_structs` takes: objects that JSON cannot hold."""

    @classmethod
    def get_id(cls) -> str:
        """Returns the name under which a config holds one such struct."""
        return cls.__name__


Struct = TypeVar("Struct", bound=NNCFExtraConfigStruct)


def first_of_batch(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    Returns the arguments with which a model is called for a batch: the first of ``(inputs, targets)`` by position, a
    dictionary by keyword, anything else by position.

    :param batch: What a data loader yields.
    """
    if isinstance(batch, dict):
        return (), batch
    return (batch[0] if isinstance(batch, list | tuple) else batch,), {}


@dataclass(frozen=True)
class BNAdaptationInitArgs(NNCFExtraConfigStruct):
    """
    Where BatchNorm recalibration takes its samples from.

    :param data_loader: Yields batches of training samples.
    :param device: Where they go; to the model's device if not given.
    :param wrap: Turns a batch into the positional and the keyword arguments of the model.
    """

    data_loader: Iterable[Any]
    device: str | None = None
    wrap: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]] = first_of_batch


@dataclass(frozen=True)
class ModelEvaluationArgs(NNCFExtraConfigStruct):
    """
    How the accuracy of a model is measured.

    :param eval_fn: Takes the model, returns its accuracy in percent.
    """

    eval_fn: Callable[..., float]


class NNCFConfig(dict[str, Any]):
    """
    An NNCF config: a dictionary that was checked, with live objects attached.

    .. code-block:: python

        >>> config = NNCFConfig.from_dict({"input_info": {"sample_size": [1, 3, 32, 32]}, "bootstrapNAS": {}})
        >>> config["input_info"]["sample_size"]
        [1, 3, 32, 32]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._extra_structs: dict[str, NNCFExtraConfigStruct] = {}

    @classmethod
    def from_dict(cls, nncf_dict: dict[str, Any]) -> NNCFConfig:
        """
        Returns a config with a copy of the dictionary. Words of NNCF 2 are brought into those of today, each with a
        warning that says what to write.

        :param nncf_dict: JSON-like: dictionaries, lists, strings, numbers, booleans, ``None``.
        :raises ConfigError: If a key is unknown or a value is wrong; the message has a line for each.
        """
        return cls(_checked(copy.deepcopy(nncf_dict)))

    @classmethod
    def from_json(cls, path: str | PathLike[str]) -> NNCFConfig:
        """
        Returns the config in a JSON file. Words of NNCF 2 are read as in :meth:`from_dict`.

        :param path: Path of the file.
        :raises ConfigError: If the file cannot be read or is not JSON, a key is unknown, or a value is wrong.
        """
        return cls(_checked(_load_json(Path(path)), source=str(path)))

    def register_extra_structs(self, struct_list: Iterable[NNCFExtraConfigStruct]) -> None:
        """
        Attaches live objects.

        :param struct_list: At most one of each kind.
        :raises ConfigError: If one of that kind is attached already.
        """
        for struct in struct_list:
            if struct.get_id() in self._extra_structs:
                msg = f"The config has a {struct.get_id()} already; a config takes one of each kind."
                raise ConfigError(msg)
            self._extra_structs[struct.get_id()] = struct

    def get_extra_struct(self, struct_cls: type[Struct]) -> Struct:
        """
        Returns the attached object of a kind.

        :param struct_cls: The kind.
        :raises ConfigError: If none is attached.
        """
        if not self.has_extra_struct(struct_cls):
            msg = (
                f"The config has no {struct_cls.get_id()}; attach it with `register_extra_structs`, or a data loader "
                f"with `register_default_init_args`."
            )
            raise ConfigError(msg)
        return cast(Struct, self._extra_structs[struct_cls.get_id()])

    def has_extra_struct(self, struct_cls: type[NNCFExtraConfigStruct]) -> bool:
        """
        Returns whether an object of a kind is attached.

        :param struct_cls: The kind.
        """
        return struct_cls.get_id() in self._extra_structs


@dataclass(frozen=True)
class BootstrapNASConfig:
    """
    The typed view of a config.

    :param training: How the super-network is built and trained; its `elasticity` has the scopes of the top level, too.
    :param search: How subnets are searched and chosen.
    :param input_info: The tensors that the model takes; empty if the config does not say.
    """

    training: TrainingConfig
    search: SearchConfig
    input_info: tuple[InputInfo, ...]

    @property
    def seed(self) -> int:
        """The one seed, of training and search."""
        return self.search.seed

    @classmethod
    def from_nncf(cls, config: dict[str, Any]) -> BootstrapNASConfig:
        """
        Returns the typed view of a config, which is checked once more: it may have been changed since it was read.

        :param config: An :class:`NNCFConfig` or a plain dictionary of the same keys.
        :raises ConfigError: If the config has no `bootstrapNAS` block, a key is unknown, or a value is wrong.
        """
        keys = read_config(_translated(config))
        if keys.bootstrapNAS is None:
            msg = "$: 'bootstrapNAS' is missing; give it, at least as \"bootstrapNAS\": {} for all defaults"
            raise ConfigError(msg)
        training = _with_top_level_scopes(keys.bootstrapNAS.training, keys)
        return cls(training, keys.bootstrapNAS.search, input_infos(config))


def _with_top_level_scopes(training: TrainingConfig, keys: TopLevel) -> TrainingConfig:
    def joined(outer: Scopes, inner: Scopes) -> Scopes:
        return (*map(TopLevelScope, scope_list(outer)), *scope_list(inner)) if outer else inner

    elasticity = replace(
        training.elasticity,
        ignored_scopes=joined(keys.ignored_scopes, training.elasticity.ignored_scopes),
        target_scopes=joined(keys.target_scopes, training.elasticity.target_scopes),
    )
    return replace(training, elasticity=elasticity)


def input_infos(config: dict[str, Any]) -> tuple[InputInfo, ...]:
    """
    Returns what a config says about the tensors that the model takes, empty if it says nothing.

    :param config: An :class:`NNCFConfig` or a plain dictionary of the same keys.
    :raises ConfigError: If a key is unknown, or a value is wrong.
    """
    inputs = read_config(translate(config).config).input_info or ()
    return (inputs,) if isinstance(inputs, InputInfo) else inputs


def register_default_init_args(
    nncf_config: NNCFConfig,
    train_loader: Iterable[Any],
    criterion: Any = None,
    criterion_fn: Callable[..., Any] | None = None,
    train_steps_fn: Callable[..., Any] | None = None,
    validate_fn: Callable[..., Any] | None = None,
    val_loader: Iterable[Any] | None = None,
    autoq_eval_fn: Callable[..., float] | None = None,
    model_eval_fn: Callable[..., float] | None = None,
    distributed_callbacks: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
    execution_parameters: Any = None,
    legr_train_optimizer: Any = None,
    device: str | None = None,
) -> NNCFConfig:
    """
    Attaches the training data to a config, with NNCF 2.x's signature.

    BatchNorm recalibration and `model_eval_fn` are all that a super-network needs; the other arguments were those of
    compression algorithms that are not part of this package, and are taken so that existing calls work.

    :param nncf_config: The config, which is changed.
    :param train_loader: Yields batches of training samples. If it has a method ``get_inputs``, as NNCF 2.x's
        initializing data loaders have, that turns a batch into the arguments of the model.
    :param model_eval_fn: Takes the model, returns its accuracy in percent.
    :param device: Where batches go for recalibration; to the model's device if not given.
    :return: The config that was given.
    :raises ConfigError: If the config has such data already.
    """
    wrap = getattr(train_loader, "get_inputs", first_of_batch)
    nncf_config.register_extra_structs([BNAdaptationInitArgs(train_loader, device, wrap)])
    if model_eval_fn is not None:
        nncf_config.register_extra_structs([ModelEvaluationArgs(model_eval_fn)])
    return nncf_config


def _checked(config: Any, source: str = "") -> Any:
    """Returns a config in the words of today, after a check."""
    result = _translated(config, source)
    read_config(result, source)
    return result


def _translated(config: Any, source: str = "") -> Any:
    """Returns a config in the words of today, after a warning for each of NNCF 2's."""
    result, changes = translate(config)
    prefix = f"{source}: " if source else ""
    for path, message in changes:
        warn(f"{prefix}{format_path(path)}: {message}")
    return result


def _load_json(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        msg = f"{path}: the config cannot be read: {reason}; give the path of a JSON file"
        raise ConfigError(msg) from error
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        msg = f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
        raise ConfigError(msg) from error
    except ValueError as error:
        msg = f"{path}: not JSON: {error}"
        raise ConfigError(msg) from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        msg = f"the key {repeated!r} occurs more than once in one object; keep one"
        raise ValueError(msg)
    return result


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not a JSON number"
    raise ValueError(msg)
