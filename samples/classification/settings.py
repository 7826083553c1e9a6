"""The config keys that the sample reads, with the names of NNCF's own samples, and the effective config of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from bootstrapnas_ext.config import NNCFConfig
from bootstrapnas_ext.config.keys import TopLevel
from bootstrapnas_ext.config.rules import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Rule,
    Violation,
)
from bootstrapnas_ext.config.validation import read_keys
from bootstrapnas_ext.errors import BootstrapNASError, ConfigError
from samples.classification.own_code import own_function

INPUT_MODEL = "input_model.pt"
"""Weights of the input model, in the folder of a run."""


@dataclass(frozen=True)
class OptimizerConfig:
    """
    The optimizer of the input model and of the super-network.

    :param type: Its kind.
    :param base_lr: Learning rate at which the training of the input model begins, from where it falls along a cosine.
        The stages of the super-network have their own.
    :param momentum: Of "sgd".
    :param nesterov: Whether "sgd" looks ahead.
    :param weight_decay: L2 penalty; decoupled in "adamw".
    :param label_smoothing: Part of the target that is spread over all classes.
    :param no_decay_keys: Parameters with one of these in their name have no weight decay; separated by `#`.
    :param decay_norms_and_biases: Whether norms and biases have weight decay, too.
    """

    type: Literal["sgd", "adam", "adamw"] = "sgd"
    base_lr: PositiveFloat = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 5e-4
    label_smoothing: Fraction = 0.0
    no_decay_keys: str | None = None
    decay_norms_and_biases: bool = True

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if self.type == "sgd" and self.nesterov and not self.momentum:
            yield Violation(("nesterov",), "needs `momentum > 0`, but that is 0; turn `nesterov` off")


@dataclass(frozen=True)
class PretrainConfig:
    """
    Training of the input model, where no weights are given or their last layer is for other classes.

    :param epochs: How long.
    :param warmup_epochs: In how many of these epochs the learning rate rises from 0 to `base_lr`.
    """

    epochs: PositiveInt
    warmup_epochs: NonNegativeInt = 0

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if self.warmup_epochs >= self.epochs:
            yield Violation(
                ("warmup_epochs",),
                f"`warmup_epochs < epochs` must hold, but got (warmup_epochs={self.warmup_epochs}, "
                f"epochs={self.epochs})",
            )


@dataclass(frozen=True)
class NormalizeConfig:
    """
    What is subtracted from pixels between 0 and 1, and what they are then divided by: one number a channel.

    :param mean: Subtracted.
    :param std: Divided by.
    """

    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]


@dataclass(frozen=True)
class AugmentConfig:
    """
    Random changes of training images.

    :param crop_padding: Pixels that an image is padded with on each side, before a part of its own size is cut out.
    :param flip: Whether half of the images are mirrored.
    """

    crop_padding: NonNegativeInt = 0
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings(TopLevel):
    """
    The keys of a config of this sample.

    :param input_info: Shape of one image, `[1, channels, height, width]`; the images are made to fit.
    :param bootstrapNAS: Super-network, training and search.
    :param model: "resnet20", "resnet32", "resnet44", "resnet56" or "mobilenet_v2_cifar" of this sample, a
        classification model of torchvision, or "module.path:function" of a model of your own.
    :param num_classes: Number of outputs of the model.
    :param weights: Weights of the input model: a file, or the name of weights that torchvision has for the model.
    :param dataset: "digits" comes with scikit-learn, "cifar10" and "cifar100" are downloaded if they are not there,
        "folder" is a folder of images.
    :param dataset_dir: Where the data is or goes.
    :param batch_size: Images in a training step.
    :param batch_size_val: Images in a step of validation or test.
    :param workers: Processes that load training images.
    :param threads: Threads of PyTorch; as many as cores if not given. Small models are fastest with 1 on a busy
        machine, since threads wait for each other.
    :param mixed_precision: Whether training runs in bfloat16 where that is accurate enough.
    :param optimizer: Of the input model and of the super-network.
    :param pretrain: Training of the input model, where no weights are given.
    :param normalize: Of all images; without, pixels are between 0 and 1.
    :param augment: Random changes of training images.
    """

    model: str
    num_classes: PositiveInt
    weights: str | None = None
    dataset: Literal["digits", "cifar10", "cifar100", "folder"]
    dataset_dir: str = "data"
    batch_size: Annotated[int, Rule("minimum", 2)] = 128
    batch_size_val: PositiveInt = 1000
    workers: NonNegativeInt = 0
    threads: PositiveInt | None = None
    mixed_precision: bool = False
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    pretrain: PretrainConfig | None = None
    normalize: NormalizeConfig | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        if self.bootstrapNAS is None:
            yield Violation((), "'bootstrapNAS' is missing; give it, at least as \"bootstrapNAS\": {} for all defaults")
        shape = self._sample_size
        if len(shape) != 4 or shape[1] not in (1, 3):
            yield Violation(
                ("input_info",),
                'must be one tensor of 1 or 3 channels, for example {"sample_size": [1, 3, 32, 32]}, but got '
                f"{list(shape) or 'something else'}",
            )
            return
        for name in ("mean", "std"):
            numbers = getattr(self.normalize, name, None)
            if numbers is not None and len(numbers) != shape[1]:
                yield Violation(
                    ("normalize", name),
                    f"must have one number for each of the {shape[1]} channels of `input_info`, but has {len(numbers)}",
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self._sample_size
        return channels, height, width

    @property
    def weights_file(self) -> Path | None:
        """The file of weights, if there is one: a name with a folder or a suffix, unlike torchvision's names."""
        path = Path(self.weights or "")
        return path if path.suffix or len(path.parts) > 1 else None

    @property
    def seed(self) -> int:
        """The one seed of the run."""
        assert self.bootstrapNAS is not None  # one of the rules above
        return self.bootstrapNAS.search.seed

    @property
    def _sample_size(self) -> tuple[int, ...]:
        inputs = self.input_info if isinstance(self.input_info, tuple) else (self.input_info,)
        return inputs[0].sample_size if len(inputs) == 1 and inputs[0] is not None else ()


