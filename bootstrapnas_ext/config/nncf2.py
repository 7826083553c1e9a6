"""Configs of NNCF 2: what they wrote otherwise, brought into the words of today."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from bootstrapnas_ext.config.block import BOOTSTRAP_NAS, Path
from bootstrapnas_ext.config.rules import Violation

Block = dict[str, Any]


class Translation(NamedTuple):
    """
    A config in the words of today.

    :param config: What was given, with a copy of the block that may have changed.
    :param changes: Where NNCF 2 wrote something else, and what to write now.
    """

    config: Any
    changes: tuple[Violation, ...]


_TRAINING: Path = (BOOTSTRAP_NAS, "training")
_ELASTICITY: Path = (*_TRAINING, "elasticity")
_SEARCH: Path = (BOOTSTRAP_NAS, "search")
_STAGES: Path = (*_TRAINING, "schedule", "list_stage_descriptions")

_RENAMED: dict[Path, dict[str, str]] = {
    (*_ELASTICITY, "width"): {"min_out_channels": "min_width", "max_num_params": "max_num_widths"},
    (*_ELASTICITY, "kernel"): {"max_num_params": "max_num_kernels"},
}

_LEFT_OUT_IF_NEGATIVE: dict[Path, dict[str, str]] = {
    (*_ELASTICITY, "width"): {"max_num_widths": "no limit"},
    (*_ELASTICITY, "kernel"): {"max_num_kernels": "no limit"},
    _SEARCH: {"ref_acc": "the accuracy of the input model"},
}
_LEFT_OUT_IF_ZERO: dict[Path, dict[str, str]] = {
    path: _LEFT_OUT_IF_NEGATIVE[path] for path in ((*_ELASTICITY, "width"), (*_ELASTICITY, "kernel"))
}
_ONE_IF_ZERO: dict[Path, str] = {(*_ELASTICITY, "width"): "min_width", (*_ELASTICITY, "depth"): "min_block_size"}

_FORGETTING = {"num_bn_forget_samples": "the statistics of every subnet are computed anew"}
_REFERENCE_POINTS = "the search finds the whole Pareto front; `constraints` choose from it"
_WITHOUT_MEANING: dict[Path, dict[str, str]] = {
    _TRAINING: {"train_steps": "give the number of steps to the loop"},
    (*_TRAINING, "batchnorm_adaptation"): _FORGETTING,
    (*_SEARCH, "batchnorm_adaptation"): _FORGETTING,
    (*_ELASTICITY, "width"): {"add_dynamic_inputs": "what follows a width is found from the graph"},
    (*_ELASTICITY, "depth"): {
        "hw_fused_ops": "blocks are whole parts of the graph",
        "skip_dependencies": "blocks that follow one another are found from the graph",
    },
    _SEARCH: {
        "num_constraints": "`constraints` names each limit",
        "compression": "NNCF 2 did not read it either",
        "aspiration_points": _REFERENCE_POINTS,
        "epsilon": _REFERENCE_POINTS,
        "weights": _REFERENCE_POINTS,
        "extreme_points_as_ref_points": _REFERENCE_POINTS,
    },
}

_DISTILLATION_LOSSES = {"softmax": "kl", "mse": "mse"}


def translate(config: Any) -> Translation:
    """
    Returns a config that NNCF 2 read in the words of today. What is wrong in it stays wrong.

    .. code-block:: python

        >>> old = {"bootstrapNAS": {"training": {"elasticity": {"width": {"min_out_channels": 8}}}}}
        >>> translate(old).config
        {'bootstrapNAS': {'training': {'elasticity': {'width': {'min_width': 8}}}}}

    :param config: A JSON-like dictionary.
    """
    block = _at(config, (BOOTSTRAP_NAS,))
    result = {**config, BOOTSTRAP_NAS: copy.deepcopy(block)} if block else config
    return Translation(result, tuple(_changes(result)))


def _changes(config: Any) -> Iterator[Violation]:
    """Changes a config in place, and yields what it did."""
    for where, names in _RENAMED.items():
        yield from _rename(_at(config, where), where, names)
    for where, meanings in _LEFT_OUT_IF_NEGATIVE.items():
        yield from _leave_out(_at(config, where), where, meanings, lambda number: number < 0)
    for where, meanings in _LEFT_OUT_IF_ZERO.items():
        yield from _leave_out(_at(config, where), where, meanings, lambda number: number == 0)
    for where, key in _ONE_IF_ZERO.items():
        yield from _one_if_zero(_at(config, where), where, key)
    for where, reasons in _WITHOUT_MEANING.items():
        yield from _drop(_at(config, where), where, reasons)
    yield from _multipliers(_at(config, (*_ELASTICITY, "width")))
    yield from _external_importance(_at(config, (*_ELASTICITY, "width")))
    yield from _depth_mode(_at(config, (*_ELASTICITY, "depth")))
    yield from _search_algorithm(_at(config, _SEARCH))
    yield from _population(_at(config, _SEARCH))
    yield from _distillation(_at(config, _TRAINING))
    yield from _sandwich(_at(config, _TRAINING), _TRAINING)
    yield from _stages(_at(config, _TRAINING))


def _at(config: Any, path: Path) -> Block:
    """Returns the object at a path, an empty one if there is none."""
    for key in path:
        config = config.get(key) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else {}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _rename(block: Block, where: Path, names: Mapping[str, str]) -> Iterator[Violation]:
    for old, new in names.items():
        if old not in block:
            continue
        value = block.pop(old)
        if new in block:
            yield Violation((*where, old), f"is the older name of `{new}`, which is given too and counts; remove it")
        else:
            block[new] = value
            yield Violation((*where, old), f"is the older name of `{new}`; rename it")


def _leave_out(
    block: Block, where: Path, meanings: Mapping[str, str], applies: Callable[[float], bool]
) -> Iterator[Violation]:
    for key, meaning in meanings.items():
        number = _number(block.get(key))
        if number is not None and applies(number):
            del block[key]
            yield Violation((*where, key), f"was {number:g} for {meaning}, which is said by leaving `{key}` out now")


def _one_if_zero(block: Block, where: Path, key: str) -> Iterator[Violation]:
    if _number(block.get(key)) == 0:
        block[key] = 1
        yield Violation((*where, key), "must be at least 1, but got 0, which is taken for 1")


def _drop(block: Block, where: Path, reasons: Mapping[str, str]) -> Iterator[Violation]:
    for key, reason in reasons.items():
        if key in block:
            del block[key]
            yield Violation((*where, key), f"has no meaning here and is left out: {reason}; remove it")


def _multipliers(width: Block) -> Iterator[Violation]:
    given, path = width.get("width_multipliers"), (*_ELASTICITY, "width", "width_multipliers")
    if given == []:
        del width["width_multipliers"]
        yield Violation(path, "is empty, for none, which is said by leaving it out; remove it")
    elif isinstance(given, list | tuple) and given and all(_number(one) is not None for one in given):
        wanted = sorted({*given, 1}, reverse=True)
        if len(wanted) != len(given):
            width["width_multipliers"] = wanted
            yield Violation(path, f"must contain 1, the given model's own width, and nothing twice; write {wanted}")


def _external_importance(width: Block) -> Iterator[Violation]:
    if width.get("external_importance_path") is not None and width.get("filter_importance") != "external":
        width["filter_importance"] = "external"
        path = (*_ELASTICITY, "width", "external_importance_path")
        yield Violation(path, 'counts with `filter_importance` "external" only; write that, too')


def _depth_mode(depth: Block) -> Iterator[Violation]:
    if depth.get("mode") == "manual" and depth.get("skipped_blocks") is None:
        del depth["mode"]
        path = (*_ELASTICITY, "depth", "mode")
        yield Violation(path, '"manual" needs `skipped_blocks`; without, blocks are found automatically; remove it')


def _search_algorithm(search: Block) -> Iterator[Violation]:
    if search.get("algorithm") == "RNSGA2":
        search["algorithm"] = "NSGA2"
        yield Violation((*_SEARCH, "algorithm"), '"RNSGA2" is run as "NSGA2", without reference points; write that')


def _population(search: Block) -> Iterator[Violation]:
    if search.get("population") == 1:
        search["population"] = 2
        yield Violation((*_SEARCH, "population"), "must be at least 2, but got 1, which is taken for 2")


def _distillation(training: Block) -> Iterator[Violation]:
    """Reads NNCF 2's way to say that subnets learn from the given model."""
    path = (*_TRAINING, "compression")
    given = training.get("compression")
    blocks = given if isinstance(given, list) else [given]
    if given in ({}, []):
        del training["compression"]
        yield Violation(path, "is empty, for no distillation; remove it")
    elif len(blocks) == 1 and isinstance(blocks[0], dict) and blocks[0].get("type", "mse") in _DISTILLATION_LOSSES:
        block = {"type": "mse", **blocks[0]}
        if block.get("algorithm") != "knowledge_distillation" or "distillation" in training:
            return
        new = {"source": "input_model", "loss": _DISTILLATION_LOSSES[block["type"]]}
        new |= {"weight": block["scale"]} if "scale" in block else {}
        new |= {"temperature": block["temperature"]} if "temperature" in block and new["loss"] == "kl" else {}
        del training["compression"]
        training["distillation"] = new
        yield Violation(path, f"is `distillation` now; write {new}")


