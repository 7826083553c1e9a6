"""Configs that ran on NNCF 2 load, each old word with one warning that says what to write."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest

from bootstrapnas_ext.config import BootstrapNASConfig, LRScheduleConfig, NNCFConfig, input_infos
from bootstrapnas_ext.config.nncf2 import translate
from bootstrapnas_ext.config.validation import format_path, read_config
from bootstrapnas_ext.errors import ConfigError


def config_of(path: str, value: Any) -> dict[str, Any]:
    """A config with one value, at a dotted path below its block; a number is an index of a list of one."""
    for key in reversed(path.split(".")):
        value = [value] if key == "0" else {key: value}
    return {"bootstrapNAS": value}


STAGES = "training.schedule.list_stage_descriptions"

CASES: list[tuple[str, Any, str, Any, str]] = [
    # old path, old value, new path, new value, what the warning says
    ("training.elasticity.width.min_out_channels", 8, "min_width", 8, "is the older name of `min_width`; rename it"),
    ("training.elasticity.width.max_num_params", 3, "max_num_widths", 3, "older name of `max_num_widths`; rename it"),
    ("training.elasticity.width.max_num_widths", -1, "", None, "was -1 for no limit, which is said by leaving"),
    ("training.elasticity.width.add_dynamic_inputs", ["a"], "", None, "has no meaning here and is left out: what"),
    ("training.elasticity.width.max_num_widths", 0, "", None, "was 0 for no limit, which is said by leaving"),
    ("training.elasticity.width.min_width", 0, "min_width", 1, "must be at least 1, but got 0, which is taken for 1"),
    ("training.elasticity.width.width_multipliers", [], "", None, "is empty, for none, which is said by leaving it"),
    ("training.elasticity.width.width_multipliers", [0.5], "width_multipliers", [1, 0.5], "contain 1, .* write"),
    ("training.elasticity.width.width_multipliers", [1, 1], "width_multipliers", [1], "nothing twice"),
    ("training.elasticity.kernel.max_num_params", 2, "max_num_kernels", 2, "older name of `max_num_kernels`"),
    ("training.elasticity.kernel.max_num_kernels", -1, "", None, "was -1 for no limit"),
    ("training.elasticity.kernel.max_num_kernels", 0, "", None, "was 0 for no limit"),
    ("training.elasticity.depth.min_block_size", 0, "min_block_size", 1, "at least 1, but got 0, which is taken for 1"),
    ("training.elasticity.depth.mode", "manual", "", None, '"manual" needs `skipped_blocks`; without, blocks are'),
    ("training.elasticity.depth.hw_fused_ops", True, "", None, "has no meaning here and is left out"),
    ("training.elasticity.depth.skip_dependencies", {}, "", None, "blocks that follow one another are found"),
    ("training.batchnorm_adaptation.num_bn_forget_samples", 1, "", None, "every subnet are computed anew"),
    ("training.sandwich_rule", True, "strategy", "sandwich", '`strategy`; write "strategy": "sandwich"'),
    ("training.sandwich_rule", False, "", None, "older name of a `strategy`; remove it"),
    ("search.population", 1, "population", 2, "must be at least 2, but got 1, which is taken for 2"),
    ("training.train_steps", 10, "", None, "give the number of steps to the loop; remove it"),
    (
        "training.compression",
        {"algorithm": "knowledge_distillation", "type": "softmax", "scale": 2, "temperature": 3},
        "distillation",
        {"source": "input_model", "loss": "kl", "weight": 2, "temperature": 3},
        "is `distillation` now; write {'source': 'input_model'",
    ),
    (
        "training.compression",
        [{"algorithm": "knowledge_distillation", "type": "mse", "temperature": 3}],
        "distillation",
        {"source": "input_model", "loss": "mse"},
        "is `distillation` now",
    ),
    (
        "training.compression",
        {"algorithm": "knowledge_distillation"},
        "distillation",
        {"source": "input_model", "loss": "mse"},
        "is `distillation` now",
    ),
    ("training.compression", {}, "", None, "is empty, for no distillation; remove it"),
    (f"{STAGES}.0.sandwich_rule", True, "strategy", "sandwich", '`strategy`; write "strategy": "sandwich"'),
    (f"{STAGES}.0.sample_rate", 0, "", None, "must be at least 1, but got 0, which is taken for 1"),
    (f"{STAGES}.0.depth_indicator", 0, "depth_indicator", 1, "was 0 to keep what the stage before has; write 1"),
    (f"{STAGES}.0.width_indicator", 0, "", None, "was 0 to keep what the stage before has; leave it out"),
    (f"{STAGES}.0.width_indicator", -1, "", None, "was -1 for all widths"),
    ("search.algorithm", "RNSGA2", "algorithm", "NSGA2", '"RNSGA2" is run as "NSGA2"'),
    ("search.ref_acc", -1, "", None, "was -1 for the accuracy of the input model"),
    ("search.num_constraints", 0, "", None, "`constraints` names each limit; remove it"),
    ("search.compression", [], "", None, "NNCF 2 did not read it either"),
    ("search.aspiration_points", [[0, 0]], "", None, "the search finds the whole Pareto front"),
    ("search.epsilon", 0.1, "", None, "the search finds the whole Pareto front"),
    ("search.weights", [1], "", None, "the search finds the whole Pareto front"),
    ("search.extreme_points_as_ref_points", True, "", None, "the search finds the whole Pareto front"),
]


@pytest.mark.parametrize(("path", "value", "new", "expected", "message"), CASES)
def test_an_old_word_is_read_with_one_warning(path: str, value: Any, new: str, expected: Any, message: str) -> None:
    old = config_of(path, value)
    before = copy.deepcopy(old)
    where = format_path(("bootstrapNAS", *(int(key) if key == "0" else key for key in path.split("."))))
    with pytest.warns(UserWarning, match=message) as caught:
        config = NNCFConfig.from_dict(old)
    assert [str(one.message).split(": ")[0] for one in caught] == [where]
    assert caught[0].filename == __file__
    outer = path.rpartition(".")[0]
    assert config == config_of(f"{outer}.{new}" if new else outer, expected if new else {})
    assert old == before
    BootstrapNASConfig.from_nncf(config)  # no more warnings


def test_without_old_words_nothing_changes() -> None:
    config = {"bootstrapNAS": {"search": {"ref_acc": 90.0}, "training": {"sandwich": {"num_random": 1}}}, "my": [1]}
    assert translate(config) == (config, ())
    assert translate([1]) == ([1], ())
    assert translate({"bootstrapNAS": 3}) == ({"bootstrapNAS": 3}, ())


def test_the_new_name_counts_where_both_are_given() -> None:
    width = {"min_width": 16, "min_out_channels": 8}
    with pytest.warns(UserWarning, match=r"min_out_channels: is the older name of `min_width`, which is given too and"):
        config = NNCFConfig.from_dict(config_of("training.elasticity.width", width))
    assert config["bootstrapNAS"]["training"]["elasticity"]["width"] == {"min_width": 16}


def test_importance_from_a_file_is_meant_where_a_file_is_given() -> None:
    with pytest.warns(UserWarning, match='with `filter_importance` "external" only; write that, too'):
        config = NNCFConfig.from_dict(config_of("training.elasticity.width.external_importance_path", "i.pth"))
    assert BootstrapNASConfig.from_nncf(config).training.elasticity.width.filter_importance == "external"


def test_stages_keep_indicators_and_learn_to_their_end() -> None:
    stages = [{"depth_indicator": 2, "epochs": 4, "epochs_lr": 3}, {"depth_indicator": 0, "width_indicator": 2}]
    with pytest.warns(UserWarning, match=r"descriptions\[\d\]\.(epochs_lr|depth_indicator): ") as caught:
        config = NNCFConfig.from_dict(config_of(STAGES, stages))
    assert len(caught) == 2
    first, second = BootstrapNASConfig.from_nncf(config).training.stages
    assert (first.epochs_lr, second.depth_indicator, second.width_indicator) == (4, 2, 2)


def test_an_empty_schedule_of_all_stages_is_none_beside_the_rate_of_one() -> None:
    training = {"lr_schedule": {}, "schedule": {"list_stage_descriptions": [{"init_lr": 0.1}]}}
    with pytest.warns(
        UserWarning, match=r"lr_schedule: is empty, and stages have an `init_lr`, which counts"
    ) as caught:
        config = NNCFConfig.from_dict({"bootstrapNAS": {"training": training}})
    assert len(caught) == 1
    read = BootstrapNASConfig.from_nncf(config).training
    assert (read.lr_schedule, read.stages[0].init_lr) == (None, 0.1)
    assert (
        BootstrapNASConfig.from_nncf(config_of("training.lr_schedule", {})).training.lr_schedule == LRScheduleConfig()
    )


def test_a_stage_of_no_epochs_is_none() -> None:
    stages = [{"epochs": 0, "depth_indicator": 3}, {"train_dims": ["kernel"], "depth_indicator": 0}, {"epochs": 0}]
    with pytest.warns(UserWarning, match=r"list_stage_descriptions\[\d\]\.") as caught:
        config = NNCFConfig.from_dict(config_of(STAGES, stages))
    places = [str(one.message).partition("descriptions")[2].partition(":")[0] for one in caught]
    assert places == ["[0].epochs", "[1].depth_indicator", "[2].epochs"]
    (stage,) = BootstrapNASConfig.from_nncf(config).training.stages
    assert (stage.train_dims, stage.depth_indicator) == (("kernel",), 1)
    with (
        pytest.raises(ConfigError, match="must have at least 1 items"),
        pytest.warns(UserWarning, match="no such stage"),
    ):
        NNCFConfig.from_dict(config_of(STAGES, [{"epochs": 0}]))


def test_a_plain_dictionary_is_read_likewise() -> None:
    old = {"input_info": {"sample_size": [1, 3]}, **config_of("search.ref_acc", -1)}
    with pytest.warns(UserWarning, match=r"\$\.bootstrapNAS\.search\.ref_acc: was -1"):
        assert BootstrapNASConfig.from_nncf(old).search.ref_acc is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert input_infos(old)[0].sample_size == (1, 3)


@pytest.mark.parametrize(
    "block",
    [
        config_of("training.elasticity.width.min_out_channels", "many"),
        config_of("training.elasticity.width.width_multipliers", [0.5, "half"]),
        config_of("training.compression", {"algorithm": "quantization"}),
        config_of("training.compression", {"algorithm": "filter_pruning", "type": "mse"}),
        config_of("training.sandwich_rule", "yes"),
        config_of("training.elasticity.width.magic", 3),
        config_of(f"{STAGES}.0", "first"),
        config_of(STAGES, {}),
        config_of("search", [1]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is the older name of")
def test_what_is_wrong_stays_wrong(block: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^\$\.bootstrapNAS\.(training|search)"):
        NNCFConfig.from_dict(block)


def test_the_schema_itself_knows_no_old_words() -> None:
    with pytest.raises(ConfigError, match="unknown key, with the value 8"):
        read_config(config_of("training.elasticity.width.min_out_channels", 8))
