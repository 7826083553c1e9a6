"""Super-networks made and made again by NNCF 2's names, and what is said about what does not fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from bootstrapnas_ext.compat.nncf2 import (
    BaseSearchAlgorithm,
    BNAdaptationInitArgs,
    CompressionStage,
    ElasticityController,
    ElasticityDim,
    EpochBasedTrainingAlgorithm,
    NNCFConfig,
    ProgressiveShrinkingController,
    PTInitializingDataLoader,
    TrainedSuperNet,
    create_compressed_model_from_algo_names,
    create_nncf_network,
    load_state,
    nncf_model_input,
    nncf_model_output,
    resume_compression_from_state,
    wrap_dataloader_for_init,
)
from bootstrapnas_ext.errors import BootstrapNASError, CheckpointError, ConfigError, DataError, ExportError, ModelError
from bootstrapnas_ext.inputs import ExampleInput
from tests.compat.nncf2.nas_script import Net, loaders

ELASTICITY = {"width": {"min_width": 4, "width_step": 4}}
CONFIG = {
    "input_info": {"sample_size": [1, 3, 8, 8]},
    "bootstrapNAS": {
        "training": {"batchnorm_adaptation": {"num_bn_adaptation_samples": 0}, "elasticity": ELASTICITY},
        "search": {"batchnorm_adaptation": {"num_bn_adaptation_samples": 0}, "num_evals": 4, "population": 2},
    },
}


def config() -> NNCFConfig:
    return NNCFConfig.from_dict(CONFIG)


def made(name: str = "elasticity") -> tuple[Any, nn.Module]:
    return create_compressed_model_from_algo_names(create_nncf_network(Net(), config()), config(), [name])


def test_controllers_of_both_algorithms() -> None:
    controller, network = made()
    assert isinstance(controller, ElasticityController)
    assert controller.model is network
    assert controller.loss() == 0
    assert controller.compression_stage() == CompressionStage.UNCOMPRESSED
    assert list(controller.statistics()) == []
    assert controller.statistics().to_str() == ""
    controller.scheduler.epoch_step()
    controller.scheduler.step(3)
    controller.scheduler.step()
    assert (controller.scheduler.current_epoch, controller.scheduler.current_step) == (0, 4)
    controller, network = made("progressive_shrinking")
    assert isinstance(controller, ProgressiveShrinkingController)
    assert controller.get_total_num_epochs() == 3
    assert controller.compression_stage() == CompressionStage.PARTIALLY_COMPRESSED
    controller.scheduler.epoch_step(2)
    assert controller.compression_stage() == CompressionStage.FULLY_COMPRESSED
    controller.step()
    assert controller.scheduler.current_step == 0
    controller.distributed()
    controller.prepare_for_export()
    again = made("progressive_shrinking")[0]
    again.load_state(controller.get_state())
    assert again.scheduler.current_epoch == 2
    assert again.multi_elasticity_handler.get_active_config() == controller.multi_elasticity_handler.get_active_config()


def test_the_active_subnet_as_a_plain_model() -> None:
    controller, network = made("progressive_shrinking")
    controller.multi_elasticity_handler.activate_minimum_subnet()
    stripped = controller.strip()
    assert stripped.stem.out_channels == 4
    images = torch.rand(2, 3, 8, 8)
    assert torch.allclose(stripped.eval()(images), network.eval()(images), atol=1e-5)


def test_a_state_makes_the_same_again_without_a_config(tmp_path: Path) -> None:
    controller, network = made()
    controller.multi_elasticity_handler.activate_subnet_for_config({ElasticityDim.DEPTH: [1]})
    torch.save(controller.get_compression_state(), tmp_path / "state.pth")
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    model, again = resume_compression_from_state(create_nncf_network(Net(), config()), state)
    assert isinstance(again, ElasticityController)
    count = load_state(model, {f"module.{name}": value for name, value in network.state_dict().items()}, True)
    assert count == len(network.state_dict())
    assert again.multi_elasticity_handler.get_active_config() == controller.multi_elasticity_handler.get_active_config()
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model.eval()(images), network.eval()(images))


def test_inputs_that_a_config_cannot_describe() -> None:
    def forward(model: nn.Module) -> Any:
        return nncf_model_output(model(nncf_model_input(torch.ones(1, 3, 8, 8))))

    network = create_nncf_network(Net(), NNCFConfig(), forward, lambda args, kwargs: (args, kwargs))
    controller, _ = create_compressed_model_from_algo_names(network, config(), ["elasticity"])
    assert controller.multi_elasticity_handler.get_available_elasticity_dims()


def test_a_trained_supernet(tmp_path: Path) -> None:
    controller, network = made()
    torch.save(controller.get_compression_state(), tmp_path / "elasticity.pth")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    paths = tmp_path / "elasticity.pth", tmp_path / "weights.pth"
    supernet = TrainedSuperNet.from_checkpoint(Net(), config(), *paths)
    assert supernet.get_search_space() == controller.multi_elasticity_handler.get_search_space()
    count, upper = supernet.get_design_vars_info()
    assert count == len(upper) == 9
    whole = supernet.get_macs_for_active_config()
    supernet.activate_minimal_subnet()
    assert supernet.get_macs_for_active_config() < whole
    smallest = supernet.get_active_config()
    supernet.activate_maximal_subnet()
    assert supernet.eval_subnet(smallest, lambda model, scale: scale * model.fc.out_features, scale=2) == 6
    assert supernet.get_active_config() == smallest
    found = supernet.eval_subnet_with_design_vars([0] * 8 + [2], lambda model: model is supernet.get_active_subnet())
    assert found
    assert supernet.get_active_config() == supernet.get_config_from_pymoo([0] * 8 + [2])
    supernet.export_active_subnet_to_onnx(str(tmp_path / "small"))
    assert (tmp_path / "small.onnx").exists()


def test_names_in_the_exported_file(tmp_path: Path) -> None:
    controller, _ = made()
    path = tmp_path / "new" / "model.onnx"
    controller.export_model(path, "onnx_13", ["image"], ["scores"])
    graph = onnx.load(path).graph
    assert [graph.input[0].name, graph.output[0].name] == ["image", "scores"]
    with pytest.raises(ExportError, match=r"`input_names` must name 1 inputs, which are \['x'\], but got \['a', 'b'\]"):
        controller.export_model(path, input_names=["a", "b"])
    with pytest.raises(ExportError, match="`save_format` must be 'onnx', but got 'tf'"):
        controller.export_model(path, "tf")
    assert [one.name for one in path.parent.iterdir()] == ["model.onnx"]


def test_bad_input() -> None:
    with pytest.raises(ModelError, match="is not ready to become a super-network, or is one already; give what"):
        create_compressed_model_from_algo_names(Net(), config(), ["elasticity"])
    network = create_nncf_network(Net(), config())
    with pytest.raises(ConfigError, match="`algo_names` must be one of 'progressive_shrinking', 'elasticity', in a"):
        create_compressed_model_from_algo_names(network, config(), ["quantization"])
    with pytest.raises(ConfigError, match="in a list, but got 'elasticity'"):
        create_compressed_model_from_algo_names(network, config(), "elasticity")
    with pytest.raises(ConfigError, match="'input_info' is missing"):
        create_nncf_network(Net(), NNCFConfig.from_dict({"bootstrapNAS": {}}))
    with pytest.raises(CheckpointError, match=r"was written by NNCF 2; convert it with tools/convert_checkpoint\.py"):
        resume_compression_from_state(network, {"builder_state": {}, "ctrl_state": {}})
    with pytest.raises(CheckpointError, match="must be what `get_compression_state"):
        resume_compression_from_state(network, {"algorithm": "bootstrapNAS"})


def test_a_copy_of_a_network_is_one_too() -> None:
    network = copy.deepcopy(create_nncf_network(Net(), NNCFConfig(), lambda model: model(torch.ones(1, 3, 8, 8))))
    controller, made_of = create_compressed_model_from_algo_names(network, config(), ["elasticity"])
    assert controller.model is made_of is network
    assert not any(isinstance(value, ExampleInput) for value in vars(network).values())


def test_a_call_that_failed_may_be_repeated() -> None:
    network = create_nncf_network(Net(), config())
    wrong = NNCFConfig.from_dict({"bootstrapNAS": {"training": {"elasticity": {"ignored_scopes": ["nope"]}}}})
    for _ in range(2):
        with pytest.raises(ConfigError, match="'nope'"):
            create_compressed_model_from_algo_names(network, wrong, ["elasticity"])
    controller, _ = create_compressed_model_from_algo_names(network, config(), ["elasticity"])
    assert controller.model is network
    with pytest.raises(ModelError, match="or is one already; give what `create_nncf_network"):
        create_compressed_model_from_algo_names(network, config(), ["elasticity"])


def test_a_state_of_another_model() -> None:
    controller, _ = made()

    class Other(Net):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 7, padding=3)

    network = create_nncf_network(Other(), config())
    with pytest.raises(CheckpointError, match="of another super-network: choice 'kernel:stem'"):
        resume_compression_from_state(network, controller.get_compression_state())
    create_compressed_model_from_algo_names(network, config(), ["elasticity"])  # it may be used for something else


def test_weights_of_another_model(caplog: pytest.LogCaptureFixture) -> None:
    state = Net().state_dict()
    assert load_state(Net(), state) == len(state)
    assert not caplog.records
    assert load_state(Net(), {**state, "more": torch.ones(1), "fc.bias": torch.ones(4)}) == len(state) - 1
    assert f"{len(state) - 1} of the model's {len(state)} tensors were loaded." in caplog.text
    assert "have in another shape: fc.bias, more" in caplog.text
    assert load_state(Net(), state, is_resume=True, keys_to_ignore=["fc.bias"]) == len(state) - 1
    with pytest.raises(CheckpointError, match=r"The weights are not of this model: 'fc\.bias' is missing or has"):
        load_state(Net(), {**state, "fc.bias": torch.ones(4)}, is_resume=True)
    with pytest.raises(CheckpointError, match="super-network of NNCF 2; convert it"):
        load_state(Net(), {**state, "stem.nncf_padding_value": torch.ones(1)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no checkpoint at"),
        ({"epoch": 1}, "must be a supernet_last.pth of a training, but has no 'model_state'"),
        ([1], "must hold a dictionary, but it holds list"),
        ({"a": Path()}, "is damaged, or holds more than tensors and plain values"),
    ],
)
def test_checkpoints_that_are_none(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "supernet_last.pth"
    if content is not None:
        torch.save(content, path)
    train_loader, _ = loaders()
    arguments = BNAdaptationInitArgs(wrap_dataloader_for_init(train_loader))
    with pytest.raises(CheckpointError, match=message):
        EpochBasedTrainingAlgorithm.from_checkpoint(create_nncf_network(Net(), config()), arguments, path)


def test_data_loaders() -> None:
    train_loader, _ = loaders()
    wrapped = wrap_dataloader_for_init(train_loader)
    assert wrap_dataloader_for_init(wrapped) is wrapped
    assert (len(wrapped), wrapped.batch_size) == (3, 8)
    batch = next(iter(wrapped))
    assert wrapped.get_inputs(batch) == ((batch[0],), {})
    assert wrapped.get_target(batch) is batch[1]
    with pytest.raises(DataError, match="A batch must be a pair of inputs and targets, but got dict"):
        wrap_dataloader_for_init([{"x": 1}])

    class Mine(PTInitializingDataLoader):
        def get_inputs(self, dataloader_output: Any) -> Any:
            return (), dataloader_output

    arguments = BNAdaptationInitArgs(Mine([{"x": 1}]), "cpu")
    assert arguments.wrap({"x": 1}) == ((), {"x": 1})
    assert (arguments.device, list(arguments.data_loader)) == ("cpu", [{"x": 1}])


def test_a_search_says_what_comes_first() -> None:
    controller, network = made()
    search = BaseSearchAlgorithm.from_config(network, controller, config())
    assert search.bn_adaptation is None
    assert (search.search_params.num_evals, search.search_params.population) == (4, 2)
    assert (search.num_vars, search.vars_lower, len(search.vars_upper)) == (9, [0] * 9, 9)
    for call in (
        search.visualize_search_progression,
        search.evaluators_to_csv,
        lambda: search.accuracy_evaluator_handler,
    ):
        with pytest.raises(BootstrapNASError, match="Nothing was searched yet; call `run` first"):
            call()
    with pytest.raises(ConfigError, match="A search is made from a config: use `from_config`"):
        BaseSearchAlgorithm.from_checkpoint(network, controller, None, "path")
