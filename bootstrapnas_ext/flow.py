"""The NNCF-style face: one function makes a super-network of a model, a controller goes with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from bootstrapnas_ext import _nncf, processes
from bootstrapnas_ext.calibration import Calibration
from bootstrapnas_ext.config import (
    BatchnormAdaptationConfig,
    BNAdaptationInitArgs,
    BootstrapNASConfig,
    NNCFConfig,
    input_infos,
)
from bootstrapnas_ext.config.block import BOOTSTRAP_NAS, other_algorithms, places
from bootstrapnas_ext.deployment import Deployed, deploy
from bootstrapnas_ext.errors import CheckpointError, ConfigError, warn
from bootstrapnas_ext.evaluation import has_norm_statistics
from bootstrapnas_ext.example import from_forward, from_input_info
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.model_checks import check_model
from bootstrapnas_ext.registry import Registry
from bootstrapnas_ext.report.graph import write_dot
from bootstrapnas_ext.space import Subnet
from bootstrapnas_ext.supernet import Supernet
from bootstrapnas_ext.training import Distillation, StepLoss, TrainingScheduler
from bootstrapnas_ext.unheeded import unheeded_settings

TModel = TypeVar("TModel", bound=nn.Module)
TController = TypeVar("TController", bound="BootstrapNASController")


class Controller(Protocol):
    """What :func:`create_compressed_model` returns next to the model, for every algorithm."""

    @property
    def loss(self) -> Callable[..., Tensor]:
        """Without arguments, the algorithm's term of the loss, for the last forward pass."""

    @property
    def scheduler(self) -> Any:
        """Has ``epoch_step()``, to be called before each epoch, and ``step()``, before each training step."""

    def get_compression_state(self) -> dict[str, Any]:
        """Returns what ``create_compressed_model(compression_state=...)`` needs to make the same again."""


Builder = Callable[[nn.Module, NNCFConfig, ExampleInput, Mapping[str, Any] | None], Controller]
ALGORITHMS: Registry[Builder] = Registry("compression algorithm")
"""Names in a config to builders. A builder changes the model in place and returns its controller.

.. code-block:: python

    @ALGORITHMS.register("my_algorithm")
    def build(model, nncf_config, example, compression_state):
        return MyController(model)
"""


def create_compressed_model(
    model: TModel,
    config: NNCFConfig,
    compression_state: Mapping[str, Any] | None = None,
    dummy_forward_fn: Callable[[nn.Module], Any] | None = None,
    wrap_inputs_fn: Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]] | None = None,
    wrap_outputs_fn: Callable[[Any], Any] | None = None,
    dump_graphs: bool = True,
) -> tuple[Any, TModel]:
    """
    Turns a model into what the config's algorithm makes of it, in place, with NNCF 2.x's signature.

    The algorithm is ``bootstrapNAS`` if the config has that block, else the one that ``compression.algorithm`` names.
    Others beside it are left out with a warning, where NNCF 2's function put several together.

    .. code-block:: python

        config = NNCFConfig.from_json("config.json")
        controller, model = create_compressed_model(model, config)

    :param model: A model on any device; pre-trained weights are loaded already.
    :param config: The config; without ``dummy_forward_fn`` it needs ``input_info``.
    :param compression_state: What a controller's ``get_compression_state()`` returned, to go on from there; load the
        weights with ``model.load_state_dict`` afterwards.
    :param dummy_forward_fn: Gets the model and calls it, for inputs that ``input_info`` cannot describe.
    :param wrap_inputs_fn: Changes the arguments that the model is traced with: from ``(args, kwargs)`` to the same.
    :param wrap_outputs_fn: Not needed and not called, since every tensor that the model returns is an output.
    :param dump_graphs: Whether to write the traced graph as ``original_graph.dot`` into the config's ``log_dir``, if it
        has one.
    :return: The controller, and the model that was given.
    :raises ConfigError: If the config names no algorithm or more than one.
    :raises RegistryError: If the algorithm is not registered.
    :raises ModelError: If the model cannot be traced, or nothing of it is elastic.
    :raises CheckpointError: If the state is another algorithm's or super-network's.
    """
    config = NNCFConfig.of(config)
    check_model(model)
    name = _algorithm_name(config)
    builder = ALGORITHMS.get(name)
    example = example_input(model, config, dummy_forward_fn, wrap_inputs_fn)
    controller = builder(model, config, example, compression_state)
    is_writer = dump_graphs and "log_dir" in config and processes.rank() == 0
    if is_writer and isinstance(controller, BootstrapNASController):
        try:
            write_dot(controller.supernet.graph, Path(config["log_dir"]) / "original_graph.dot")
        except BaseException:
            controller.supernet.release()
            raise
    return controller, model


