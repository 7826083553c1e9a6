"""Reading configs from files and dictionaries, the typed view, and the live objects that travel with a config."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from bootstrapnas_ext.config import (
    BNAdaptationInitArgs,
    BootstrapNASConfig,
    ModelEvaluationArgs,
    NNCFConfig,
    NNCFExtraConfigStruct,
    StageConfig,
    register_default_init_args,
)
from bootstrapnas_ext.errors import ConfigError

# The shape of the configs that were published for NNCF 2.x.
PUBLISHED = {
    "model": "resnet50_cifar10",
    "input_info": {"sample_size": [1, 3, 32, 32]},
    "optimizer": {"type": "sgd", "base_lr": 2.5e-4},
    "bootstrapNAS": {
        "training": {
            "algorithm": "progressive_shrinking",
            "progressivity_of_elasticity": ["depth", "width"],
            "batchnorm_adaptation": {"num_bn_adaptation_samples": 1500},
            "schedule": {
                "list_stage_descriptions": [
                    {"train_dims": ["depth"], "epochs": 25, "depth_indicator": 1, "init_lr": 2.5e-6, "epochs_lr": 30},
                    {"train_dims": ["depth", "width"], "epochs": 50, "width_indicator": 3, "reorg_weights": True},
                ]
            },
            "elasticity": {
                "available_elasticity_dims": ["width", "depth"],
                "width": {"max_num_widths": 3, "min_width": 32, "width_step": 32, "width_multipliers": [1, 0.8]},
                "depth": {"mode": "manual", "skipped_blocks": [["relu__1", "relu__2"]]},
            },
        },
        "search": {"algorithm": "NSGA2", "num_evals": 3000, "population": 50, "ref_acc": 93.65},
    },
}


def test_from_json_equals_from_dict(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PUBLISHED), encoding="utf-8")
    assert NNCFConfig.from_json(path) == NNCFConfig.from_dict(PUBLISHED) == PUBLISHED


def test_from_dict_copies() -> None:
    given = {"bootstrapNAS": {"search": {"seed": 1}}}
    config = NNCFConfig.from_dict(given)
    config["bootstrapNAS"]["search"]["seed"] = 2
    assert given["bootstrapNAS"]["search"]["seed"] == 1


def test_typed_view_of_a_published_config() -> None:
    typed = BootstrapNASConfig.from_nncf(NNCFConfig.from_dict(PUBLISHED))
    width = typed.training.elasticity.width
    assert (width.min_width, width.width_step, width.width_multipliers, width.max_num_widths) == (32, 32, (1.0, 0.8), 3)
    assert typed.training.elasticity.depth.skipped_blocks == (("relu__1", "relu__2"),)
    assert typed.training.stages == (
        StageConfig(("depth",), 25, depth_indicator=1, init_lr=2.5e-6, epochs_lr=30),
        StageConfig(("depth", "width"), 50, width_indicator=3, reorg_weights=True, epochs_lr=50),
    )
    assert typed.search.ref_acc == 93.65
    assert typed.input_info[0].sample_size == (1, 3, 32, 32)


def test_stages_by_default_add_one_dimension_after_the_other() -> None:
    block = {"training": {"elasticity": {"available_elasticity_dims": ["width", "kernel"]}}}
    stages = BootstrapNASConfig.from_nncf({"bootstrapNAS": block}).training.stages
    assert [stage.train_dims for stage in stages] == [("kernel",), ("kernel", "width")]


def test_a_schedule_over_all_stages_leaves_no_learning_rate_to_them() -> None:
    block = {"training": {"lr_schedule": {"params": {"base_lr": 0.1}}}}
    typed = BootstrapNASConfig.from_nncf({"bootstrapNAS": block})
    assert {stage.init_lr for stage in typed.training.stages} == {None}


def test_typed_view_checks_a_config_that_was_changed() -> None:
    config = NNCFConfig.from_dict({"bootstrapNAS": {"search": {}}})
    config["bootstrapNAS"]["search"]["seed"] = "one"
    with pytest.raises(ConfigError, match=r"\$\.bootstrapNAS\.search\.seed: must be an integer"):
        BootstrapNASConfig.from_nncf(config)


def test_typed_view_needs_the_block() -> None:
    with pytest.raises(ConfigError, match="'bootstrapNAS' is missing"):
        BootstrapNASConfig.from_nncf(NNCFConfig.from_dict({"model": "m"}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n  "b" 2}', r"config\.json:2:7: not JSON: Expecting ':' delimiter"),
        (b"", r"config\.json:1:1: not JSON"),
        (b'{"a": 1, "a": 2}', r"config\.json: not JSON: the key 'a' occurs more than once"),
        (b'{"a": NaN}', r"config\.json: not JSON: NaN is not a JSON number"),
        (b'{"a": "\xff"}', r"config\.json: the config cannot be read: it is not UTF-8 text"),
        (b"[]", r"config\.json: \$: must be an object, but got \[\]"),
        (b'{"bootstrapNAS": {"serach": {}}}', r"config\.json: \$\.bootstrapNAS\.serach: .* did you mean 'search'"),
    ],
)
def test_a_bad_file_is_told_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        NNCFConfig.from_json(path)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"the config cannot be read: .*; give the path of a JSON file"):
        NNCFConfig.from_json(tmp_path / name)


def test_extra_structs() -> None:
    class Mine(NNCFExtraConfigStruct):
        pass

    config, mine = NNCFConfig.from_dict({"bootstrapNAS": {}}), Mine()
    assert not config.has_extra_struct(Mine)
    with pytest.raises(ConfigError, match="has no Mine; attach it with `register_extra_structs`"):
        config.get_extra_struct(Mine)
    config.register_extra_structs([mine])
    assert config.get_extra_struct(Mine) is mine
    assert not config.has_extra_struct(BNAdaptationInitArgs)
    with pytest.raises(ConfigError, match="has a Mine already"):
        config.register_extra_structs([Mine()])


def test_a_copy_keeps_extra_structs() -> None:
    config = register_default_init_args(NNCFConfig.from_dict({"bootstrapNAS": {}}), [1, 2])
    copied = copy.deepcopy(config)
    assert copied.get_extra_struct(BNAdaptationInitArgs).data_loader == [1, 2]


def test_default_init_args_take_inputs_from_batches() -> None:
    loader = [("inputs", "targets")]
    config = NNCFConfig.from_dict({"bootstrapNAS": {}})
    assert register_default_init_args(config, loader, device="cpu") is config
    args = config.get_extra_struct(BNAdaptationInitArgs)
    assert args.data_loader is loader
    assert args.device == "cpu"
    assert args.wrap(["inputs", "targets"]) == (("inputs",), {})
    assert args.wrap({"ids": 1}) == ((), {"ids": 1})
    assert args.wrap("inputs") == (("inputs",), {})
    assert not config.has_extra_struct(ModelEvaluationArgs)


def test_default_init_args_use_the_loaders_own_way_of_reading_batches() -> None:
    class Loader(list[object]):
        def get_inputs(self, batch: object) -> tuple[tuple[object, ...], dict[str, object]]:
            return (), {"x": batch}

    config = register_default_init_args(NNCFConfig.from_dict({"bootstrapNAS": {}}), Loader(), model_eval_fn=float)
    assert config.get_extra_struct(BNAdaptationInitArgs).wrap(3) == ((), {"x": 3})
    assert config.get_extra_struct(ModelEvaluationArgs).eval_fn("50") == 50.0
