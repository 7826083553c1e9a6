"""Searches with measures of one's own, and what is chosen if no subnet is good enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bootstrapnas_ext.compat.nncf2 import BaseEvaluator, BaseSearchAlgorithm, ElasticityDim, NNCFConfig
from bootstrapnas_ext.errors import BootstrapNASError, CheckpointError
from bootstrapnas_ext.search.storage import read_search
from tests.compat.nncf2.test_creation import CONFIG, made


class Width(BaseEvaluator):
    """The width of the first layer, read from the active subnet."""

    def __init__(self, controller: Any) -> None:
        super().__init__("width", 0)
        self._handler = controller.multi_elasticity_handler

    def evaluate_subnet(self) -> float:
        return float(self._handler.supernet.active["width:stem"])


def searched(folder: Path, **options: Any) -> tuple[Any, Any]:
    controller, network = made()
    search = BaseSearchAlgorithm.from_config(
        network, controller, NNCFConfig.from_dict({**CONFIG, "log_dir": str(folder)})
    )

    def accuracy(model: nn.Module, _: Any) -> float:
        assert model is network
        return 50.0 + controller.multi_elasticity_handler.supernet.active["width:stem"]

    efficiency = Width(controller) if options.pop("width", False) else None
    return search, search.run(accuracy, None, folder, efficiency, **options)


def test_an_evaluator_of_ones_own(tmp_path: Path) -> None:
    search, (controller, best, found) = searched(tmp_path, width=True, ref_acc=54.5)
    assert found == [4.0, 54.0]
    assert controller.multi_elasticity_handler.get_active_config() == best
    assert [record[1] for record in search.search_records] == ["width"] * 4
    assert search.efficiency_evaluator_handler.input_model_value == 16
    assert search.best_vals == [4.0, -54.0]


def test_without_a_good_one_it_is_the_maximum(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    search, (controller, best, found) = searched(tmp_path, ref_acc=90)
    assert "So the maximum subnet is activated" in caplog.text
    assert best == controller.multi_elasticity_handler.get_maximum_config()
    assert found == [controller.multi_elasticity_handler.count_flops_and_weights_for_active_subnet()[0] / 2e6, 66.0]
    assert search.best_vals == [None, None]


@pytest.mark.parametrize("ref_acc", [-1, -1.0, 100, None])
def test_no_reference_accuracy_is_that_of_the_maximum(tmp_path: Path, ref_acc: float | None) -> None:
    _, (_, _, found) = searched(tmp_path, ref_acc=ref_acc)
    assert found[1] == 66.0  # all narrower ones lose more than `acc_delta`, which is 1


def test_tolerance_may_be_set(tmp_path: Path) -> None:
    controller, network = made()
    search = BaseSearchAlgorithm.from_config(network, controller, NNCFConfig.from_dict(CONFIG))
    search.acc_delta = 20
    _, _, found = search.run(lambda *_: 50.0 + controller.controller.supernet.active["width:stem"], None, tmp_path)
    assert found[1] == 54.0


def test_dimensions_that_are_not_enabled_stay_as_they_are_active(tmp_path: Path) -> None:
    controller, network = made()
    handler = controller.multi_elasticity_handler
    handler.activate_subnet_for_config({ElasticityDim.DEPTH: [1]})
    handler.disable_elasticity(ElasticityDim.DEPTH)
    depths = set()

    def accuracy(*_: Any) -> float:
        depths.add(handler.supernet.active["depth:blocks.0"])
        return 50.0

    search = BaseSearchAlgorithm.from_config(network, controller, NNCFConfig.from_dict(CONFIG))
    _, best, _ = search.run(accuracy, None, tmp_path)
    assert depths == {1}
    assert list(best) == [ElasticityDim.WIDTH, ElasticityDim.KERNEL]
    for config, _, macs, *_ in search.search_records:
        handler.activate_subnet_for_config(config)
        assert macs == handler.count_flops_and_weights_for_active_subnet()[0] / 2e6
    search.acc_delta = 0
    search.run(accuracy, None, tmp_path / "none is good enough", ref_acc=90)
    assert depths == {1}
    handler.disable_all()
    with pytest.raises(BootstrapNASError, match="There is one subnet only, so nothing can be searched: enable a"):
        search.run(accuracy, None, tmp_path)


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    search, _ = searched(tmp_path, width=True)
    search.evaluators_to_csv()
    search.save_evaluators_state()
    states = torch.load(tmp_path / "evaluators_state.pth", weights_only=True)
    evaluator = search.efficiency_evaluator_handler.evaluator
    other = Width(search._elasticity_ctrl)
    other.update_from_state(states[0])
    assert other.get_state() == evaluator.get_state()
    assert len(other.cache) == 4
    read = Width(search._elasticity_ctrl)
    read.load_cache_from_csv(tmp_path / "cache_width.csv")
    assert read.cache == evaluator.cache
    assert read.retrieve_from_cache(()) == (False, 0)
    handler = search._handler
    for variables, value in read.cache.items():
        handler.activate_subnet_for_config(handler.get_config_from_pymoo(variables))
        assert value == read.evaluate_subnet()


def test_a_second_search_in_a_folder_measures_anew(tmp_path: Path) -> None:
    controller, network = made()
    handler = controller.multi_elasticity_handler
    for accuracy, seed in ((50.0, 0), (60.0, 0), (70.0, 1)):
        block = CONFIG["bootstrapNAS"]
        config = {**CONFIG, "bootstrapNAS": {**block, "search": {**block["search"], "seed": seed, "acc_delta": seed}}}
        search = BaseSearchAlgorithm.from_config(network, controller, NNCFConfig.from_dict(config))
        _, best, found = search.run(lambda *_, value=accuracy: value, None, tmp_path)
        assert found[1] == accuracy
        assert best == handler.get_active_config()
        assert [record[4] for record in search.search_records] == [-accuracy] * 4
        assert [trial.values["accuracy"] for trial in read_search(tmp_path / "trials.db").trials] == [accuracy] * 4


def test_measures_are_numbers(tmp_path: Path) -> None:
    controller, network = made()
    search = BaseSearchAlgorithm.from_config(network, controller, NNCFConfig.from_dict(CONFIG))
    assert search.run(lambda *_: torch.tensor(50.0), None, tmp_path)[2][1] == 50.0
    with pytest.raises(BootstrapNASError, match=r"'validate_fn' measures must be one number, but got \(1\.0, 2\.0"):
        search.run(lambda *_: (1.0, 2.0, 3.0), None, tmp_path)


def test_a_search_that_fails_at_once_leaves_the_trials(tmp_path: Path) -> None:
    search, _ = searched(tmp_path)
    with pytest.raises(ZeroDivisionError):
        search.run(lambda *_: 1 / 0, None, tmp_path)
    assert len(read_search(tmp_path / "trials.db").trials) == 4
    (tmp_path / "other" / "trials.db").mkdir(parents=True)
    with pytest.raises(
        CheckpointError, match=r"trials\.db cannot be overwritten: .*Choose a folder that you may write"
    ):
        search.run(lambda *_: 50.0, None, tmp_path / "other")


def test_what_an_evaluator_remembers_is_not_measured_again(tmp_path: Path) -> None:
    class Counting(Width):
        """Counts how often it measured."""

        calls = 0

        def evaluate_subnet(self) -> float:
            self.calls += 1
            return super().evaluate_subnet()

    found = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        controller, network = made()
        search = BaseSearchAlgorithm.from_config(network, controller, NNCFConfig.from_dict(CONFIG))
        evaluator = Counting(controller)
        if folder.name == "second":
            evaluator.load_cache_from_csv(tmp_path / "first" / "cache_width.csv")
        search.run(lambda *_: 50.0, None, folder, evaluator)
        evaluator.export_cache_to_csv(folder)
        found.append((evaluator.calls, search.search_records))
    # The maximum is measured in any case.
    assert [calls for calls, _ in found] == [5, 1]
    assert found[0][1] == found[1][1]


def test_an_evaluator_forgets_what_the_same_variables_were_before(tmp_path: Path) -> None:
    controller, network = made()
    handler, evaluator = controller.multi_elasticity_handler, Width(controller)
    handler.disable_elasticity(ElasticityDim.WIDTH)
    widths = []
    for width in (16, 8, 8):
        handler.activate_subnet_for_config({ElasticityDim.WIDTH: {0: width}})
        search = BaseSearchAlgorithm.from_config(network, controller, NNCFConfig.from_dict(CONFIG))
        search.run(lambda *_: 50.0, None, tmp_path, evaluator)
        widths.append({record[2] for record in search.search_records})
    assert widths == [{16.0}, {8.0}, {8.0}]
