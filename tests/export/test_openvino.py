"""OpenVINO models in memory and as IR files."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path

import openvino as ov
import pytest
import torch
from torch import nn

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export import export_subnet, save_ir, to_onnx, to_openvino
from bootstrapnas_ext.export.openvino import core, with_batch
from bootstrapnas_ext.inputs import ExampleInput
from tests.export.nets import BatchInCode, ConvNet, Unbatched, image_example, unbatched_example


@pytest.fixture
def model() -> ov.Model:
    return to_openvino(to_onnx(ConvNet(), image_example()))


def test_model_has_a_dynamic_batch_and_says_where(model: ov.Model) -> None:
    assert str(model.input("image").partial_shape) == "[?,3,8,8]"
    assert model.input("image").node.layout == ov.Layout("N...")
    assert str(model.output("output").partial_shape) == "[?,5]"


def test_graph_is_simplified(model: ov.Model) -> None:
    kinds = {op.get_type_name() for op in model.get_ops()}
    assert "BatchNormInference" not in kinds
    assert "Broadcast" not in kinds


def test_batch_is_changed_in_a_copy(model: ov.Model) -> None:
    fixed = with_batch(model, 4)
    assert str(fixed.input(0).partial_shape) == "[4,3,8,8]"
    assert str(model.input(0).partial_shape) == "[?,3,8,8]"
    assert str(with_batch(fixed, None).input(0).partial_shape) == "[?,3,8,8]"


def test_what_is_not_onnx_is_refused() -> None:
    with pytest.raises(ExportError, match="OpenVINO cannot convert the ONNX model: "):
        to_openvino(b"not an ONNX model")


def test_ir_keeps_float32_weights(model: ov.Model, tmp_path: Path) -> None:
    save_ir(model, tmp_path / "model.xml")
    stored = core().read_model(tmp_path / "model.xml")
    weights = [op for op in stored.get_ops() if op.get_type_name() == "Constant" and op.get_element_type().is_real()]
    assert weights
    assert {op.get_element_type() for op in weights} == {ov.Type.f32}


def test_ir_that_cannot_be_written_is_an_error(model: ov.Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="OpenVINO cannot write"):
        save_ir(model, tmp_path / "file" / "model.xml")


def test_only_inputs_with_a_batch_get_one() -> None:
    model = to_openvino(to_onnx(Unbatched(), unbatched_example()))
    shapes = [str(port.partial_shape) for batch in (4, None) for port in with_batch(model, batch).inputs]
    assert shapes == ["[4,3,8,8]", "[8]", "[?,3,8,8]", "[8]"]


def test_model_without_a_batch_is_left_as_it_is() -> None:
    model = to_openvino(to_onnx(nn.ReLU(), ExampleInput((torch.tensor(2.0),))))
    assert str(with_batch(model, 3).input(0).partial_shape) == "[]"


def test_batch_that_the_graph_does_not_take_is_an_error() -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated
        torch.onnx.export(
            BatchInCode(),
            (torch.randn(2, 4),),
            buffer,
            dynamo=False,
            dynamic_axes={"x": {0: "batch"}},
            input_names=["x"],
        )
    model = to_openvino(buffer.getvalue())
    with pytest.raises(ExportError, match="does not run with a batch of 3"):
        with_batch(model, 3)


def test_benchmark_app_runs_the_exported_ir_without_a_shape(tmp_path: Path) -> None:
    torch.manual_seed(0)
    export_subnet(ConvNet(), image_example(), tmp_path, ("ir",))
    program = "import sys; from openvino.tools.benchmark.main import main; sys.exit(main())"
    arguments = ["-m", str(tmp_path / "model.xml"), "-d", "CPU", "-hint", "latency", "-niter", "3"]
    for batch in ([], ["-b", "4"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments, *batch], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Throughput:" in done.stdout
