"""
Super-networks of NNCF 2.19 become super-networks of this package that compute the same.

The checkpoint beside this file is one of ``make_nncf2_checkpoint``; where NNCF 2.19 is installed, another one is made.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from bootstrapnas_ext import NNCFConfig, create_compressed_model
from bootstrapnas_ext.compat.nncf2 import ElasticityDim, TrainedSuperNet
from bootstrapnas_ext.compat.nncf2.checkpoints import read_checkpoint
from bootstrapnas_ext.supernet import Supernet
from bootstrapnas_ext.training import load_supernet
from tests.tools.nncf2_net import CONFIG, Net
from tools.convert_checkpoint import main, with_elasticity

HERE = Path(__file__).parent
BUNDLED = HERE / "nncf2_checkpoint"
MODEL = "tests.tools.nncf2_net:Net"


def has_nncf2() -> bool:
    try:
        return importlib.util.find_spec("nncf.experimental.torch.nas.bootstrapNAS") is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(
    scope="module",
    params=[
        "bundled",
        pytest.param("made", marks=pytest.mark.skipif(not has_nncf2(), reason="NNCF 2.19 is not installed")),
    ],
)
def made_by_nncf2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of NNCF 2.19, and what its subnets compute."""
    if request.param == "bundled":
        return BUNDLED
    folder = tmp_path_factory.mktemp("nncf2")
    command = [sys.executable, "-m", "tests.tools.make_nncf2_checkpoint", str(folder), str(folder / "training")]
    environment = {**os.environ, "NNCF_TORCH_LEGACY_TRACING": "1"}
    subprocess.run(command, cwd=HERE.parents[1], env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Converts into ``out``; returns the exit code and what was printed."""

    def run_tool(source: Path, model: str = MODEL, config: Mapping[str, Any] = CONFIG) -> tuple[int, str]:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        options = ("--config", tmp_path / "config.json", "--model", model, "--num-classes", 5)
        files = ("--elasticity", source / "last_elasticity.pth", "--weights", source / "last_model_weights.pth")
        code = main([str(option) for option in (*options, *files, "--output-dir", tmp_path / "out")])
        output = capsys.readouterr()
        return code, output.out if code == 0 else output.err

    return run_tool


def subnet_of(old: Mapping[str, Any], state: Mapping[str, Any], supernet: Supernet) -> dict[str, int]:
    """What NNCF 2.19 calls a subnet, by the layers that its checkpoint names."""

    def path(name: str) -> str:
        return ".".join(re.findall(r"\[([^\]]+)\]", name))

    parts = state["builder_state"]["elasticity"]["builder_states"]
    groups, kernels = parts["width"]["grouped_node_names_to_prune"], parts["kernel"]["node_names_to_make_elastic"]
    known = {choice.name for choice in supernet.space.choices}
    sizes = {f"width:{path(name)}": old["width"][index] for index, group in enumerate(groups) for name in group}
    sizes |= {f"kernel:{path(name)}": size for name, size in zip(kernels, old["kernel"], strict=True)}
    (depth,) = (choice for choice in supernet.space.choices if choice.dimension == "depth")
    running = depth.values[0] - len(old["depth"])
    return {name: size for name, size in sizes.items() if name in known} | {depth.name: running}


def test_the_bundled_files_are_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < 100_000


def test_every_subnet_computes_the_same(
    made_by_nncf2: Path, run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, output = run(made_by_nncf2)
    assert code == 0, output
    assert "A super-network of 13,824 subnets." in output
    for name in ("config.json", "supernet.pt", "last_elasticity.pth", "last_model_weights.pth"):
        assert f"Written: {tmp_path / 'out' / name}" in output

    controller, model = create_compressed_model(Net().eval(), NNCFConfig.from_json(tmp_path / "out" / "config.json"))
    load_supernet(controller.supernet, tmp_path / "out" / "supernet.pt")
    expected = torch.load(made_by_nncf2 / "outputs.pth", weights_only=True)
    state = read_checkpoint(made_by_nncf2 / "last_elasticity.pth")
    assert len({str(subnet) for subnet in expected["subnets"]}) > 10
    for old, outputs, (flops, weights) in zip(expected["subnets"], expected["outputs"], expected["flops"], strict=True):
        subnet = subnet_of(old, state, controller.supernet)
        with controller.supernet.activate(subnet), torch.no_grad():
            torch.testing.assert_close(model(expected["images"]), outputs, atol=1e-5, rtol=1e-5)
        cost = controller.supernet.cost(subnet)
        assert (2 * cost.macs, cost.weights) == (flops, weights)


def test_scripts_with_old_names_read_what_was_written(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert run(BUNDLED)[0] == 0
    out = tmp_path / "out"
    config = NNCFConfig.from_json(out / "config.json")
    supernet = TrainedSuperNet.from_checkpoint(
        Net(), config, out / "last_elasticity.pth", out / "last_model_weights.pth"
    )
    expected = torch.load(BUNDLED / "outputs.pth", weights_only=True)
    assert supernet.get_search_space()["width"] == {0: [8, 6, 4, 2], 1: [*range(16, 0, -2)], 2: [*range(16, 0, -2)]}
    for old, outputs in zip(expected["subnets"], expected["outputs"], strict=True):  # by the numbers of NNCF 2.19
        supernet.activate_config({ElasticityDim(dim): value for dim, value in old.items()})
        assert {dim.value: value for dim, value in supernet.get_active_config().items()} == old
        with torch.no_grad():
            found = supernet.get_active_subnet().eval()(expected["images"])
        torch.testing.assert_close(found, outputs, atol=1e-5, rtol=1e-5)


def bundled_state() -> dict[str, Any]:
    """The bundled state, with plain values only, so that it can be saved again."""
    state = read_checkpoint(BUNDLED / "last_elasticity.pth")
    del state["ctrl_state"]["elasticity"]["compression_stage"]
    return state


def changed(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A folder with other states of the dimensions, of their builders and their handlers."""
    state = bundled_state()
    handlers = state["ctrl_state"]["multi_elasticity_handler_state"]
    change(state["builder_state"]["elasticity"]["builder_states"], handlers)
    shutil.copy(BUNDLED / "last_model_weights.pth", folder)
    torch.save(state, folder / "last_elasticity.pth")
    return folder


def search_space(folder: Path) -> dict[str, Any]:
    """What scripts with old names search in converted files."""
    config, files = NNCFConfig.from_json(folder / "config.json"), ("last_elasticity.pth", "last_model_weights.pth")
    space: dict[str, Any] = TrainedSuperNet.from_checkpoint(
        Net(), config, *(folder / name for name in files)
    ).get_search_space()
    return space


def assert_one_error(result: tuple[int, str], message: str, folder: Path) -> None:
    code, output = result
    assert code == 2
    assert re.search(message, output)
    assert output.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("enabled", "width", "depth", "expected"),
    [
        (("width", "kernel", "depth"), 2, 1, {"width": {0: [8, 6], 1: [16, 14], 2: [16, 14]}, "depth": [[1], []]}),
        (("width",), 3, 9, {"width": {0: [8, 6, 4], 1: [16, 14, 12], 2: [16, 14, 12]}}),
        (("depth",), -1, 9, {"depth": [[1], [0, 1], []]}),
        (("depth",), -1, 0, {"depth": [[]]}),
    ],
)
def test_only_what_training_had_opened_is_proposed(
    run: Callable[..., tuple[int, str]],
    tmp_path: Path,
    enabled: tuple[str, ...],
    width: int,
    depth: int,
    expected: dict[str, Any],
) -> None:
    def restrict(_: Any, handlers: dict[str, Any]) -> None:
        handlers["is_handler_enabled_map"] = {dim: dim in enabled for dim in ("width", "kernel", "depth")}
        handlers["states_of_handlers"]["width"]["width_num_params_indicator"] = width
        handlers["states_of_handlers"]["depth"]["depth_indicator"] = depth

    assert run(changed(tmp_path, restrict))[0] == 0
    found = search_space(tmp_path / "out")
    assert set(found) == set(enabled)
    assert {dim: values for dim, values in found.items() if dim != "kernel"} == expected


