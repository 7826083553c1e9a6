"""The algorithm together with NNCF 2.19's quantization and knowledge distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from nncf.torch.nncf_network import NNCFNetwork
from torch import Tensor

from bootstrapnas_ext import BootstrapNASController, extract
from bootstrapnas_ext.errors import ExportError, ModelError
from tests.nncf2.nets import Encoder, Net, config, create, images, net
from tests.zoo import some_subnets

NAS = {"algorithm": "bootstrapNAS"}
INT8 = {"algorithm": "quantization"}
TEACHER = {"algorithm": "knowledge_distillation", "type": "softmax"}
COMPOSED = [
    {"compression": [INT8, NAS]},
    {"compression": [NAS, INT8]},
    {"compression": INT8, "bootstrapNAS": {}},
    {"compression": [NAS, INT8, TEACHER]},
]


def own(controller: Any) -> BootstrapNASController:
    """Returns this package's part of NNCF's controller of several algorithms."""
    (found,) = (child for child in controller.child_ctrls if isinstance(child, BootstrapNASController))
    return found


@pytest.mark.parametrize("keys", COMPOSED, ids=lambda keys: "-".join(keys))
def test_each_subnet_of_a_quantized_model_is_quantized(keys: dict[str, Any]) -> None:
    x = images()
    controller, network = create(net(), config(**keys))
    supernet = own(controller).supernet
    assert {choice.dimension for choice in supernet.space.choices} == {"width", "depth"}
    with torch.no_grad():
        for subnet in some_subnets(supernet):
            small = extract(supernet, subnet)
            assert isinstance(small, NNCFNetwork)
            with supernet.activate(subnet):
                result = network(x)
                assert torch.equal(small(x), result)
            for path, module in small.named_modules():
                if hasattr(module, "pre_ops") and len(module.pre_ops):
                    (quantizer,) = (update.op for update in module.pre_ops.values())
                    assert quantizer.scale.shape[0] == module.weight.shape[0], path
                    levels = (module.weight / quantizer.scale * quantizer.level_high).round()
                    assert levels.unique().numel() <= quantizer.levels


def test_the_maximum_is_the_model_that_nncf_quantizes() -> None:
    _, reference = create(net(), config(compression=INT8))
    _, network = create(net(), config(compression=[INT8, NAS]))
    assert torch.equal(network(images()), reference(images()))


def test_kernels_of_quantized_weights_stay_and_that_is_told() -> None:
    controller, _ = create(net(), config(compression=[INT8, NAS]))
    assert set(own(controller).supernet.static_layers()["kernel"].values()) == {"its weight is computed from others"}


def test_weights_and_scales_of_a_subnet_are_trained() -> None:
    controller, network = create(net(), config(compression=[INT8, NAS]))
    network.train()
    controller.scheduler.epoch_step()
    controller.scheduler.step()
    own(controller).multi_elasticity_handler.activate_minimum_subnet()
    (network(images()).square().sum() + controller.loss()).backward()
    scale = network.conv.pre_ops["0"].op.scale
    kept = own(controller).supernet.space.minimum["width:conv"]
    for gradient in (network.conv.weight.grad, scale.grad):
        assert gradient[:kept].any()
        assert not gradient[kept:].any()


def test_the_teacher_is_the_given_model() -> None:
    model, x = net(), images()
    teacher: Tensor = model(x).detach()
    controller, network = create(model, config(compression=[NAS, TEACHER]))
    assert type(extract(own(controller).supernet, own(controller).supernet.space.minimum)) is Net
    network.train()
    for module in network.modules():
        module.training = not isinstance(module, torch.nn.BatchNorm2d)
    own(controller).multi_elasticity_handler.activate_minimum_subnet()
    student = network(x)
    loss = controller.loss()
    loss.backward()
    assert network.conv.weight.grad.any()
    assert loss > 0
    assert student.shape == teacher.shape


def test_state_of_several_algorithms_goes_on_where_it_was() -> None:
    keys = {"compression": [NAS, INT8]}
    controller, network = create(net(), config(**keys))
    own(controller).multi_elasticity_handler.activate_minimum_subnet()
    again, other = create(net(1), config(**keys), compression_state=controller.get_compression_state())
    other.load_state_dict(network.state_dict())
    other.eval()
    assert own(again).multi_elasticity_handler.active_subnet == own(controller).supernet.space.minimum
    assert torch.equal(other(images()), network(images()))


@pytest.mark.filterwarnings("ignore")  # the exporter that NNCF takes is deprecated
@pytest.mark.parametrize("other", [TEACHER, INT8], ids=lambda other: str(other["algorithm"]))
def test_nncf_exports_the_active_subnet(other: dict[str, Any], tmp_path: Path) -> None:
    controller, network = create(net(), config(compression=[NAS, other]))
    own(controller).multi_elasticity_handler.activate_minimum_subnet()
    network.eval()
    controller.export_model(str(tmp_path / "model.onnx"))
    infer = ov.Core().compile_model(tmp_path / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = images(1)
    # The plugin computes in integers what is quantized, and rounds in another place.
    tolerance = 0.05 if other is INT8 else 1e-4
    np.testing.assert_allclose(infer(x.numpy())[0], network(x).detach().numpy(), rtol=tolerance, atol=tolerance)


def test_quantized_subnets_are_exported_as_ir_and_verified(tmp_path: Path) -> None:
    controller, _ = create(net(), config(compression=[INT8, NAS]))
    own(controller).multi_elasticity_handler.activate_minimum_subnet()
    deployed = own(controller).export_model(tmp_path, "ir")
    assert set(deployed.verification.differences) == {"extracted", "ir"}
    operations = {node.get_type_name() for node in ov.Core().read_model(tmp_path / "model.xml").get_ops()}
    assert "FakeQuantize" in operations
    with pytest.raises(ExportError, match=r"FakeQuantize.*leave 'onnx' out of `formats`"):
        own(controller).export_model(tmp_path / "all")


def test_quantized_subnets_that_need_torch_export_are_an_error() -> None:
    controller, _ = create(Encoder().eval(), config([1, 5, 16], compression=[INT8, NAS]))
    supernet = own(controller).supernet
    with pytest.raises(ExportError, match=r"give the extracted model to `nncf\.quantize`"):
        extract(supernet, supernet.space.minimum)


def test_nncf_strips_the_active_subnet() -> None:
    controller, network = create(net(), config(compression=[NAS, TEACHER]))
    own(controller).multi_elasticity_handler.activate_minimum_subnet()
    stripped = network.nncf.strip()
    assert type(stripped) is Net
    torch.testing.assert_close(stripped(images()), network(images()), rtol=1e-5, atol=1e-6)
    _, quantized = create(net(), config(compression=[NAS, INT8]))
    with pytest.raises(ModelError, match="NNCF cannot strip from a subnet"):
        quantized.nncf.strip()
