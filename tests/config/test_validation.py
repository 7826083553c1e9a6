"""Every mistake in a config gives its JSON path, the rule, the value and what to do; none escapes as a crash."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrapnas_ext.config import BootstrapNASConfig, rules
from bootstrapnas_ext.config.keys import InputInfo
from bootstrapnas_ext.config.validation import format_path, read_config
from bootstrapnas_ext.errors import ConfigError
from bootstrapnas_ext.registry import Registry

ELASTICITY = "training.elasticity"
STAGES = "training.schedule.list_stage_descriptions"


def config_with(path: str, value: object) -> dict[str, Any]:
    """A config with one value, at a dotted path below `bootstrapNAS`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return {"input_info": {"sample_size": [1, 3, 32, 32]}, "bootstrapNAS": value}


def errors_of(config: object) -> list[str]:
    with pytest.raises(ConfigError, match=r"\$") as caught:
        read_config(config)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        # wrong types
        ("training.strategy", 3, r"training.strategy: must be a string, but got 3"),
        ("search.seed", True, r"search.seed: must be an integer >= 0, but got true"),
        ("search.seed", 1.5, r"search.seed: must be an integer >= 0, but got 1.5"),
        ("search.seed", None, r"search.seed: must be an integer >= 0, but got null"),
        ("search.crossover_prob", float("nan"), r"search.crossover_prob: must be a number >= 0 and <= 1, but got NaN"),
        ("search", [], r"search: must be an object, but got []"),
        (STAGES, [7], rf"{STAGES}[0]: must be an object, but got 7"),
        (STAGES, [{"bn_adapt": 1}], rf"{STAGES}[0].bn_adapt: must be a boolean, but got 1"),
        # impossible values
        (STAGES, [{}, {"epochs": 0}], rf"{STAGES}[1].epochs: must be an integer >= 1, but got 0"),
        (STAGES, [], rf"{STAGES}: must have at least 1 items, but got []"),
        ("search.mutation_prob", 1.1, r"search.mutation_prob: must be a number >= 0 and <= 1, but got 1.1"),
        ("training.distillation.temperature", 0, r"temperature: must be a number > 0, but got 0"),
        (
            "training.elasticity.width.max_num_widths",
            -1,
            r"max_num_widths: must be an integer >= 1, but got -1 (How many",
        ),
        (
            "training.elasticity.depth.skipped_blocks",
            [["a"]],
            r"skipped_blocks[0]: must have at least 2 items, but got",
        ),
        ("search.objectives", ["accuracy"], r"search.objectives: must have at least 2 items"),
        (f"{ELASTICITY}.ignored_scopes", 3, "ignored_scopes: must be a string or array of string, but got 3"),
        (f"{ELASTICITY}.ignored_scopes", ["a", 3], "ignored_scopes[1]: must be a string, but got 3"),
        (f"{ELASTICITY}.width.target_scopes", [], "target_scopes: must have at least 1 items, but got []"),
        (
            f"{ELASTICITY}.depth.ignored_scopes",
            ["a", "{re}layer(1"],
            "ignored_scopes[1]: must be a regular expression after '{re}', but got '{re}layer(1': missing ), unterm",
        ),
        (f"{ELASTICITY}.target_scopes", "{re}*", "target_scopes: must be a regular expression after '{re}'"),
        (
            f"{ELASTICITY}.target_scopes",
            "{glob}*",
            "must be a name, or begin with '{re}' or '{type}', but got '{glob}*",
        ),
        (f"{ELASTICITY}.kernel.ignored_scopes", [""], "ignored_scopes[0]: must name layers, but got ''"),
        (f"{ELASTICITY}.kernel.ignored_scopes", "{type}", "ignored_scopes: must name layers, but got '{type}'"),
        (f"{ELASTICITY}.width.overwrite_groups", [["a"], []], "groups[1]: must have at least 1 items, but got []"),
        (f"{ELASTICITY}.width.overwrite_groups", [["a", "{re}("]], "groups[0][1]: must be a regular expression"),
        (f"{ELASTICITY}.width.overrides", {"a": 3}, "overrides.a: must be an object, but got 3"),
        (
            f"{ELASTICITY}.width.overrides",
            {"a.0": {"widths": [0]}},
            "overrides['a.0'].widths[0]: must be an integer >=",
        ),
        (f"{ELASTICITY}.width.overrides", {"{re}(": {}}, "overrides['{re}(']: must be a regular expression"),
        (
            f"{ELASTICITY}.kernel.overrides",
            {"a": {"kernel_size": [3]}},
            "overrides.a.kernel_size: unknown key, with the value [3]; did you mean 'kernel_sizes'?",
        ),
        ("search.objectives", ["macs", "macs"], r"search.objectives: must not repeat an item"),
        # values and keys that are nearly right
        ("search.latency.performance_hint", "latensy", "but got \"latensy\"; did you mean 'latency'?"),
        (
            "training.elasticity.available_elasticity_dims",
            ["widht"],
            "dims[0]: must be a registered elastic dimension (import one of your own",
        ),
        ("training.progressivity_of_elasticity", ["depht"], "elasticity[0]: must be a registered elastic dimension"),
        (
            "training.strategy",
            "progresive_shrinking",
            "strategy (import one of your own before the config is read), but",
        ),
        (
            "training.strategy",
            "burger",
            "but got 'burger'; known: attentive, fair, ",
        ),
        (f"{STAGES}", [{"strategy": "sandwhich"}], "descriptions[0].strategy: must be a registered training strategy"),
        ("training.attentive.num_candidates", 1, "num_candidates: must be an integer >= 2, but got 1"),
        ("training.optimization.ema_decay", 1, "ema_decay: must be a number > 0 and < 1, but got 1"),
        ("training.optimization.gradient_clipping", 0, "gradient_clipping: must be a number > 0, but got 0"),
        ("training.optimization.gradient_accumulation", 0, "accumulation: must be an integer >= 1, but got 0"),
        ("training.optimization.label_smoothing", 2, "label_smoothing: must be a number >= 0 and <= 1, but got 2"),
        ("training.distillation.loss", "cosine", 'must be one of "kl", "mse", "alpha_divergence", but got "cosine"'),
        ("search.algorithm", "NSGA", "must be a registered search algorithm"),
        ("search.algorithm", "nsga2", "but got 'nsga2'; did you mean 'NSGA2'?"),
        ("search.objectives", ["accuracy", "mac"], "objectives[1]: must be a registered objective"),
        ("search.populatoin", 9, "search.populatoin: unknown key, with the value 9; did you mean 'population'?"),
        ("training.epochs", 9, f"it belongs in $.bootstrapNAS.{STAGES}[]"),
        ("search.xyz", {}, "search.xyz: unknown key, with the value {}; known: algorithm, num_evals"),
    ],
)
def test_what_the_schema_refuses(path: str, value: object, line: str) -> None:
    (error,) = errors_of(config_with(path, value))
    assert error.startswith(f"$.bootstrapNAS.{path}")
    assert line in error


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ({"width": {"width_multipliers": [0.5]}}, "width.width_multipliers: must contain 1"),
        (
            {"width": {"filter_importance": "external"}},
            "filter_importance: 'external' needs `external_importance_path`",
        ),
        (
            {"width": {"external_importance_path": "i.pt"}},
            "external_importance_path: is used with the filter importance 'external' only",
        ),
        (
            {"width": {"overwrite_groups": [["a"]], "overwrite_groups_widths": [[8], [4]]}},
            "overwrite_groups_widths: must have one list of widths for each of `overwrite_groups`, but got 2 for 1",
        ),
        ({"width": {"overwrite_groups_widths": [[8]]}}, "overwrite_groups_widths: must have one list"),
        (
            {"width": {"overrides": {"a": {"width_multipliers": [0.5]}}}},
            "overrides.a.width_multipliers: must contain 1",
        ),
        (
            {"width": {"overrides": {"a": {"widths": [8], "divisor": 4, "min_width": 2}}}},
            "overrides.a.widths: says all; it must not be given together with ['min_width', 'divisor']; remove one",
        ),
        (
            {"kernel": {"overrides": {"a": {"kernel_sizes": [3], "min_kernel_size": 3}}}},
            "overrides.a.kernel_sizes: says all; it must not be given together with ['min_kernel_size']",
        ),
        ({"depth": {"mode": "manual"}}, "depth.mode: 'manual' needs `skipped_blocks`"),
        ({"depth": {"min_block_size": 9, "max_block_size": 5}}, "but got (min_block_size=9, max_block_size=5)"),
        (
            {"depth": {"skipped_blocks": [["a", "b"], ["c", "c"]]}},
            "skipped_blocks[1]: must be two different operations",
        ),
    ],
)
def test_rules_of_elasticity(block: dict[str, Any], line: str) -> None:
    (error,) = errors_of(config_with("training.elasticity", block))
    assert line in error