def test_a_dimension_without_choices_stays_in_stored_subnets(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    def freeze(parts: dict[str, Any], _: Any) -> None:
        parts["width"]["elasticity_params"]["min_width"] = 32
        parts["depth"].update(skipped_blocks=[], skipped_blocks_dependencies={})

    assert run(changed(tmp_path, freeze))[0] == 0
    space = search_space(tmp_path / "out")
    assert (space["width"], space["depth"]) == ({0: [8], 1: [16], 2: [16]}, [[]])
    assert any(len(sizes) > 1 for sizes in space["kernel"])


def test_the_checkpoint_that_holds_a_whole_training(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    state = bundled_state()
    builder = {"progressive_shrinking": {"elasticity_builder_state": state["builder_state"]}}
    controller = {"elasticity_controller_compression_state": state["ctrl_state"]}
    weights = torch.load(BUNDLED / "last_model_weights.pth", weights_only=True)
    whole = {"training_algo_state": {"builder_state": builder, "ctrl_state": controller}, "model_state": weights}
    for name in ("last_elasticity.pth", "last_model_weights.pth"):
        torch.save(whole, tmp_path / name)
    assert run(tmp_path)[0] == 0


@pytest.mark.skipif(not has_nncf2(), reason="NNCF 2.19 is not installed")
@pytest.mark.parametrize("made_by_nncf2", ["made"], indirect=True)
def test_files_of_a_training_with_nncf2_itself(
    made_by_nncf2: Path, run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    training = made_by_nncf2 / "training"
    assert run(training)[0] == 0
    assert search_space(tmp_path / "out") == torch.load(training / "space.pth", weights_only=True)
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in ("last_elasticity.pth", "last_model_weights.pth"):
        shutil.copy(training / "supernet_last.pth", whole / name)
    assert run(whole)[0] == 0
    assert search_space(tmp_path / "out") == torch.load(training / "space.pth", weights_only=True)


def test_weights_of_a_parallel_model(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    weights = torch.load(BUNDLED / "last_model_weights.pth", weights_only=True)
    shutil.copy(BUNDLED / "last_elasticity.pth", tmp_path)
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "last_model_weights.pth")
    assert run(tmp_path)[0] == 0
    assert run(BUNDLED)[0] == 0


def test_a_block_that_cannot_be_skipped_here_runs(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    def move(parts: dict[str, Any], _: Any) -> None:
        first = parts["depth"]["skipped_blocks"][0]
        first["start_node_name"] = "Net/Sequential[blocks]/Block[0]/NNCFConv2d[conv1]/conv2d_0"

    message = (
        r"The checkpoint's block from '.*Block\[0\]/NNCFConv2d\[conv1\]/conv2d_0' to '.*relu__2' "
        "always runs here, so that numbers of the blocks after it are one less: the part from"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        assert run(changed(tmp_path, move))[0] == 0
    assert len(caught) == 1
    assert search_space(tmp_path / "out")["depth"] == [[0], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts, _: parts.clear(), "The checkpoint has nothing elastic"),
        (
            lambda parts, _: parts.update(width={}),
            r"builder_states\.width: 'grouped_node_names_to_prune' is a required property; give that file",
        ),
        (
            lambda parts, _: parts["depth"].update(skipped_blocks=[["a", "b"]]),
            r"depth\.skipped_blocks\[0\]: \['a', 'b'\] is not of type 'object'",
        ),
        (lambda parts, _: parts.update(depth=None), r"builder_states\.depth: None is not of type 'object'"),
        (
            lambda parts, _: parts["depth"].update(skipped_blocks_dependencies={0: [2]}),
            "there are 2 blocks, but a row of others",
        ),
        (
            lambda parts, _: parts["width"]["elasticity_params"].update(overwrite_groups_widths=[[8, 4]]),
            "there are 3 groups of layers, but widths of 1",
        ),
        (lambda _, handlers: handlers.clear(), "'is_handler_enabled_map' is a required property"),
        (lambda _, handlers: handlers["states_of_handlers"].pop("depth"), "no state of the dimension 'depth'"),
        (
            lambda _, handlers: handlers["states_of_handlers"]["depth"].update(depth_indicator="x" * 300),
            r"depth_indicator: 'x{199}\.\.\.",
        ),
    ],
)
def test_a_state_that_is_not_whole_is_one_error(
    run: Callable[..., tuple[int, str]], tmp_path: Path, change: Any, message: str
) -> None:
    assert_one_error(run(changed(tmp_path, change)), message, tmp_path)


def test_stages_train_what_there_is() -> None:
    stages = [{"train_dims": ["kernel"], "epochs": 1}, {"train_dims": ["kernel", "depth"], "epochs": 2}, {"epochs": 3}]
    old = {
        "bootstrapNAS": {"training": {"schedule": {"list_stage_descriptions": stages}}},
        "ignored_scopes": "a",
        "x": 1,
    }
    config = with_elasticity(old, {"available_elasticity_dims": ["kernel", "depth"]}, ["depth"])
    assert config == {
        "x": 1,
        "bootstrapNAS": {
            "training": {
                "schedule": {
                    "list_stage_descriptions": [
                        {"train_dims": ["depth"], "epochs": 2},
                        {"train_dims": ["depth"], "epochs": 3},
                    ]
                },
                "elasticity": {"available_elasticity_dims": ["kernel", "depth"]},
            }
        },
    }


def damaged(folder: Path, change: str) -> Path:
    """A folder with files that are not what they must be."""
    for name in ("last_elasticity.pth", "last_model_weights.pth"):
        shutil.copy(BUNDLED / name, folder)
    weights = torch.load(folder / "last_model_weights.pth", weights_only=True)
    state = bundled_state()
    parts = state["builder_state"]["elasticity"]["builder_states"]
    matrix = next(name for name in weights if "7to5_matrix" in name)
    if change == "missing":
        (folder / "last_elasticity.pth").unlink()
    elif change == "code":
        torch.save({"builder_state": Path()}, folder / "last_elasticity.pth")
    elif change == "no state":
        torch.save({"a": 1}, folder / "last_elasticity.pth")
    elif change == "no matrix":
        del weights[matrix]
    elif change == "other matrix":
        weights[matrix.replace("blocks.0.conv2", "blocks.0.conv1")] = weights[matrix]
    elif change == "other layer":
        group = parts["width"]["grouped_node_names_to_prune"][0]
        group[0] = "Net/NNCFConv2d[head]/conv2d_0"
    elif change == "other block":
        parts["depth"]["skipped_blocks"][0]["end_node_name"] = "Net/Sequential[blocks]/Block[0]/ReLU[relu]/relu__9"
    if change in ("no matrix", "other matrix"):
        torch.save(weights, folder / "last_model_weights.pth")
    if change in ("other layer", "other block"):
        torch.save(state, folder / "last_elasticity.pth")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"There is no checkpoint at .*last_elasticity\.pth; check the path"),
        ("code", r"last_elasticity\.pth is damaged, or holds more than tensors and plain values"),
        (
            "no state",
            r"must be the `last_elasticity\.pth` of .* NNCF 2, .*, but \$: 'builder_state' is a required property",
        ),
        ("no matrix", r"is of another model: it has no matrix for kernel 5 of 'blocks\.0\.conv2'"),
        ("other matrix", r"is of another model: 'blocks\.0\.conv1' has a kernel of 5 there, but cannot have it here"),
        ("other layer", r"is of another model: it has the layer 'Net/NNCFConv2d\[head\]/conv2d_0', which the model"),
        ("other block", r"depth\.skipped_blocks: must name operations of the model, but got 'Net/.*relu__9'"),
    ],
)
def test_what_is_no_such_checkpoint_is_one_error(
    run: Callable[..., tuple[int, str]], tmp_path: Path, change: str, message: str
) -> None:
    assert_one_error(run(damaged(tmp_path, change)), message, tmp_path)


def test_a_checkpoint_of_another_model_is_one_error(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, output = run(BUNDLED, "tests.tools.nncf2_net:other")
    assert code == 2
    assert output == (
        "error: The checkpoint is of another model: 'stem.0.weight' is of shape (8, 3, 5, 5) there, but of shape "
        "(8, 3, 3, 3) in the model that is given.\n"
    )