def effective_config(
    config: Path | None, stored: Path, *, weights: Path | None, data: Path | None, seed: int | None
) -> NNCFConfig:
    """
    Returns the config of a run, with what the command line changes of it.

    The config of a run folder that has one stays as it is, but for where the data lies, how it is loaded, and the
    `search` block: a super-network can be searched in more than one way.

    :param config: The file that was given, if any.
    :param stored: ``config.json`` of the run folder, which need not be there.
    :param weights: Given on the command line, as the next two.
    :param data: Folder of the data.
    :param seed: The seed.
    :raises ConfigError: If a config is missing or wrong, or is not that of the run folder.
    """
    if stored.exists():
        result = read_config(stored)
        own_seed = settings_of(result).seed
        if seed not in (None, own_seed):
            msg = f"--seed must be {own_seed}, with which the run in {stored.parent} began, but got {seed}."
            raise ConfigError(msg)
        if config is not None:
            _take_search(result, read_config(config), config, stored)
    elif config is not None:
        result = read_config(config)
    else:
        msg = f"There is no run in {stored.parent} yet, so a config is needed; give one with --config."
        raise ConfigError(msg)
    settings = settings_of(result)
    result["bootstrapNAS"].setdefault("search", {})["seed"] = settings.seed if seed is None else seed
    result["dataset_dir"] = str((data or Path(settings.dataset_dir)).absolute())
    if not stored.exists() and (file := weights or settings.weights_file) is not None:
        result["weights"] = str(file.absolute())
    return result


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """
    Lets every message about a config begin with its file, also where code finds the mistake that does not know it.

    :param path: The file.
    """
    try:
        yield
    except BootstrapNASError as error:
        about_config = isinstance(error, ConfigError) or str(error).startswith("$")
        if not about_config or str(error).startswith(str(path)):
            raise
        raise type(error)(f"{path}: {error}") from error


def read_config(path: Path) -> NNCFConfig:
    """
    Reads and checks a config of this sample. The module of a model of one's own is imported before, so that it may
    register what the config names. What the config says of the training of both models is written into the block of the
    super-network, too.

    :param path: The JSON file.
    :raises ConfigError: If it cannot be read, a key is missing or unknown, or a value is wrong.
    """
    with naming(path):
        _import_own_model(path)
        config = NNCFConfig.from_json(path)
        read_keys(Settings, config, source=str(path))
        _tell_supernet(config, "$.mixed_precision", config.get("mixed_precision"), "bf16")
        smoothing = config.get("optimizer", {}).get("label_smoothing")
        _tell_supernet(config, "$.optimizer.label_smoothing", smoothing, "label_smoothing")
    return config


def settings_of(config: NNCFConfig) -> Settings:
    """
    Returns the typed view of a config.

    :param config: As :func:`read_config` returned it.
    """
    return read_keys(Settings, config)


def _import_own_model(path: Path) -> None:
    content: Any = None
    with suppress(OSError, ValueError):  # what is wrong with it is told where it is read
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    model = content.get("model") if isinstance(content, dict) else None
    if isinstance(model, str) and ":" in model:
        own_function(model)


def _tell_supernet(config: NNCFConfig, where: str, value: Any, key: str) -> None:
    """Writes what is said of the training of both models into the block of the super-network, too."""
    if value is None:
        return
    optimization = config["bootstrapNAS"].setdefault("training", {}).setdefault("optimization", {})
    if optimization.setdefault(key, value) != value:
        msg = (
            f"{where}: must not be given together with another `bootstrapNAS.training.optimization.{key}`, which is "
            f"{optimization[key]}, since it is of the training of both models, but got {value}; remove one of them"
        )
        raise ConfigError(msg)


def _take_search(stored: NNCFConfig, given: NNCFConfig, path: Path, stored_path: Path) -> None:
    for key in sorted(stored.keys() | given.keys()):
        before, now = (_without_search(config, key) for config in (stored, given))
        if before != now and key not in ("dataset_dir", "weights"):
            msg = (
                f"{path}: $.{key} must be that of {stored_path}, since of a run only `bootstrapNAS.search` can change; "
                f"choose another --output-dir for this config{_reuse(stored_path.with_name(INPUT_MODEL))}"
            )
            raise ConfigError(msg)
    seed = settings_of(stored).seed
    stored["bootstrapNAS"]["search"] = {**given["bootstrapNAS"].get("search", {}), "seed": seed}


def _reuse(input_model: Path) -> str:
    return f", and give --weights {input_model} to keep its input model" if input_model.is_file() else ""


def _without_search(config: NNCFConfig, key: str) -> Any:
    value: Any = config.get(key)
    return {name: block for name, block in value.items() if name != "search"} if key == "bootstrapNAS" else value
