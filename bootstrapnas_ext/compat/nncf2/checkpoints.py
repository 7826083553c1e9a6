"""Checkpoints of NNCF 2's super-networks: read by an allow-list, and turned into those of today."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bootstrapnas_ext.compat.nncf2.states import Stored, read_state
from bootstrapnas_ext.config import BootstrapNASConfig
from bootstrapnas_ext.elasticity.depth import BlockError
from bootstrapnas_ext.elasticity.kernel import CropHook
from bootstrapnas_ext.errors import CheckpointError, warn
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet

# The one class in NNCF 2's checkpoints that is none of PyTorch's; it is read as the number that it stands for.
_Stage = type("CompressionStage", (int,), {"__module__": "nncf.api.compression"})

_PADDING = ".nncf_padding_value"
_MATRIX = re.compile(r"(?P<module>.+)\.pre_ops\.\d+\.op\.\d+to(?P<size>\d+)_matrix")
# NNCF 2 stopped there, and took whole multiples.
_SMALLEST_KERNEL = 3
_MULTIPLE = 8


def read_checkpoint(path: Path) -> dict[str, Any]:
    """
    Reads a dictionary of tensors and plain values, on the CPU. No code from the file runs.

    :param path: The file.
    :raises CheckpointError: If it is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        msg = f"There is no checkpoint at {path}; check the path."
        raise CheckpointError(msg)
    try:
        with torch.serialization.safe_globals([_Stage]):
            contents: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load documents no errors of its own: they depend on which bytes are damaged
        msg = f"The checkpoint {path} is damaged, or holds more than tensors and plain values; use another one."
        raise CheckpointError(msg) from error
    if not isinstance(contents, dict):
        msg = f"The checkpoint {path} must hold a dictionary, but it holds {type(contents).__name__}."
        raise CheckpointError(msg)
    return contents


def is_of_nncf2(state: Mapping[str, Any]) -> bool:
    """
    Returns whether a compression state was written by NNCF 2.

    :param state: Any dictionary.
    """
    return "builder_state" in state


class Converted(NamedTuple):
    """
    What a super-network of NNCF 2 has become.

    :param supernet: The super-network, with its weights.
    :param elasticity: The block of a config that makes the same again.
    :param opened: Which dimensions and which values of each choice the last stage of training had opened, as the
        state of a :class:`MultiElasticityHandler`.
    """

    supernet: Supernet
    elasticity: dict[str, Any]
    opened: dict[str, Any]


def convert(model: nn.Module, example: ExampleInput, state: Mapping[str, Any], weights: Mapping[str, Any]) -> Converted:
    """
    Makes the super-network that NNCF 2 had made of a model, with its weights.

    :param model: The model that NNCF 2 was given; changed in place.
    :param example: What to call it with.
    :param state: The content of ``last_elasticity.pth``, or ``training_algo_state`` of ``supernet_last.pth``.
    :param weights: The content of ``last_model_weights.pth``, or ``model_state`` of ``supernet_last.pth``.
    :raises CheckpointError: If these are not NNCF 2's, or those of another model.
    """
    stored = read_state(state)
    own_weights, matrices = _sorted_out(weights)
    _check_weights(model, own_weights)
    block = _elasticity(stored.parts, model)
    if not block["available_elasticity_dims"]:
        msg = "The checkpoint has nothing elastic, so that there is no super-network to convert."
        raise CheckpointError(msg)
    supernet = _supernet(model, example, block)
    try:
        _load(supernet, own_weights, matrices)
    except BaseException:
        supernet.release()
        raise
    return Converted(supernet, _with_own_names(block, supernet), _opened(supernet, stored, block))


def _sorted_out(weights: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[tuple[str, int], Tensor]]:
    """Returns the model's own weights, and the matrix of each layer and smaller kernel size."""
    own: dict[str, Tensor] = {}
    matrices: dict[tuple[str, int], Tensor] = {}
    for given, tensor in weights.items():
        name = given.removeprefix("module.")  # of a parallel model
        found = _MATRIX.fullmatch(name)
        if found is not None:
            matrices[found["module"], int(found["size"])] = tensor
        elif not name.endswith(_PADDING):
            own[name] = tensor
    return own, matrices


def _check_weights(model: nn.Module, weights: Mapping[str, Any]) -> None:
    here = model.state_dict()
    for name in sorted(here.keys() | weights.keys()):
        one, other = (_shape(tensors.get(name)) for tensors in (weights, here))
        if one != other:
            msg = (
                f"The checkpoint is of another model: {name!r} is {one} there, but {other} in the model that is given."
            )
            raise CheckpointError(msg)


def _shape(tensor: Any) -> str:
    return f"of shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else "missing"


