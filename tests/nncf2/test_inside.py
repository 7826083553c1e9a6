"""The algorithm inside NNCF 2.19's own create_compressed_model."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nncf
import nncf.torch
import pytest
import torch
from nncf.torch.algo_selector import PT_COMPRESSION_ALGORITHMS
from nncf.torch.compression_method_api import PTCompressionAlgorithmController
from nncf.torch.nncf_network import NNCFNetwork
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bootstrapnas_ext
from bootstrapnas_ext import BootstrapNASController, EpochBasedTrainingAlgorithm, SearchAlgorithm, extract
from bootstrapnas_ext.compat.nncf2 import (
    create_compressed_model_from_algo_names,
    create_nncf_network,
    resume_compression_from_state,
)
from bootstrapnas_ext.config import BNAdaptationInitArgs, ModelEvaluationArgs
from bootstrapnas_ext.errors import CheckpointError, ConfigError, ModelError
from tests.nncf2.nets import SHAPE, Encoder, Net, config, create, images, net
from tests.zoo import some_subnets

ALGORITHM = {"algorithm": "bootstrapNAS"}
NARROW = {"training": {"elasticity": {"width": {"width_multipliers": [1, 0.5]}}}}


def test_nncf_knows_the_algorithm() -> None:
    assert "bootstrapNAS" in PT_COMPRESSION_ALGORITHMS.registry_dict


@pytest.mark.parametrize("keys", [{"bootstrapNAS": {}}, {"compression": ALGORITHM}, {"compression": [ALGORITHM]}])
def test_the_model_is_a_super_network_of_the_given_one(keys: dict[str, Any]) -> None:
    model, x = net(), images()
    before = model(x)
    controller, network = create(model, config(**keys))
    assert isinstance(controller, BootstrapNASController)
    assert isinstance(controller, PTCompressionAlgorithmController)
    assert network is model
    assert isinstance(network, NNCFNetwork)
    assert torch.equal(network(x), before)
    assert {choice.dimension for choice in controller.supernet.space.choices} == {"width", "depth", "kernel"}
    with torch.no_grad():
        for subnet in some_subnets(controller.supernet):
            small = extract(controller.supernet, subnet)
            with controller.supernet.activate(subnet):
                torch.testing.assert_close(network(x), small(x), rtol=1e-5, atol=1e-6)


def test_settings_are_read_from_both_kinds_of_block() -> None:
    for keys in ({"bootstrapNAS": NARROW}, {"compression": {**ALGORITHM, **NARROW}}):
        controller, _ = create(net(), config(**keys))
        widths = [choice.values for choice in controller.supernet.space.choices if choice.dimension == "width"]
        assert set(widths) == {(32, 16)}


def test_data_and_evaluation_come_along_with_nncfs_config() -> None:
    settings = nncf.NNCFConfig.from_dict({"input_info": {"sample_size": SHAPE}, "bootstrapNAS": {}})
    batches = DataLoader(TensorDataset(images(8), torch.zeros(8)), batch_size=4)
    nncf.torch.register_default_init_args(settings, batches, model_eval_fn=lambda _: 12.5)
    controller, network = create(net(), settings)
    assert controller.nncf_config == settings
    assert controller.nncf_config.get_extra_struct(ModelEvaluationArgs).eval_fn(network) == 12.5
    struct = controller.nncf_config.get_extra_struct(BNAdaptationInitArgs)
    args, kwargs = struct.wrap(next(iter(struct.data_loader)))
    assert torch.equal(args[0], images(8)[:4])
    assert not kwargs


def test_functions_of_nncf2s_scripts_take_nncfs_own_config() -> None:
    settings = nncf.NNCFConfig.from_dict({"input_info": {"sample_size": SHAPE}, "compression": {**ALGORITHM, **NARROW}})
    batches = DataLoader(TensorDataset(images(8), torch.zeros(8)), batch_size=4)
    nncf.torch.register_default_init_args(settings, batches)
    network = create_nncf_network(net(), settings)
    controller, _ = create_compressed_model_from_algo_names(network, settings, ["progressive_shrinking"])
    again = create_nncf_network(net(), settings)
    _, resumed = resume_compression_from_state(again, controller.get_compression_state(), settings)
    for one in (controller, resumed):
        assert one.controller.nncf_config.get_extra_struct(BNAdaptationInitArgs).data_loader is not None
        assert {choice.values for choice in one.controller.supernet.space.choices} >= {(32, 16)}


def test_training_and_search_take_the_config_that_nncfs_function_got() -> None:
    quantized = config(compression=[ALGORITHM, {"algorithm": "quantization"}])
    for settings in (config(compression=ALGORITHM), config(bootstrapNAS={})):
        controller, _ = create(net(), settings)
        for kind in (EpochBasedTrainingAlgorithm, SearchAlgorithm):
            assert isinstance(kind.from_config(controller, settings), kind)
            with pytest.raises(ConfigError, match="made from another config"):
                kind.from_config(controller, config(bootstrapNAS=NARROW))
    several, _ = create(net(), quantized)
    with pytest.raises(ConfigError, match=r"must be a super-network's, but got PTComposite.*among the `child_ctrls`"):
        SearchAlgorithm.from_config(several, quantized)


def test_data_and_evaluation_come_along_to_the_packages_own_function() -> None:
    settings = nncf.NNCFConfig.from_dict({"input_info": {"sample_size": SHAPE}, "compression": ALGORITHM})
    batches = DataLoader(TensorDataset(images(8), torch.zeros(8)), batch_size=4)
    nncf.torch.register_default_init_args(settings, batches, model_eval_fn=lambda _: 12.5, device="cpu")
    controller, network = bootstrapnas_ext.create_compressed_model(net(), settings)
    assert controller.nncf_config.get_extra_struct(ModelEvaluationArgs).eval_fn(network) == 12.5
    struct = controller.nncf_config.get_extra_struct(BNAdaptationInitArgs)
    assert struct.device == "cpu"
    assert torch.equal(struct.wrap(next(iter(struct.data_loader)))[0][0], images(8)[:4])


def test_two_blocks_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'bootstrapNAS', but got \$\.bootstrapNAS and \$\.compression; keep"):
        create(net(), config(bootstrapNAS={}, compression=ALGORITHM))


def test_a_wrong_key_is_an_error_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^\$\.bootstrapNAS\.training\.trainign: unknown key"):
        create(net(), config(bootstrapNAS={"training": {"trainign": 1}}))
    with pytest.raises(ConfigError, match=r"^\$\.compression\.training\.trainign: unknown key"):
        create(net(), config(compression={**ALGORITHM, "training": {"trainign": 1}}))
    for key in ("trainign", "ignored_scopes"):
        with pytest.raises(ConfigError, match=rf"^\$\.compression\[0\]\.{key}: unknown key"):
            create(net(), config(compression=[{**ALGORITHM, key: {}}]))


def test_the_input_model_and_extracted_ones_are_plain() -> None:
    controller, _ = create(net(), config(bootstrapNAS={}))
    for model in (controller.input_model, extract(controller.supernet, controller.supernet.space.minimum)):
        assert type(model) is Net
        assert type(model.conv) is nn.Conv2d
        assert not any(type(module).__module__.startswith("nncf.") for module in model.modules())
    assert controller.input_model.state_dict().keys() == Net().state_dict().keys()


def test_a_network_can_be_copied_in_training() -> None:
    controller, network = create(net(), config(bootstrapNAS={}))
    controller.multi_elasticity_handler.activate_minimum_subnet()
    network.train()(images())
    twin = copy.deepcopy(network)
    assert torch.equal(twin.eval()(images()), network.eval()(images()))
    assert twin.nncf.compression_controller is not controller
    assert twin.nncf.compression_controller.input_model is controller.input_model
    assert twin.nncf.compression_controller.nncf_config is controller.nncf_config


def test_strip_returns_the_active_subnet() -> None:
    controller, network = create(net(), config(bootstrapNAS={}))
    controller.multi_elasticity_handler.activate_minimum_subnet()
    stripped = network.nncf.strip()
    assert type(stripped) is Net
    torch.testing.assert_close(stripped(images()), network(images()), rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelError, match=r"call `strip\(do_copy=True\)`"):
        controller.strip(do_copy=False)
    assert not list(controller.statistics())


def test_a_model_is_fully_compressed_in_the_last_stage_of_training_whichever_subnet_is_active() -> None:
    stages = [{"train_dims": ["depth"], "epochs": 1}, {"train_dims": ["depth", "width"], "epochs": 2}]
    elasticity = {"available_elasticity_dims": ["depth", "width"]}
    training = {"elasticity": elasticity, "schedule": {"list_stage_descriptions": stages}}
    controller, _ = create(net(), config(bootstrapNAS={"training": training}))
    stage = nncf.api.compression.CompressionStage
    found = [controller.compression_stage()]
    for _ in range(3):
        controller.scheduler.epoch_step()
        found.append(controller.compression_stage())
    partly, fully = stage.PARTIALLY_COMPRESSED, stage.FULLY_COMPRESSED
    assert found == [partly, partly, fully, fully]
    controller.multi_elasticity_handler.activate_minimum_subnet()
    assert controller.compression_stage() == fully


def test_state_goes_on_where_it_was() -> None:
    controller, network = create(net(), config(bootstrapNAS={}))
    controller.scheduler.epoch_step()
    controller.scheduler.step()
    controller.multi_elasticity_handler.activate_minimum_subnet()
    state, weights = controller.get_compression_state(), network.state_dict()
    again, other = create(net(1), config(bootstrapNAS={}), compression_state=state)
    other.load_state_dict(weights)
    assert again.multi_elasticity_handler.active_subnet == controller.supernet.space.minimum
    assert (again.scheduler.current_epoch, again.scheduler.current_step) == (0, 0)
    assert torch.equal(other(images()), network(images()))
    with pytest.raises(CheckpointError, match="of another super-network: choice"):
        create(net(), config(bootstrapNAS=NARROW), compression_state=state)


def test_the_model_may_be_called_by_a_function_of_the_users() -> None:
    def call(model: nn.Module) -> Any:
        return model(nncf.torch.nncf_model_input(torch.ones(1, 3, 8, 8)))

    def wrap(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (nncf.torch.nncf_model_input(args[0]),), kwargs

    controller, _ = create(net(), config(bootstrapNAS={}), dummy_forward_fn=call, wrap_inputs_fn=wrap)
    assert controller.supernet.example.args[0].shape == (1, 3, 8, 8)


def test_a_forward_of_the_object_is_an_error() -> None:
    model = net()
    own = model.forward
    model.forward = lambda x: own(x) + 1  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"The `forward` of the object Net was replaced"):
        create(model, config(bootstrapNAS={}))


def test_training_search_and_export_take_nncfs_config(tmp_path: Path) -> None:
    stages = [{"train_dims": ["depth", "width"], "epochs": 1, "init_lr": 0.01, "bn_adapt": True}]
    block = {
        "training": {
            "schedule": {"list_stage_descriptions": stages},
            "elasticity": {"available_elasticity_dims": ["depth", "width"]},
            "distillation": {"source": "input_model"},
        },
        "search": {"num_evals": 4, "population": 2, "objectives": ["accuracy", "macs"], "acc_delta": 100},
    }
    settings = config(bootstrapNAS=block)
    controller, _ = create(net(), settings)
    data = [(images(8), torch.arange(8) % 5)]
    optimizer = torch.optim.SGD(controller.supernet.parameters(), lr=0.01)
    EpochBasedTrainingAlgorithm.from_config(controller, settings).run(data, data, optimizer, tmp_path)
    result = SearchAlgorithm.from_config(controller, settings).run(data, tmp_path)
    controller.multi_elasticity_handler.activate_subnet(result.selection.best.subnet)
    deployed = controller.export_model(tmp_path / "best")
    assert set(deployed.verification.differences) == {"extracted", "onnx", "ir"}


def test_a_sequential_model_is_one_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    x = images()
    before = model(x)
    controller, network = create(model, config(bootstrapNAS={}))
    assert torch.equal(network(x), before)
    small = extract(controller.supernet, controller.supernet.space.minimum)
    controller.multi_elasticity_handler.activate_minimum_subnet()
    torch.testing.assert_close(network(x), small(x), rtol=1e-5, atol=1e-6)
    assert len(small) == 3


def test_a_transformer_is_one_too() -> None:
    model, x = Encoder().eval(), torch.randn(2, 5, 16)
    before = model(x)
    controller, network = create(model, config([1, 5, 16], bootstrapNAS={}))
    torch.testing.assert_close(network(x), before, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for subnet in some_subnets(controller.supernet, 1):
            small = extract(controller.supernet, subnet)
            with controller.supernet.activate(subnet):
                torch.testing.assert_close(network(x), small(x), rtol=1e-5, atol=1e-6)


def test_a_released_model_is_as_nncf_made_it() -> None:
    controller, network = create(net(), config(bootstrapNAS={}))
    x = images()
    before = network(x)
    names = set(network.state_dict())
    controller.supernet.release()
    assert torch.equal(network(x), before)
    assert not [name for name in names ^ set(network.state_dict()) if not name.startswith("__nncf_hooks")]


def test_without_legacy_tracing_nncf_says_what_to_do_and_the_packages_function_works() -> None:
    code = f"""
import copy, nncf, nncf.torch, torch, warnings
import bootstrapnas_ext as bnas
from torch import nn
warnings.simplefilter("ignore")
settings = {{"input_info": {{"sample_size": {SHAPE}}}, "bootstrapNAS": {{}}}}
model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
controller, _ = bnas.create_compressed_model(copy.deepcopy(model), bnas.NNCFConfig.from_dict(settings))
assert controller.supernet.space.size > 1
nncf.torch.create_compressed_model(model, nncf.NNCFConfig.from_dict(settings))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_without_tracing()
    )
    assert "set NNCF_TORCH_LEGACY_TRACING=1 environment variable" in run.stderr.splitlines()[-1]


def _without_tracing() -> dict[str, str]:
    root = str(Path(bootstrapnas_ext.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if name != "NNCF_TORCH_LEGACY_TRACING"}
    return {**environment, "PYTHONPATH": root}
