"""Super-networks made, and made again from a state, by NNCF 2's names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from bootstrapnas_ext.compat.nncf2.checkpoints import is_of_nncf2
from bootstrapnas_ext.compat.nncf2.controllers import CONFIG, ElasticityController, ProgressiveShrinkingController
from bootstrapnas_ext.config import BNAdaptationInitArgs, ModelEvaluationArgs, NNCFConfig
from bootstrapnas_ext.errors import CheckpointError, ConfigError, ModelError
from bootstrapnas_ext.flow import BootstrapNASController, build_bootstrap_nas, example_input
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.model_checks import check_model

TModel = TypeVar("TModel", bound=nn.Module)
Some = TypeVar("Some")

_CONTROLLERS: dict[str, type[ElasticityController | ProgressiveShrinkingController]] = {
    "progressive_shrinking": ProgressiveShrinkingController,
    "elasticity": ElasticityController,
}
_logger = logging.getLogger(__name__)

_CONVERT = "convert it with tools/convert_checkpoint.py"

# Where a model keeps what it is traced with until it is a super-network: NNCF 2 handed only the model from call to
# call, and scripts may copy it in between.
_EXAMPLE = "_bootstrapnas_example"


def nncf_model_input(tensor: Some) -> Some:
    """
    Returns what it gets. NNCF 2 needed to be told what is an input.

    :param tensor: A tensor.
    """
    return tensor


def nncf_model_output(tensor: Some) -> Some:
    """
    Returns what it gets. NNCF 2 needed to be told what is an output.

    :param tensor: A tensor.
    """
    return tensor


def create_nncf_network(
    model: TModel,
    config: NNCFConfig,
    dummy_forward_fn: Callable[[nn.Module], Any] | None = None,
    wrap_inputs_fn: Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]] | None = None,
    wrap_outputs_fn: Callable[[Any], Any] | None = None,
) -> TModel:
    """
    Returns the model, ready to become a super-network.

    :param model: The model.
    :param config: Its ``input_info`` says what the model takes.
    :param dummy_forward_fn: Gets the model and calls it, for inputs that ``input_info`` cannot describe.
    :param wrap_inputs_fn: Changes the arguments that the model is traced with.
    :param wrap_outputs_fn: Not needed and not called.
    :raises ConfigError: If nothing says what the model takes.
    :raises ModelError: If the model cannot become a super-network.
    """
    check_model(model)
    vars(model)[_EXAMPLE] = example_input(model, config, dummy_forward_fn, wrap_inputs_fn)
    return model


def create_compressed_model_from_algo_names(
    nncf_network: TModel, config: NNCFConfig, algo_names: Sequence[str], dump_graphs: bool = True
) -> tuple[Any, TModel]:
    """
    Makes the super-network that a config describes.

    :param nncf_network: What :func:`create_nncf_network` returned; changed in place.
    :param config: The config.
    :param algo_names: ``progressive_shrinking``, for a controller of training, or ``elasticity``.
    :param dump_graphs: Not needed: `create_compressed_model` writes the graph.
    :return: The controller, and the model.
    :raises ConfigError: If the algorithm is another one.
    """
    if isinstance(algo_names, str) or len(algo_names) != 1 or algo_names[0] not in _CONTROLLERS:
        msg = f"`algo_names` must be one of {', '.join(map(repr, _CONTROLLERS))}, in a list, but got {algo_names!r}."
        raise ConfigError(msg)
    return _made(_CONTROLLERS[algo_names[0]], nncf_network, NNCFConfig.of(config)), nncf_network


def resume_compression_from_state(
    nncf_network: TModel, compression_state: Mapping[str, Any], config: NNCFConfig | None = None
) -> tuple[TModel, Any]:
    """
    Makes the super-network again that a state is of.

    :param nncf_network: What :func:`create_nncf_network` returned for the same model; changed in place.
    :param compression_state: What a controller's ``get_compression_state()`` returned.
    :param config: Its extra structs are taken; all else comes from the state.
    :return: The model, and a controller of the kind that the state is of.
    :raises CheckpointError: If the state is NNCF 2's, or something else.
    """
    if is_of_nncf2(compression_state):
        msg = f"The compression state was written by NNCF 2; {_CONVERT}."
        raise CheckpointError(msg)
    kinds = {kind.__name__: kind for kind in _CONTROLLERS.values()}
    if compression_state.get("controller") not in kinds or not {CONFIG, "handler"} <= compression_state.keys():
        msg = "The compression state must be what `get_compression_state()` of a controller returned."
        raise CheckpointError(msg)
    resumed = NNCFConfig.from_dict(dict(compression_state[CONFIG]))
    if config is not None:
        config = NNCFConfig.of(config)
        structs = (BNAdaptationInitArgs, ModelEvaluationArgs)
        resumed.register_extra_structs(
            [config.get_extra_struct(one) for one in structs if config.has_extra_struct(one)]
        )
    return nncf_network, _made(kinds[compression_state["controller"]], nncf_network, resumed, compression_state)


def _made(
    kind: type[ElasticityController | ProgressiveShrinkingController],
    model: nn.Module,
    config: NNCFConfig,
    state: Mapping[str, Any] | None = None,
) -> ElasticityController | ProgressiveShrinkingController:
    if _EXAMPLE not in vars(model):
        msg = (
            "The model is not ready to become a super-network, or is one already; give what "
            "`create_nncf_network(model, nncf_config)` returned, once."
        )
        raise ModelError(msg)
    example = vars(model).pop(_EXAMPLE)
    try:
        return _built(kind, model, config, example, state)
    except BaseException:
        vars(model)[_EXAMPLE] = example  # so that the call may be repeated
        raise


def _built(
    kind: type[ElasticityController | ProgressiveShrinkingController],
    model: nn.Module,
    config: NNCFConfig,
    example: ExampleInput,
    state: Mapping[str, Any] | None,
) -> ElasticityController | ProgressiveShrinkingController:
    native = cast(BootstrapNASController, build_bootstrap_nas(model, config, example, None))
    try:
        controller = kind(native)
        if state is not None:
            controller.load_state(state)
    except BaseException:
        native.supernet.release()
        raise
    return controller


def load_state(
    model: nn.Module,
    state_dict_to_load: Mapping[str, Any],
    is_resume: bool = False,
    keys_to_ignore: Sequence[str] | None = None,
) -> int:
    """
    Loads weights, whether or not the names of a parallel model's have ``module.`` before them, and logs what does not
    fit.

    :param model: The model, a super-network or not.
    :param state_dict_to_load: Names to tensors.
    :param is_resume: Whether names and shapes must be those of the model.
    :param keys_to_ignore: Names that are not loaded.
    :return: How many were loaded.
    :raises CheckpointError: If they are weights of NNCF 2's super-networks, or must fit and do not.
    """
    given = {name.removeprefix("module."): value for name, value in state_dict_to_load.items()}
    if any(".pre_ops." in name or name.endswith("nncf_padding_value") for name in given):
        msg = f"The weights are those of a super-network of NNCF 2; {_CONVERT}."
        raise CheckpointError(msg)
    ignored = set(keys_to_ignore or ())
    own = model.state_dict()
    fitting = {name: value for name, value in given.items() if name not in ignored and _fits(own.get(name), value)}
    wrong = sorted((own.keys() | given.keys()) - fitting.keys() - ignored)
    if is_resume and wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        msg = f"The weights are not of this model: {wrong[0]!r}{more} is missing or has another shape in one of them."
        raise CheckpointError(msg)
    if wrong:
        _logger.warning(
            "%d of the model's %d tensors were loaded. The model or the weights lack, or have in another shape: %s",
            len(fitting),
            len(own),
            ", ".join(wrong),
        )
    model.load_state_dict(fitting, strict=False)
    return len(fitting)


def _fits(own: Any, given: Any) -> bool:
    return isinstance(own, Tensor) and isinstance(given, Tensor) and own.shape == given.shape