def _elasticity(parts: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Returns the block of a config that says what NNCF 2 had made elastic, with its names."""
    found = dict(_dimensions(parts, model))
    return {"available_elasticity_dims": list(found), **found}


def _dimensions(parts: Mapping[str, Any], model: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    if "width" in parts:
        params, groups = parts["width"]["elasticity_params"], parts["width"]["grouped_node_names_to_prune"]
        given = params.get("overwrite_groups_widths") or [None] * len(groups)
        widths = [one or _widths(_channels(model, group[0]), params) for group, one in zip(groups, given, strict=True)]
        yield (
            "width",
            {
                "overwrite_groups": groups,
                "overwrite_groups_widths": widths,
                "filter_importance": params["filter_importance"],
                "external_importance_path": params["external_importance_path"],
            },
        )
    if "kernel" in parts:
        names, most = (
            parts["kernel"]["node_names_to_make_elastic"],
            parts["kernel"]["elasticity_params"]["max_num_kernels"],
        )
        sizes = (
            {"target_scopes": names, "max_num_kernels": most if most > 0 else None} if names else {"max_num_kernels": 1}
        )
        yield "kernel", {"min_kernel_size": _SMALLEST_KERNEL, **sizes}
    if "depth" in parts:
        blocks = [[one["start_node_name"], one["end_node_name"]] for one in parts["depth"]["skipped_blocks"]]
        yield "depth", {"mode": "manual", "skipped_blocks": blocks}


def _channels(model: nn.Module, name: str) -> int:
    """Returns how many channels a layer makes that NNCF 2 had named."""
    path = ".".join(re.findall(r"\[([^\]]+)\]", name))
    try:
        weight = model.get_submodule(path).weight
    except AttributeError as error:
        msg = f"The checkpoint is of another model: it has the layer {name!r}, which the model that is given does not."
        raise CheckpointError(msg) from error
    assert isinstance(weight, Tensor)
    return weight.shape[0]


def _widths(channels: int, params: Mapping[str, Any]) -> list[int]:
    """Returns the widths that NNCF 2 gave a layer, largest first."""
    lowest, step = params["min_width"], params["width_step"]
    if channels <= lowest:
        return [channels]
    if params["width_multipliers"]:
        parts = (int(channels * part) for part in sorted(params["width_multipliers"], reverse=True))
        wanted: Sequence[int] = [channels, *(max(width - width % _MULTIPLE, lowest) for width in parts)]
    else:
        wanted = range(channels, lowest - 1, -step)
    most = params["max_num_widths"]
    return list(dict.fromkeys(wanted))[: most if most > 0 else None]


def _load(supernet: Supernet, weights: Mapping[str, Tensor], matrices: dict[tuple[str, int], Tensor]) -> None:
    missing = dict(matrices)
    hooks = [hook for part in supernet.elasticities for hook in part.hooks if isinstance(hook.module, CropHook)]
    with torch.no_grad():
        for hook in hooks:
            module = supernet.graph.ops[supernet.graph.op_index[hook.op]].module
            assert isinstance(hook.module, CropHook)
            for size, matrix in hook.module.matrices.items():
                given = missing.pop((module, int(size)), None)
                if given is None or given.shape != matrix.shape:
                    msg = f"The checkpoint is of another model: it has no matrix for kernel {size} of {module!r}."
                    raise CheckpointError(msg)
                matrix.copy_(given.T)  # NNCF 2 multiplied from the other side
    if missing:
        layer, smaller = next(iter(missing))
        msg = f"The checkpoint is of another model: {layer!r} has a kernel of {smaller} there, but cannot have it here."
        raise CheckpointError(msg)
    supernet.model.load_state_dict(weights, strict=False)


def _opened(supernet: Supernet, stored: Stored, block: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the state of a handler that proposes what NNCF 2's last stage of training had opened."""
    dims = set(block["available_elasticity_dims"])
    most = stored.handlers.get("width", {}).get("width_num_params_indicator", -1)
    counts = {one.name: len(one.values) for one in supernet.space.choices}
    for choice in supernet.space.choices:
        if choice.dimension == "width" and most > 0:
            counts[choice.name] = min(most, len(choice.values))
    if "depth" in dims:
        counts |= _open_depths(supernet, stored, block["depth"]["skipped_blocks"])
    # Where none is enabled, no stage has begun, and all may change.
    return {"dims": sorted(dims.intersection(stored.enabled) or dims), "open": counts}


def _open_depths(supernet: Supernet, stored: Stored, blocks: Sequence[Sequence[str]]) -> dict[str, int]:
    """Returns how many values of each choice were open: of blocks in a row, the last ones could be skipped."""
    part, most = stored.parts["depth"], stored.handlers["depth"]["depth_indicator"]
    rows = part["skipped_blocks_dependencies"].values()
    opened = {
        part["skipped_blocks"][index]["end_node_name"] for row in rows for index in row[max(len(row) - most, 0) :]
    }
    own = supernet.config.depth.skipped_blocks or ()
    ends = {last for (_, last), (_, old) in zip(own, blocks, strict=True) if old in opened}
    graph = supernet.graph
    chains = {name: chain for one in supernet.elasticities for name, chain in one.blocks.items()}
    return {
        name: 1 + sum(1 for _ in takewhile(lambda block: graph.ops[block.ops[-1]].name in ends, reversed(chain)))
        for name, chain in chains.items()
    }


def _supernet(model: nn.Module, example: ExampleInput, block: dict[str, Any]) -> Supernet:
    """Makes the super-network; removes from the block what NNCF 2 could skip and this package cannot."""
    while True:
        config = BootstrapNASConfig.from_nncf({"bootstrapNAS": {"training": {"elasticity": block}}})
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message=".*has names of NNCF 2"
                )  # what is returned has those of today
                return Supernet(model, example, config.training.elasticity)
        except BlockError as error:
            before, last = block["depth"]["skipped_blocks"].pop(error.index)
            warn(
                f"The checkpoint's block from {before!r} to {last!r} always runs here, so that numbers of the blocks "
                f"after it are one less: {error.reason}"
            )


def _with_own_names(block: dict[str, Any], supernet: Supernet) -> dict[str, Any]:
    """Returns the block with names of today, and without keys that say nothing."""
    config = supernet.config
    names: dict[str, dict[str, Any]] = {
        "width": {"overwrite_groups": config.width.overwrite_groups},
        "kernel": {"target_scopes": config.kernel.target_scopes},
        "depth": {"skipped_blocks": config.depth.skipped_blocks},
    }
    parts = {dim: {**block[dim], **names[dim]} for dim in block["available_elasticity_dims"]}
    given = {dim: {key: value for key, value in part.items() if value is not None} for dim, part in parts.items()}
    return {"available_elasticity_dims": list(given), **given}
