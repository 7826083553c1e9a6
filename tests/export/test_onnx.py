"""ONNX models in memory."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.errors import ExportError, ModelError
from bootstrapnas_ext.export import onnx as exporter
from bootstrapnas_ext.export import to_onnx
from bootstrapnas_ext.inputs import ExampleInput
from tests.export.nets import ConvNet, Nested, Unbatched, image_example, nested_example, unbatched_example


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such luck\nsecond line")


class NotInOnnx(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class ReturnsANumber(nn.Module):
    def forward(self, x: Tensor) -> float:
        return 1.0


def shapes(values) -> dict[str, list[str | int]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_inputs_and_outputs_are_named_and_the_batch_is_dynamic() -> None:
    graph = onnx.load_from_string(to_onnx(ConvNet(), image_example())).graph
    assert shapes(graph.input) == {"image": ["batch", 3, 8, 8]}
    assert shapes(graph.output) == {"output": ["batch", 5]}


def test_nested_structures_are_flat_and_unused_inputs_left_out() -> None:
    graph = onnx.load_from_string(to_onnx(Nested(), nested_example())).graph
    assert shapes(graph.input) == {
        "tokens": ["batch", 3],
        "pair_0": ["batch", 4],
        "pair_1": ["batch", 4],
        "scale": ["batch", 3],
    }
    # An output may not have the name of an input.
    assert shapes(graph.output) == {"output_scale": ["batch", 3], "rest_0": ["batch", 3], "rest_2": ["batch", 4]}


def test_module_is_left_as_it_was() -> None:
    module = ConvNet().train()
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    to_onnx(module, image_example())
    assert [part.training for part in module.modules()] == [True, True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_attention_needs_no_second_exporter_and_its_fast_path_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_export_program", None)
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    graph = onnx.load_from_string(to_onnx(module, ExampleInput((torch.randn(1, 4, 8),)))).graph
    assert shapes(graph.output)["output"][0] == "batch"
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_only_the_second_exporter_knows_is_exported(capfd) -> None:
    # 3 is no multiple of 2, so that the pooling windows differ in size.
    graph = onnx.load_from_string(to_onnx(nn.AdaptiveAvgPool2d(2), ExampleInput((torch.randn(1, 4, 3, 3),)))).graph
    assert shapes(graph.input) == {"input": ["batch", 4, 3, 3]}
    assert shapes(graph.output) == {"output": ["batch", 4, 2, 2]}
    assert capfd.readouterr() == ("", "")


class Frozen(nn.Module):
    """Scales by its batch size as a number, which a trace takes for a constant: the shapes are right all the same."""

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.ops.aten.sym_size.int(x, 0)


def test_batch_size_that_tracing_takes_for_a_constant_is_found_and_the_second_exporter_does_not() -> None:
    x = torch.ones(1, 3)
    run = onnxruntime.InferenceSession(to_onnx(Frozen(), ExampleInput((x,)))).run
    for size in (1, 4):
        assert run(None, {"x": x.repeat(size, 1).numpy()})[0] == pytest.approx(1 / size)


def test_numbers_of_a_torch_export_graph_are_dynamic() -> None:
    class View(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(x.size(0), 12)

    x = torch.randn(2, 3, 4)
    program = torch.export.export(View(), (x,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    module = torch.fx.GraphModule(program, program.graph)
    model = onnx.load_from_string(to_onnx(module, ExampleInput((x,))))
    assert shapes(model.graph.output) == {"output": ["batch", 12]}


def test_only_tensors_with_a_batch_have_a_dynamic_one() -> None:
    graph = onnx.load_from_string(to_onnx(Unbatched(), unbatched_example())).graph
    assert shapes(graph.input) == {"x": ["batch", 3, 8, 8], "mask": [8]}
    found = shapes(graph.output)
    assert (found["output_0"], found["output_1"]) == (["batch", 3, 8, 8], [8])
    assert found["output_2"][0] == "output_2_0"


def test_model_that_is_not_finite_is_converted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_export_program", None)
    module = nn.Linear(3, 2)
    nn.init.constant_(module.weight, float("nan"))
    assert to_onnx(module, ExampleInput((torch.randn(1, 3),)))


def test_error_of_the_model_is_one_line() -> None:
    with pytest.raises(
        ExportError, match=r"^Failing cannot be run on the example input with a batch of 2: no such luck; .*$"
    ):
        to_onnx(Failing(), ExampleInput((torch.ones(1, 2),)))


def test_operation_that_onnx_lacks_is_named_without_a_dump_of_the_graph(capfd) -> None:
    with pytest.raises(ExportError, match=r"NotInOnnx cannot be exported to ONNX: .*bessel_j0.*in other operations"):
        to_onnx(NotInOnnx(), ExampleInput((torch.ones(1, 2),)))
    assert capfd.readouterr() == ("", "")


def test_model_that_onnx_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def write_rubbish(model, args, buffer=None, **_) -> None:
        buffer.write(b"rubbish")

    monkeypatch.setattr(torch.onnx, "export", write_rubbish)
    with pytest.raises(ExportError, match="ConvNet cannot be exported to ONNX: "):
        to_onnx(ConvNet(), image_example())


def test_output_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match="'output' is of type float"):
        to_onnx(ReturnsANumber(), ExampleInput((torch.ones(1, 2),)))
