"""What NNCF 2 stored of a super-network beside its weights, after a check of its form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from bootstrapnas_ext.config.validation import format_path
from bootstrapnas_ext.errors import CheckpointError

Form = dict[str, Any]

_LONGEST_REASON = 200


def _object(**entries: Form) -> Form:
    return {"type": "object", "properties": entries, "required": [*entries]}


def _some(**entries: Form) -> Form:
    return {"type": "object", "properties": entries}


def _array(items: Form) -> Form:
    return {"type": "array", "items": items}


def _or_none(form: Form) -> Form:
    return {"anyOf": [form, {"type": "null"}]}


_NAME, _COUNT, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_NAMES = {**_array(_NAME), "minItems": 1}

_WIDTH = _object(
    grouped_node_names_to_prune=_array(_NAMES),
    elasticity_params=_object(
        min_width=_COUNT,
        max_num_widths=_COUNT,
        width_step=_COUNT,
        width_multipliers=_or_none(_array(_NUMBER)),
        filter_importance=_NAME,
        external_importance_path=_or_none(_NAME),
        overwrite_groups_widths=_or_none(_array(_array(_COUNT))),
    ),
)
_KERNEL = _object(node_names_to_make_elastic=_array(_NAME), elasticity_params=_object(max_num_kernels=_COUNT))
_DEPTH = _object(
    skipped_blocks=_array(_object(start_node_name=_NAME, end_node_name=_NAME)),
    skipped_blocks_dependencies={"type": "object", "additionalProperties": _array(_COUNT)},
)
_BUILDER = _object(elasticity=_object(builder_states=_some(width=_WIDTH, kernel=_KERNEL, depth=_DEPTH)))
_HANDLERS = _object(
    multi_elasticity_handler_state=_object(
        is_handler_enabled_map=_some(),
        states_of_handlers=_some(
            width=_object(width_num_params_indicator=_COUNT), depth=_object(depth_indicator=_COUNT)
        ),
    )
)
_ELASTICITY = _object(builder_state=_BUILDER, ctrl_state=_HANDLERS)
_TRAINING = _object(
    builder_state=_object(progressive_shrinking=_object(elasticity_builder_state=_BUILDER)),
    ctrl_state=_object(elasticity_controller_compression_state=_HANDLERS),
)


class Stored(NamedTuple):
    """
    What NNCF 2 stored of a super-network.

    :param parts: What each dimension was built from, by its name.
    :param enabled: Names of the dimensions that the last stage of training changed.
    :param handlers: What that stage opened of each dimension, by its name.
    """

    parts: Mapping[str, Any]
    enabled: tuple[str, ...]
    handlers: Mapping[str, Any]


def read_state(state: Mapping[str, Any]) -> Stored:
    """
    Returns what a state holds.

    :param state: The content of ``last_elasticity.pth``, or ``training_algo_state`` of ``supernet_last.pth``.
    :raises CheckpointError: If it is none of NNCF 2's, or not whole.
    """
    is_training = "progressive_shrinking" in state.get("builder_state", ())
    for error in Draft202012Validator(_TRAINING if is_training else _ELASTICITY).iter_errors(state):
        reason = error.message if len(error.message) <= _LONGEST_REASON else f"{error.message[:_LONGEST_REASON]}..."
        raise CheckpointError(_no_state(f"{format_path(tuple(error.absolute_path))}: {reason}"))
    builder, controller = state["builder_state"], state["ctrl_state"]
    if is_training:
        builder = builder["progressive_shrinking"]["elasticity_builder_state"]
        controller = controller["elasticity_controller_compression_state"]
    handlers = controller["multi_elasticity_handler_state"]
    enabled = tuple(dim for dim, is_enabled in handlers["is_handler_enabled_map"].items() if is_enabled)
    stored = Stored(builder["elasticity"]["builder_states"], enabled, handlers["states_of_handlers"])
    for complaint in _disagreements(stored):
        raise CheckpointError(_no_state(complaint))
    return stored


def _no_state(reason: str) -> str:
    return (
        "The elasticity must be the `last_elasticity.pth` of a super-network of NNCF 2, or its whole "
        f"`supernet_last.pth`, but {reason}; give that file"
    )


def _disagreements(stored: Stored) -> Iterator[str]:
    """Yields what does not belong together, though each has its form."""
    for dim in sorted(stored.parts.keys() - stored.handlers.keys()):
        yield f"there is no state of the dimension {dim!r}"
    if "width" in stored.parts:
        groups = len(stored.parts["width"]["grouped_node_names_to_prune"])
        given = stored.parts["width"]["elasticity_params"]["overwrite_groups_widths"]
        if given is not None and len(given) != groups:
            yield f"there are {groups} groups of layers, but widths of {len(given)}"
    if "depth" in stored.parts:
        blocks = len(stored.parts["depth"]["skipped_blocks"])
        rows = stored.parts["depth"]["skipped_blocks_dependencies"].values()
        if not all(0 <= index < blocks for row in rows for index in row):
            yield f"there are {blocks} blocks, but a row of others"