def _sandwich(block: Block, where: Path) -> Iterator[Violation]:
    if isinstance(block.get("sandwich_rule"), bool):
        wanted = block.pop("sandwich_rule")
        if wanted:
            block["strategy"] = "sandwich"
        hint = 'write "strategy": "sandwich"' if wanted else "remove it"
        yield Violation((*where, "sandwich_rule"), f"is the older name of a `strategy`; {hint}")


def _lr_schedule(training: Block, stages: list[Any]) -> Iterator[Violation]:
    """Reads an empty schedule of all stages, beside the rate of one of them, as NNCF 2 did: as none."""
    if training.get("lr_schedule") == {} and any(isinstance(one, dict) and "init_lr" in one for one in stages):
        del training["lr_schedule"]
        yield Violation((*_TRAINING, "lr_schedule"), "is empty, and stages have an `init_lr`, which counts; remove it")


def _stages(training: Block) -> Iterator[Violation]:
    schedule = _at(training, ("schedule",))
    given = schedule.get("list_stage_descriptions")
    stages: list[Any] = given if isinstance(given, list) else []
    yield from _lr_schedule(training, stages)
    before: dict[str, Any] = {"depth_indicator": 1}
    for index, stage in enumerate(stages):
        if not isinstance(stage, dict):
            continue
        where = (*_STAGES, index)
        if _has_no_epochs(stage):
            yield Violation((*where, "epochs"), "was 0 for no such stage; remove it")
            continue
        yield from _sandwich(stage, where)
        yield from _indicators(stage, where, before)
        before |= {key: stage[key] for key in ("depth_indicator", "width_indicator") if key in stage}
        rate = _number(stage.get("sample_rate"))
        if rate is not None and rate <= 0:
            del stage["sample_rate"]
            yield Violation((*where, "sample_rate"), f"must be at least 1, but got {rate:g}, which is taken for 1")
        length, epochs = _number(stage.get("epochs_lr")), _number(stage.get("epochs", 1))
        if training.get("lr_schedule") is None and length is not None and epochs is not None and 0 < length < epochs:
            stage["epochs_lr"] = stage["epochs"]
            yield Violation(
                (*where, "epochs_lr"),
                f"must be at least `epochs`, else the learning rate is zero before the stage ends, but got {length:g}, "
                f"which is taken for {epochs:g}",
            )
    if stages:
        schedule["list_stage_descriptions"] = [one for one in stages if not _has_no_epochs(one)]


def _has_no_epochs(stage: Any) -> bool:
    return isinstance(stage, dict) and _number(stage.get("epochs")) == 0


def _indicators(stage: Block, where: Path, before: Mapping[str, Any]) -> Iterator[Violation]:
    """Zero kept what the stage before had; a width indicator of -1 opened all widths."""
    for key in ("depth_indicator", "width_indicator"):
        if _number(stage.get(key)) == 0:
            if key in before:
                stage[key] = before[key]
            else:
                del stage[key]
            kept = f"write {before[key]}" if key in before else "leave it out"
            yield Violation((*where, key), f"was 0 to keep what the stage before has; {kept}")
    if _number(stage.get("width_indicator")) == -1:
        del stage["width_indicator"]
        yield Violation((*where, "width_indicator"), "was -1 for all widths, which is said by leaving it out now")