@pytest.mark.parametrize(
    ("training", "line"),
    [
        (
            {"elasticity": {"available_elasticity_dims": ["width"]}, "stages": [{"train_dims": ["depth"]}]},
            "[0].train_dims: must be among the available elastic dimensions ['width'], but got ['depth']; add",
        ),
        (
            {"progressivity_of_elasticity": ["depth", "width"]},
            "progressivity_of_elasticity: must contain every available elastic dimension",
        ),
        (
            {"stages": [{"train_dims": ["kernel"]}, {"train_dims": ["depth"]}]},
            "must keep the dimensions of the stage before, ['kernel'], but got ['depth']; add ['kernel']",
        ),
        (
            {"stages": [{"train_dims": ["kernel", "width"]}]},
            "without a gap, but got ['kernel', 'width']; add ['depth']",
        ),
        (
            {"stages": [{}, {"epochs": 3, "epochs_lr": 2}]},
            "descriptions[1].epochs_lr: `epochs <= epochs_lr` must hold, else the learning rate is zero",
        ),
        (
            {"stages": [{"init_lr": 0.1}], "lr_schedule": {"params": {}}},
            "[0].init_lr: must not be given together with `lr_schedule`",
        ),
        (
            {"stages": [{"epochs": 2, "warmup_epochs": 1}], "lr_schedule": {"params": {}}},
            "[0].warmup_epochs: must not be given together with `lr_schedule`",
        ),
        (
            {"stages": [{"epochs": 2, "warmup_epochs": 2}]},
            "[0].warmup_epochs: `warmup_epochs < epochs_lr` must hold, but got (warmup_epochs=2, epochs_lr=2)",
        ),
        (
            {"distillation": {"loss": "mse", "temperature": 2}},
            'distillation.temperature: has no effect with `loss` "mse", but got 2.0; remove one',
        ),
        (
            {"distillation": {"source": "none", "features": ["layer1"]}},
            "or \"maximum\", but got ['layer1'] and 'none'; give one, or remove them",
        ),
        (
            {"distillation": {"features": ["layer1"]}},
            'distillation.features: need a `source` that is "input_model" or "maximum", but got [\'layer1\'] and none',
        ),
        (
            {"distillation": {"source": "input_model", "features": ["a"]}, "stages": [{"reorg_weights": True}]},
            "distillation.features: cannot be compared with the input model's where `reorg_weights`",
        ),
        (
            {"lr_schedule": {"params": {"num_epochs": 3, "warmup_epochs": 3}}},
            "`warmup_epochs < num_epochs` must hold, but got (warmup_epochs=3, num_epochs=3)",
        ),
    ],
)
def test_rules_of_training(training: dict[str, Any], line: str) -> None:
    block = dict(training)
    if "stages" in block:
        block["schedule"] = {"list_stage_descriptions": block.pop("stages")}
    (error,) = errors_of(config_with("training", block))
    assert line in error


