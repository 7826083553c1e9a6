"""A script that was written for NNCF 2.19 runs to its end after its imports are changed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from bootstrapnas_ext.compat.nncf2 import ElasticityDim, create_compressed_model_from_algo_names
from bootstrapnas_ext.errors import TrainingError
from tests.compat.nncf2 import nas_script

OLD = pytest.mark.filterwarnings("ignore:.*was -1 for")
pytestmark = OLD


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module, dict[str, Any]]:
    """The folder of a run, its model with the best subnet active, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.warns(UserWarning, match="was -1 for"):
        network, result = nas_script.main(folder)
    return folder, network, result


def test_files(trained: tuple[Path, Any, Any]) -> None:
    files = {path.name for path in trained[0].iterdir() if not path.name.startswith("events.out")}
    assert files == {
        "best_subnet.onnx",
        "cache_MACs.csv",
        "cache_top1_acc.csv",
        "last_elasticity.pth",
        "last_model_weights.pth",
        "search_progression.csv",
        "search_progression.png",
        "subnetwork_best.pth",
        "supernet_best.pth",
        "supernet_last.pth",
        "trials.db",
    }


def test_what_it_returns_has_the_form_of_nncf_2(trained: tuple[Path, Any, dict[str, Any]]) -> None:
    result = trained[2]
    assert list(result["best_config"]) == [ElasticityDim.WIDTH, ElasticityDim.KERNEL, ElasticityDim.DEPTH]
    assert result["space"] == {
        "width": {0: [16, 12, 8], 1: [16, 12, 8], 2: [16, 12, 8]},  # the last stage opens three widths
        "kernel": [[3, 1], [5, 3, 1], [3, 1], [5, 3, 1], [3, 1]],
        "depth": [[1], [0, 1], []],
    }
    assert result["variables"] == (9, [2, 2, 2, 1, 2, 1, 2, 1, 2])
    assert result["maximum"][1] == (2 * 64 * 17888 - 2 * 63 * 48, 17888)
    macs, accuracy = result["metrics"]
    assert macs == result["best"][1][0] / 2e6
    assert accuracy == pytest.approx(result["best"][0])
    assert len(result["records"]) == 6
    first = result["records"][0]
    assert first[0] == {
        ElasticityDim.WIDTH: {0: 16, 1: 16, 2: 16},
        ElasticityDim.KERNEL: [3, 5, 3, 5, 3],
        ElasticityDim.DEPTH: [],
    }
    assert (first[1], first[3], first[2], first[4]) == (
        "MACs",
        "top1_acc",
        result["maximum"][1][0] / 2e6,
        pytest.approx(-result["maximum"][0]),
    )


def test_the_best_is_the_cheapest_that_is_accurate_enough(trained: tuple[Path, Any, dict[str, Any]]) -> None:
    records, reference = trained[2]["records"], -trained[2]["records"][0][4]
    cheap = min((record for record in records if -record[4] >= reference - 50), key=lambda record: record[2])
    assert trained[2]["best_config"] == cheap[0]


