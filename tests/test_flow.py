"""The NNCF-style face: create_compressed_model, its controller, and the algorithm registry."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext import ALGORITHMS, NNCFConfig, create_compressed_model, register_default_init_args
from bootstrapnas_ext.errors import CheckpointError, ConfigError, ModelError, RegistryError, SubnetError, TrainingError
from bootstrapnas_ext.export.openvino import core
from bootstrapnas_ext.extraction import extract


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.body = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(torch.relu(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))


def config(**block: Any) -> NNCFConfig:
    return NNCFConfig.from_dict({"input_info": {"sample_size": [1, 3, 8, 8]}, "bootstrapNAS": block})


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def test_the_model_is_the_one_that_was_given_and_computes_the_same(net: Net) -> None:
    x = torch.randn(2, 3, 8, 8)
    before = net(x)
    controller, model = create_compressed_model(net, config())
    assert model is net
    assert torch.equal(model(x), before)
    assert torch.equal(controller.input_model(x), before)
    assert controller.input_model is not net


def test_the_handler_activates_subnets(net: Net) -> None:
    controller, model = create_compressed_model(net, config())
    handler, space = controller.multi_elasticity_handler, controller.supernet.space
    x = torch.randn(2, 3, 8, 8)
    full = model(x)
    handler.activate_minimum_subnet()
    assert handler.active_subnet == space.minimum
    smallest = model(x)
    assert not torch.allclose(smallest, full)
    drawn = handler.activate_random_subnet(np.random.default_rng(0))
    assert handler.active_subnet == drawn == space.sample(np.random.default_rng(0))
    handler.activate_subnet(dict(space.minimum))
    assert torch.equal(model(x), smallest)
    handler.activate_maximum_subnet()
    assert torch.equal(model(x), full)
    with pytest.raises(SubnetError, match="does not have"):
        handler.activate_subnet({"nothing": 1})


def test_inputs_may_come_from_a_function_and_be_changed(net: Net) -> None:
    plain = NNCFConfig.from_dict({"bootstrapNAS": {}})
    seen = []

    def widen(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        seen.append(args[0].shape)
        return (torch.ones(1, 3, 16, 16),), kwargs

    controller, _ = create_compressed_model(
        net, plain, dummy_forward_fn=lambda m: m(torch.ones(1, 3, 8, 8)), wrap_inputs_fn=widen
    )
    assert seen == [(1, 3, 8, 8)]
    assert controller.supernet.example.args[0].shape == (1, 3, 16, 16)


def test_the_graph_is_dumped_into_log_dir(net: Net, tmp_path: Path) -> None:
    settings = config()
    settings["log_dir"] = str(tmp_path / "log")
    create_compressed_model(net, settings)
    text = (tmp_path / "log" / "original_graph.dot").read_text(encoding="utf-8")
    assert text.startswith("digraph model {")
    assert '"conv/conv2d/0"' in text
    assert '"head.weight"' in text


def test_no_graph_is_dumped_unless_asked_for(net: Net, tmp_path: Path) -> None:
    settings = config()
    settings["log_dir"] = str(tmp_path / "log")
    create_compressed_model(net, settings, dump_graphs=False)
    assert not (tmp_path / "log").exists()


def test_an_unwritable_log_dir_is_an_error(net: Net, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    settings = config()
    settings["log_dir"] = str(tmp_path / "file" / "log")
    with pytest.raises(ConfigError, match="change `log_dir`"):
        create_compressed_model(net, settings)


def test_state_goes_on_where_it_was(net: Net) -> None:
    controller, model = create_compressed_model(net, config())
    controller.scheduler.epoch_step()
    controller.scheduler.step()
    controller.multi_elasticity_handler.activate_minimum_subnet()
    state, weights = controller.get_compression_state(), model.state_dict()
    x = torch.randn(2, 3, 8, 8)

    again, other = create_compressed_model(Net().eval(), config(), compression_state=state)
    other.load_state_dict(weights)
    assert again.multi_elasticity_handler.active_subnet == controller.supernet.space.minimum
    assert (again.scheduler.current_epoch, again.scheduler.current_step) == (0, 0)
    assert torch.equal(other(x), model(x))


def test_a_foreign_state_is_an_error(net: Net) -> None:
    state = create_compressed_model(net, config())[0].get_compression_state()
    narrow = config(training={"elasticity": {"width": {"width_multipliers": [1, 0.5]}}})
    with pytest.raises(CheckpointError, match="of another super-network: choice"):
        create_compressed_model(Net(), narrow, compression_state=state)
    with pytest.raises(CheckpointError, match="must be of the algorithm 'bootstrapNAS'"):
        create_compressed_model(Net(), config(), compression_state={"algorithm": "quantization"})


def test_distillation_is_the_controllers_loss(net: Net) -> None:
    controller, model = create_compressed_model(net, config(training={"distillation": {"source": "input_model"}}))
    model.train()
    controller.multi_elasticity_handler.activate_minimum_subnet()
    model(torch.randn(4, 3, 8, 8))
    loss = controller.loss()
    assert loss > 0
    loss.backward()
    assert net.head.weight.grad is not None


def test_a_copy_can_be_made_between_pass_and_loss_and_shares_what_nobody_changes(net: Net) -> None:
    settings = config(training={"distillation": {"source": "input_model"}})
    register_default_init_args(settings, [torch.zeros(1, 3, 8, 8)])
    controller, model = create_compressed_model(net, settings)
    controller.multi_elasticity_handler.activate_minimum_subnet()
    model.train()(torch.randn(4, 3, 8, 8))
    twin = copy.deepcopy(controller)
    assert twin.model is not model
    assert twin.input_model is controller.input_model
    assert twin.nncf_config is controller.nncf_config
    assert controller.loss() > 0
    with pytest.raises(TrainingError, match="needs a forward pass of the model in training mode"):
        twin.loss()
    x = torch.randn(2, 3, 8, 8)
    twin.multi_elasticity_handler.activate_maximum_subnet()
    assert torch.equal(twin.model.eval()(x), controller.input_model(x))
    assert controller.multi_elasticity_handler.active_subnet == controller.supernet.space.minimum


def test_without_distillation_the_loss_is_zero(net: Net) -> None:
    assert create_compressed_model(net, config())[0].loss() == 0


def test_the_active_subnet_is_exported_with_statistics_of_its_own(net: Net, tmp_path: Path) -> None:
    settings = config()
    data = torch.randn(64, 3, 8, 8) * 3 + 1
    loader = [(data[i : i + 16], torch.zeros(16, dtype=torch.int64)) for i in range(0, 64, 16)]
    register_default_init_args(settings, loader)
    controller, _ = create_compressed_model(net, settings)
    controller.multi_elasticity_handler.activate_minimum_subnet()
    running_mean = net.bn.running_mean.clone()
    deployed = controller.export_model(tmp_path)
    assert sorted(path.name for path in deployed.files) == ["model.bin", "model.onnx", "model.xml"]
    assert set(deployed.verification.differences) == {"extracted", "onnx", "ir"}
    assert torch.equal(net.bn.running_mean, running_mean)

    plain = extract(controller.supernet, controller.supernet.space.minimum)
    calibration = controller.calibration(controller.config.search.batchnorm_adaptation)
    assert calibration is not None
    calibration(plain)
    x = torch.randn(1, 3, 8, 8)
    infer = core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = torch.from_numpy(infer(x.numpy())[0])
    torch.testing.assert_close(result, plain.eval()(x).detach(), rtol=1e-3, atol=1e-4)


class Doubling:
    """A controller of a user's own algorithm."""

    scheduler = None

    def loss(self) -> Tensor:
        return torch.zeros(())

    def get_compression_state(self) -> dict[str, Any]:
        return {"doubled": True}


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS._entries))

    @ALGORITHMS.register("doubling")
    def build(model: nn.Module, settings: NNCFConfig, example: Any, state: Mapping[str, Any] | None) -> Doubling:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(settings["compression"]["factor"])
        return Doubling()