@pytest.mark.parametrize(
    ("search", "line"),
    [
        ({"population": 9, "num_evals": 8}, "`population <= num_evals` must hold, but got (population=9, num_evals=8)"),
        ({"constraints": {"mac": {"max": 1}}}, "constraints.mac: must be a registered measure"),
        (
            {"ref_acc": 90, "objectives": ["macs", "parameters"]},
            "search.ref_acc: is for searches that measure accuracy",
        ),
        ({"constraints": {"macs": {}}}, "constraints.macs: must give at least one of"),
        (
            {"constraints": {"macs": {"min": 3, "max": 2}}},
            "macs.min: `min <= max` must hold, but got (min=3.0, max=2.0)",
        ),
        ({"constraints": {"macs": {"min_ratio": 2, "max_ratio": 1}}}, "`min_ratio <= max_ratio` must hold"),
    ],
)
def test_rules_of_search(search: dict[str, Any], line: str) -> None:
    (error,) = errors_of(config_with("search", search))
    assert line in error


@pytest.mark.parametrize(
    "search",
    [
        {"population": 9, "num_evals": 8, "algorithm": "random"},
        {"ref_acc": 90, "objectives": ["macs", "parameters"], "constraints": {"accuracy": {"min": 50}}},
    ],
)
def test_rules_of_search_allow(search: dict[str, Any]) -> None:
    BootstrapNASConfig.from_nncf(config_with("search", search))


def test_the_length_of_a_rate_that_no_stage_has_is_not_judged() -> None:
    block = {"schedule": {"list_stage_descriptions": [{"epochs": 3, "epochs_lr": 2}]}, "lr_schedule": {"params": {}}}
    BootstrapNASConfig.from_nncf(config_with("training", block))


def test_inputs_have_different_keywords() -> None:
    inputs = [{"sample_size": [1], "keyword": "ids"}, {"sample_size": [1]}, {"sample_size": [1]}]
    read_config({"input_info": inputs})
    (error,) = errors_of({"input_info": [*inputs, {"sample_size": [2], "keyword": "ids"}]})
    assert error.startswith("$.input_info[3].keyword: must be another one than")