_INSTEAD = {
    "quantization": "quantize what `extract` returns, or what `export_model` writes, with `nncf.quantize`",
    "knowledge_distillation": "write `training.distillation` with the source 'input_model' in the block 'bootstrapNAS'",
}


def _algorithm_name(config: NNCFConfig) -> str:
    names = other_algorithms(config)
    if places(config):
        for name in names:
            hint = _INSTEAD.get(name, "apply it to what `extract` returns")
            warn(f"$.compression: {name!r} is left out, since this function makes super-networks only; {hint}")
        return BOOTSTRAP_NAS
    if len(names) != 1:
        msg = (
            f"$: the config must name one algorithm, by a 'bootstrapNAS' block or by compression.algorithm, but got "
            f"{names}. Registered: {', '.join(ALGORITHMS)}"
        )
        raise ConfigError(msg)
    return names[0]


def example_input(
    model: nn.Module,
    nncf_config: NNCFConfig,
    dummy_forward_fn: Callable[[nn.Module], Any] | None = None,
    wrap_inputs_fn: Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]] | None = None,
) -> ExampleInput:
    """
    Returns what a model is traced with, on its device.

    :param model: The model.
    :param nncf_config: Its ``input_info`` says what the model takes.
    :param dummy_forward_fn: Calls the model, in place of what the config says.
    :param wrap_inputs_fn: Changes the arguments.
    :raises ConfigError: If nothing says what the model takes.
    :raises ModelError: If the function fails, or does not call the model.
    """
    if dummy_forward_fn is not None:
        example = from_forward(model, dummy_forward_fn)
    else:
        example = from_input_info(input_infos(nncf_config))
    if wrap_inputs_fn is not None:
        example = ExampleInput(*wrap_inputs_fn(example.args, example.kwargs))
    device = next((parameter.device for parameter in model.parameters()), None)
    return example if device is None else example.to(device)


class ElasticityHandler:
    """
    Says which subnet the model runs.

    :param supernet: The super-network.
    """

    def __init__(self, supernet: Supernet) -> None:
        self._supernet = supernet

    @property
    def active_subnet(self) -> Subnet:
        """The subnet that the model runs now."""
        return self._supernet.active

    def activate_maximum_subnet(self) -> None:
        """Makes the model run the largest subnet: the given model."""
        self._supernet.set_active(self._supernet.space.maximum)

    def activate_minimum_subnet(self) -> None:
        """Makes the model run the smallest subnet."""
        self._supernet.set_active(self._supernet.space.minimum)

    def activate_random_subnet(self, rng: np.random.Generator) -> Subnet:
        """
        Makes the model run a random subnet, every value of a choice equally likely, and returns it.

        :param rng: The source of randomness.
        """
        self._supernet.set_active(self._supernet.space.sample(rng))
        return self._supernet.active

    def activate_subnet(self, subnet: Mapping[str, int]) -> None:
        """
        Makes the model run a subnet.

        :param subnet: Choice name to value.
        :raises SubnetError: If it is not in the search space.
        """
        self._supernet.set_active(subnet)