@pytest.mark.usefixtures("doubling")
def test_an_algorithm_from_outside_is_found_by_its_name(net: Net) -> None:
    before = net.head.weight.clone()
    settings = NNCFConfig.from_dict(
        {"input_info": {"sample_size": [1, 3, 8, 8]}, "compression": {"algorithm": "doubling", "factor": 2.0}}
    )
    controller, model = create_compressed_model(net, settings)
    assert controller.get_compression_state() == {"doubled": True}
    assert torch.equal(model.head.weight, before * 2)


@pytest.mark.parametrize("wrap", [lambda block: block, lambda block: [block]])
def test_the_block_may_stand_among_the_compression_algorithms(net: Net, wrap: Any) -> None:
    narrow = {"training": {"elasticity": {"width": {"width_multipliers": [1, 0.5]}}}}
    info = {"sample_size": [1, 3, 8, 8]}
    given = {"input_info": info, "compression": wrap({"algorithm": "bootstrapNAS", **narrow})}
    expected = create_compressed_model(Net(), config(**narrow))[0].supernet.space
    # as read, and as a dictionary that was not read by `from_dict`
    for settings in (NNCFConfig.from_dict(given), NNCFConfig(given), given):
        controller, _ = create_compressed_model(net, settings)
        assert controller.supernet.space == expected
        controller.supernet.release()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quantization", "quantize what `extract` returns"),
        ("knowledge_distillation", r"write `training\.distillation` with the source 'input_model'"),
        ("filter_pruning", "apply it to what `extract` returns"),
    ],
)
def test_other_algorithms_are_left_out_with_a_warning_that_says_what_to_do(net: Net, name: str, hint: str) -> None:
    settings = config()
    settings["compression"] = {"algorithm": name}
    with pytest.warns(UserWarning, match=rf"^\$\.compression: {name!r} is left out, .*; {hint}") as caught:
        create_compressed_model(net, settings)
    assert [one.filename for one in caught] == [__file__]


def test_an_unknown_algorithm_is_an_error(net: Net) -> None:
    settings = NNCFConfig.from_dict({"compression": {"algorithm": "bootstrapNSA"}})
    with pytest.raises(RegistryError, match="Did you mean 'bootstrapNAS'"):
        create_compressed_model(net, settings)


@pytest.mark.parametrize("compression", [[], [{"algorithm": "a"}, {"algorithm": "b"}], {}])
def test_anything_but_one_algorithm_is_an_error(net: Net, compression: Any) -> None:
    with pytest.raises(ConfigError, match="must name one algorithm"):
        create_compressed_model(net, NNCFConfig.from_dict({"compression": compression}))


def test_a_model_that_does_not_take_the_input_is_an_error(net: Net) -> None:
    settings = NNCFConfig.from_dict({"input_info": {"sample_size": [1, 4, 8, 8]}, "bootstrapNAS": {}})
    with pytest.raises(ModelError, match="could not be traced with this input"):
        create_compressed_model(net, settings)