def test_a_registered_name_may_be_used_and_a_measure_alone_be_constrained() -> None:
    block = {"algorithm": "mine", "constraints": {"energy": {"max": 2}, "latency_ms": {"max": 3}}}
    assert len(errors_of(config_with("search", block))) == 2
    try:
        Registry[int]("measure", rules.MEASURES).register("energy")(1)
        Registry[int]("search algorithm", rules.SEARCH_ALGORITHMS).register("mine")(1)
        typed = BootstrapNASConfig.from_nncf(config_with("search", block))
    finally:
        rules.MEASURES.discard("energy")
        rules.SEARCH_ALGORITHMS.discard("mine")
    assert typed.search.constraints["energy"].max == 2.0


@pytest.mark.parametrize(("key", "near"), [("boostrapNAS", "bootstrapNAS"), ("Input_Info", "input_info")])
def test_a_misspelt_block_is_not_taken_for_a_key_of_the_user(key: str, near: str) -> None:
    assert errors_of({key: {}}) == [f"$.{key}: unknown key; did you mean {near!r}?"]


def test_keys_of_the_user_are_left_alone() -> None:
    read_config({"model": "m", "optimizer": {"type": 3}, "inputs": 1, "bootstrapNAS": {}, "bootstrapNAS2": {}})


def test_all_violations_are_reported_and_causes_come_first() -> None:
    config = {
        "bootstrapNAS": {
            "search": {"population": 9, "num_evals": 8, "latency": {"warmup": -1}},
            "training": {"elasticity": {"depth": {"mode": "manual"}, "kernal": {}}},
        },
        "input_info": [{"sample_size": [1, 0]}, {}],
    }
    assert [line.split(":")[0] for line in errors_of(config)] == [
        "$.bootstrapNAS.training.elasticity.kernal",
        "$.input_info[0].sample_size[1]",
        "$.input_info[1]",
        "$.bootstrapNAS.search.latency.warmup",
        "$.bootstrapNAS.training.elasticity.depth.mode",
    ]


def test_rules_do_not_judge_defaults_in_place_of_wrong_values() -> None:
    assert len(errors_of(config_with("search", {"population": 5000, "num_evals": "many"}))) == 1


def test_long_values_are_cut() -> None:
    (error,) = errors_of(config_with("search.seed", "x" * 500))
    assert len(error) < 200


@pytest.mark.parametrize("config", [[], None, 3, "text"])
def test_a_config_is_an_object(config: object) -> None:
    (error,) = errors_of(config)
    assert error.startswith("$: must be an object, but got")


def test_format_path() -> None:
    assert format_path(("a", 1, "b c", "d")) == "$.a[1]['b c'].d"


@pytest.mark.parametrize("several", [False, True])
def test_one_input_or_a_list(several: bool) -> None:
    info = {"sample_size": (1, 3, 32, 32), "type": "long"}
    config = {"input_info": [info, {**info, "keyword": "mask"}] if several else info, "bootstrapNAS": {}}
    expected = [InputInfo((1, 3, 32, 32), "long"), InputInfo((1, 3, 32, 32), "long", keyword="mask")]
    assert list(BootstrapNASConfig.from_nncf(config).input_info) == expected[: 1 + several]


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, item in items for inner in _paths(item, (*path, key)))]


def _full_config() -> dict[str, Any]:
    typed = BootstrapNASConfig.from_nncf(
        {
            "input_info": {"sample_size": [1, 3, 8, 8]},
            "bootstrapNAS": {
                "training": {
                    "schedule": {"list_stage_descriptions": [{}, {}]},
                    "lr_schedule": {},
                    "elasticity": {"width": {"width_multipliers": [1]}, "depth": {"skipped_blocks": [["a", "b"]]}},
                },
                "search": {"constraints": {"macs": {"max": 1}}},
            },
        }
    )
    block = {"training": dataclasses.asdict(typed.training), "search": dataclasses.asdict(typed.search)}
    full = {"input_info": [dataclasses.asdict(info) for info in typed.input_info], "bootstrapNAS": block}
    return dict(json.loads(json.dumps(full)))


FULL = _full_config()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 200)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["macs", "width"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("min"), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(_paths(FULL)[1:]), JSON)
def test_any_value_anywhere_is_read_or_refused(path: tuple[str | int, ...], value: Any) -> None:
    config = copy.deepcopy(FULL)
    parent: Any = config
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    try:
        read_config(config)
    except ConfigError as error:
        assert re.match(r"\$", str(error))  # noqa: PT017 - not every value is refused