class BootstrapNASController:
    """
    The controller of a super-network: all that a training loop of one's own needs.

    :param supernet: The super-network.
    :param input_model: The given model, as it was.
    :param config: The typed config.
    :param nncf_config: Its extra structs say where samples for BatchNorm recalibration come from.
    """

    def __init__(
        self, supernet: Supernet, input_model: nn.Module, config: BootstrapNASConfig, nncf_config: NNCFConfig
    ) -> None:
        self.supernet = supernet
        self.input_model = input_model
        self.config = config
        self.multi_elasticity_handler = ElasticityHandler(supernet)
        self.nncf_config = nncf_config
        training = config.training
        has_data = nncf_config.has_extra_struct(BNAdaptationInitArgs)
        recalibrate = self.calibration(training.batchnorm_adaptation, all_processes=True) if has_data else None
        scheduler = TrainingScheduler(supernet, training, seed=config.seed, recalibrate=recalibrate)
        distillation = Distillation(
            supernet, input_model, training.distillation, current_step=lambda: scheduler.current_step
        )
        self._scheduler = scheduler
        self._loss = StepLoss(scheduler, distillation)

    def __deepcopy__(self, memo: dict[int, Any]) -> BootstrapNASController:
        """Returns a copy that shares what nobody changes: the given model, and the config with its data."""
        memo |= {id(shared): shared for shared in (self.input_model, self.nncf_config)}
        result = object.__new__(type(self))
        memo[id(self)] = result
        vars(result).update(copy.deepcopy(vars(self), memo))
        return result

    @property
    def scheduler(self) -> TrainingScheduler:
        """Says what each step trains; ``epoch_step()`` comes before each epoch, and ``step()`` before each step."""
        return self._scheduler

    @property
    def loss(self) -> StepLoss:
        """Without arguments, the term of distillation for the last forward pass; with the task's loss, all of it."""
        return self._loss

    @property
    def model(self) -> nn.Module:
        """The model; it runs the active subnet."""
        return self.supernet.model

    def calibration(self, config: BatchnormAdaptationConfig, *, all_processes: bool = False) -> Calibration | None:
        """
        Returns what recalibrates norm statistics, ``None`` if nothing is to be recalibrated.

        :param config: From how many samples.
        :param all_processes: Whether all processes do it together, as in training.
        :raises ConfigError: If the model has such statistics, and there is no data to compute them from.
        """
        if not self.nncf_config.has_extra_struct(BNAdaptationInitArgs):
            if config.num_bn_adaptation_samples == 0 or not has_norm_statistics(self.model):
                return None
            msg = (
                "Every subnet needs BatchNorm statistics of its own, but there is no data to compute them from; call "
                "`register_default_init_args(nncf_config, train_loader)` before `create_compressed_model`, or set "
                "`batchnorm_adaptation.num_bn_adaptation_samples` to 0."
            )
            raise ConfigError(msg)
        source = self.nncf_config.get_extra_struct(BNAdaptationInitArgs)
        return Calibration(source, config.num_bn_adaptation_samples, self.config.seed, all_processes)

    def get_compression_state(self) -> dict[str, Any]:
        """Returns structure, active subnet and position in training; the weights are in ``model.state_dict()``."""
        return {
            "algorithm": BOOTSTRAP_NAS,
            "structure": self.supernet.structure(),
            "scheduler": self.scheduler.get_state(),
        }

    def load_compression_state(self, state: Mapping[str, Any]) -> None:
        """
        Restores what :meth:`get_compression_state` returned.

        :param state: The state of a super-network of the same model and config.
        :raises CheckpointError: If it is another's.
        """
        if state.get("algorithm") != BOOTSTRAP_NAS or "structure" not in state or "scheduler" not in state:
            found = state.get("algorithm")
            msg = f"The compression state must be of the algorithm {BOOTSTRAP_NAS!r}, but it is of {found!r}."
            raise CheckpointError(msg)
        self.supernet.load_structure(state["structure"])
        self.scheduler.load_state(state["scheduler"])

    def export_model(self, save_path: str | Path, save_format: str | None = None) -> Deployed:
        """
        Writes the active subnet as a plain model with norm statistics of its own, verified against the super-network.

        :param save_path: A folder, which gets ``model.onnx``, or ``model.xml`` and ``model.bin``, or ``model.pt2``.
        :param save_format: ``onnx``, ``ir`` or ``torch``; ``onnx`` and ``ir`` if not given.
        :raises ExportError: If the export fails, or differs from the super-network.
        """
        formats = ("onnx", "ir") if save_format is None else (save_format,)
        return deploy(
            self.supernet,
            self.supernet.active,
            save_path,
            formats,
            recalibrate=self.calibration(self.config.search.batchnorm_adaptation),
            seed=self.config.seed,
        )


@ALGORITHMS.register(BOOTSTRAP_NAS)
def build_bootstrap_nas(
    model: nn.Module, nncf_config: NNCFConfig, example: ExampleInput, compression_state: Mapping[str, Any] | None
) -> BootstrapNASController:
    """
    Makes the super-network that the config describes.

    Warns of settings for layers that the model's own code does not let be smaller.

    :param model: The model; changed in place.
    :param nncf_config: The config.
    :param example: What the model is traced with.
    :param compression_state: To go on from.
    """
    config = BootstrapNASConfig.from_nncf(nncf_config)
    return make_controller(BootstrapNASController, model, config, nncf_config, example, compression_state)


def make_controller(
    kind: type[TController],
    model: nn.Module,
    config: BootstrapNASConfig,
    nncf_config: NNCFConfig,
    example: ExampleInput,
    compression_state: Mapping[str, Any] | None = None,
) -> TController:
    """
    Makes the super-network that a typed config describes, and its controller.

    :param kind: Type of the controller.
    :param model: The model; changed in place.
    :param config: The typed config.
    :param nncf_config: The config that it was read from.
    :param example: What the model is traced with.
    :param compression_state: To go on from.
    """
    input_model = _nncf.copy_of(model)
    supernet = Supernet(model, example, config.training.elasticity)
    try:
        for sentence in unheeded_settings(supernet, supernet.config):
            warn(sentence)
        controller = kind(supernet, input_model, config, nncf_config)
        if compression_state is not None:
            controller.load_compression_state(compression_state)
    except BaseException:
        supernet.release()  # so that the call may be repeated with the same model
        raise
    return controller
