"""``NNCFConfig``, the dictionary that NNCF 2.x passed around, and the live objects that travel with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from bootstrapnas_ext.config.block import BOOTSTRAP_NAS, as_given, at_top_level, places
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
        warning that says what to write, and a block among the compression algorithms to the top level.

        :param nncf_dict: JSON-like: dictionaries, lists, strings, numbers, booleans, ``None``. If it is the config of
            NNCF 2 itself, the live objects that are attached to it are taken, too.
        :raises ConfigError: If a key is unknown or a value is wrong; the message has a line for each.
        """
        plain = dict(nncf_dict) if isinstance(nncf_dict, dict) else nncf_dict  # without objects of NNCF 2
        result = cls(_read(copy.deepcopy(plain)).config)
        result.register_extra_structs(_structs_of_nncf2(nncf_dict))
        return result

    @classmethod
    def of(cls, config: Any) -> NNCFConfig:
        """
        Returns a config as it is, and anything else as :meth:`from_dict` reads it, such as the config of NNCF 2 itself.

        :param config: A config.
        :raises ConfigError: If a key is unknown or a value is wrong.
        """
        return config if isinstance(config, cls) else cls.from_dict(config)

    @classmethod
    def from_json(cls, path: str | PathLike[str]) -> NNCFConfig:
        """
        Returns the config in a JSON file. Words of NNCF 2 are read as in :meth:`from_dict`.

        :param path: Path of the file.
        :raises ConfigError: If the file cannot be read or is not JSON, a key is unknown, or a value is wrong.
        """
        return cls(_read(_load_json(Path(path)), source=str(path)).config)

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
        keys = _read(config).keys
        if keys.bootstrapNAS is None:
            msg = "$: 'bootstrapNAS' is missing; give it, at least as \"bootstrapNAS\": {} for all defaults"
            raise ConfigError(msg)
        training = _with_top_level_scopes(keys.bootstrapNAS.training, keys)
        return cls(training, keys.bootstrapNAS.search, _input_infos(keys))


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
    return _input_infos(_read(config, tell=False).keys)


def _input_infos(keys: TopLevel) -> tuple[InputInfo, ...]:
    inputs = keys.input_info or ()
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
    nncf_config.register_extra_structs([_adaptation_args(train_loader, device)])
    if model_eval_fn is not None:
        nncf_config.register_extra_structs([ModelEvaluationArgs(model_eval_fn)])
    return nncf_config


class _Reading(NamedTuple):
    """
    A config that was checked.

    :param config: The dictionary in the words of today, with the block of this package at the top level.
    :param keys: The keys that this package reads.
    """

    config: Any
    keys: TopLevel


def _read(config: Any, source: str = "", *, tell: bool = True) -> _Reading:
    """Checks a config, and warns of each word of NNCF 2's if it is to tell."""
    prefix = f"{source}: " if source else ""
    found = places(config)
    if len(found) > 1:
        msg = (
            f"{prefix}$: the config must have one block for the algorithm {BOOTSTRAP_NAS!r}, but got "
            f"{' and '.join(map(format_path, found))}; keep one"
        )
        raise ConfigError(msg)
    place = found[0] if found else (BOOTSTRAP_NAS,)
    result, changes = translate(at_top_level(config, place))
    for path, message in changes if tell else ():
        warn(f"{prefix}{format_path(as_given(path, place))}: {message}")
    return _Reading(result, read_config(result, source, place))


def _structs_of_nncf2(config: Any) -> Iterator[NNCFExtraConfigStruct]:
    """Yields the live objects of a config of NNCF 2 as this package's; nothing if it is another dictionary."""
    given = {one.get_id(): one for one in getattr(config, "get_all_extra_structs", list)()}
    data, evaluation = given.get("bn_adaptation_init_args"), given.get("model_evaluation_args")
    if data is not None:
        yield _adaptation_args(data.data_loader, data.device)
    if evaluation is not None:
        yield ModelEvaluationArgs(evaluation.eval_fn)


def _adaptation_args(loader: Iterable[Any], device: str | None) -> BNAdaptationInitArgs:
    return BNAdaptationInitArgs(loader, device, getattr(loader, "get_inputs", first_of_batch))


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