def test_the_exported_file_computes_what_the_best_subnet_computes(trained: tuple[Path, Any, Any]) -> None:
    folder, network, _ = trained
    images = torch.rand(5, 3, 8, 8)
    session = onnxruntime.InferenceSession(folder / "best_subnet.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, network.eval()(images).numpy(), atol=1e-4)


def test_tables(trained: tuple[Path, Any, Any]) -> None:
    folder = trained[0]
    with (folder / "search_progression.csv").open(encoding="utf-8", newline="") as file:
        assert [len(row) for row in csv.reader(file)] == [5] * 6
    best = torch.load(folder / "subnetwork_best.pth", weights_only=True)
    assert best["best_efficiency"] == trained[2]["metrics"][0]
    assert best["subnet_config"] == trained[2]["best_config"]


def test_the_stored_subnet_is_the_best(trained: tuple[Path, Any, Any], tmp_path: Path) -> None:
    network, config, *_ = nas_script.ready(tmp_path)
    controller = nas_script.EpochBasedTrainingAlgorithm.from_config(network, config).elasticity_ctrl
    stored = torch.load(trained[0] / "subnetwork_best.pth", weights_only=True)["subnet_config"]
    controller.multi_elasticity_handler.activate_subnet_for_config(stored)
    assert controller.multi_elasticity_handler.get_active_config() == trained[2]["best_config"]


def test_a_search_of_its_own_continues_from_the_files(
    trained: tuple[Path, Any, dict[str, Any]], tmp_path: Path
) -> None:
    folder = trained[0]
    _, result = nas_script.search_only(tmp_path, folder / "last_elasticity.pth", folder / "last_model_weights.pth")
    assert result["best_config"] == trained[2]["best_config"]
    assert result["records"] == trained[2]["records"]
    assert result["space"] == trained[2]["space"]


def test_a_training_that_was_cut_off_goes_on(trained: tuple[Path, Any, dict[str, Any]], tmp_path: Path) -> None:
    calls: list[int] = []

    class CutError(Exception):
        pass

    def cut(*args: Any) -> None:
        calls.append(args[3])
        if len(calls) == 2:
            raise CutError
        nas_script.train_epoch(*args)

    network, config, _, train_loader, val_loader = nas_script.ready(tmp_path)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    training = nas_script.EpochBasedTrainingAlgorithm.from_config(network, config)
    with pytest.raises(CutError):
        training.run(cut, train_loader, nas_script.validate, val_loader, optimizer, tmp_path)
    assert not (tmp_path / "supernet_best.pth").exists()  # only the last stage counts
    network, result = nas_script.main(tmp_path, tmp_path / "supernet_last.pth")
    assert calls == [0, 1]
    whole = torch.load(trained[0] / "last_model_weights.pth", weights_only=True)
    mine = torch.load(tmp_path / "last_model_weights.pth", weights_only=True)
    assert all(torch.equal(whole[name], mine[name]) for name in whole)
    assert result["metrics"] == trained[2]["metrics"]


def test_what_validation_returns(tmp_path: Path) -> None:
    network, config, _, train_loader, val_loader = nas_script.ready(tmp_path)
    training = nas_script.EpochBasedTrainingAlgorithm.from_config(network, config)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="must return three numbers, top-1, top-5 and loss, but it returned 5"):
        training.run(nas_script.train_epoch, train_loader, lambda *_: 5.0, val_loader, optimizer, tmp_path)


def test_a_loop_of_ones_own_opens_the_stages(tmp_path: Path) -> None:
    network, config, _, train_loader, _ = nas_script.ready(tmp_path)
    controller, network = create_compressed_model_from_algo_names(network, config, ["progressive_shrinking"])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    controller.set_training_lr_scheduler_args(optimizer, len(train_loader))
    handler, scheduler = controller.multi_elasticity_handler, controller.scheduler
    spaces, minima = [], []
    for epoch in range(scheduler.get_total_training_epochs()):
        scheduler.epoch_step()
        spaces.append(handler.get_search_space())
        minima.append(handler.get_minimum_config())
        nas_script.train_epoch(train_loader, network, controller, epoch, optimizer)
    assert [list(space) for space in spaces] == [["kernel", "depth"], ["width", "kernel", "depth"]]
    assert spaces[1]["width"] == {0: [16, 12, 8], 1: [16, 12, 8], 2: [16, 12, 8]}
    assert minima[0] == {ElasticityDim.KERNEL: [1, 1, 1, 1, 1], ElasticityDim.DEPTH: [0, 1]}
    assert minima[1][ElasticityDim.WIDTH] == {0: 8, 1: 8, 2: 8}
    assert (scheduler.current_epoch, scheduler.current_step, scheduler.is_final_stage()) == (1, 5, True)


def test_what_was_changed_within_a_stage_stays(tmp_path: Path) -> None:
    network, config, *_ = nas_script.ready(tmp_path)
    controller, _ = create_compressed_model_from_algo_names(network, config, ["progressive_shrinking"])
    handler, scheduler = controller.multi_elasticity_handler, controller.scheduler
    assert (scheduler.current_stage_idx, scheduler.is_final_stage()) == (-1, False)
    scheduler.epoch_step(0)
    handler.depth_handler.depth_indicator = 1
    state = scheduler.get_state()
    scheduler.epoch_step(0)
    assert handler.get_search_space()["depth"] == [[1], []]
    scheduler.epoch_step()
    assert handler.get_search_space()["depth"] == [[1], [0, 1], []]
    scheduler.load_state(state)
    assert scheduler.current_stage_idx == 0
