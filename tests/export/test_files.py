"""Export to files: all formats, verified, and nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import onnxruntime
import openvino as ov
import pytest
import torch
import torchvision
from torch import Tensor, nn

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export import FORMATS, export_subnet, files, runners
from bootstrapnas_ext.export.openvino import core
from bootstrapnas_ext.inputs import ExampleInput
from tests.export.nets import (
    BatchAsNumber,
    BatchInCode,
    ConvNet,
    Nested,
    Unbatched,
    image_example,
    nested_example,
    unbatched_example,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_all_formats_are_written_and_verified(tmp_path: Path) -> None:
    exported = export_subnet(ConvNet(), image_example(), tmp_path / "new" / "best", tuple(FORMATS))
    assert names(tmp_path / "new" / "best") == ["model.bin", "model.onnx", "model.pt2", "model.xml"]
    assert sorted(exported.files) == sorted((tmp_path / "new" / "best").iterdir())
    assert exported.verification.batch_sizes == (1, 1, 3)
    assert set(exported.verification.differences) == {"onnx", "ir", "torch"}
    assert all(d.max_relative < 1e-5 for d in exported.verification.differences.values())


def test_written_files_compute_what_the_module_does_for_any_batch(tmp_path: Path) -> None:
    module = ConvNet().eval()
    export_subnet(module, image_example(), tmp_path, tuple(FORMATS))
    images = torch.randn(5, 3, 8, 8)
    expected = module(images)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"image": images.numpy()})[0]), expected)
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(loaded(images), expected)
    ir = core().read_model(tmp_path / "model.xml")
    assert str(ir.input(0).partial_shape) == "[1,3,8,8]"
    ir.reshape([-1, 3, 8, 8])
    compiled = core().compile_model(ir, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    torch.testing.assert_close(torch.from_numpy(compiled(images.numpy())[0]), expected)


def test_ir_can_be_stored_with_a_dynamic_batch(tmp_path: Path) -> None:
    export_subnet(ConvNet(), image_example(), tmp_path, ("ir",), ir_batch=None)
    assert str(core().read_model(tmp_path / "model.xml").input(0).partial_shape) == "[?,3,8,8]"


def test_nested_inputs_and_outputs(tmp_path: Path) -> None:
    exported = export_subnet(Nested(), nested_example(), tmp_path, tuple(FORMATS))
    assert exported.verification.batch_sizes == (2, 1, 3)
    assert all(d.max_relative < 1e-5 for d in exported.verification.differences.values())


def test_second_exporter_exports_in_evaluation_mode_too(tmp_path: Path) -> None:
    # The first exporter cannot do windows of different sizes.
    module = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(3)).train()
    exported = export_subnet(module, image_example(), tmp_path)
    assert exported.verification.differences["onnx"].max_relative < 1e-5


def test_only_the_asked_formats_are_written_once(tmp_path: Path) -> None:
    export_subnet(ConvNet(), image_example(), tmp_path, ("ir", "ir"))
    assert names(tmp_path) == ["model.bin", "model.xml"]


@pytest.mark.parametrize("format_", ["onnx", "ir", "torch"])
def test_backend_that_differs_is_named(format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{format_}_runner"
    runner: Callable = getattr(files, name)
    monkeypatch.setattr(files, name, lambda *given: lambda *args: [t + 1 for t in pack(runner(*given)(*args))])
    with pytest.raises(ExportError, match=f"output 'output' of {format_} got"):
        export_subnet(ConvNet(), image_example(), tmp_path, tuple(FORMATS))


def pack(outputs: Tensor | list[Tensor]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else outputs


@pytest.mark.parametrize(
    ("module", "format_", "message"),
    [
        (
            BatchAsNumber(),
            "onnx",
            r"the ONNX model cannot run a batch of 1: .*use `x\.shape\[0\]`",
        ),
        (
            BatchAsNumber(),
            "ir",
            r"the ONNX model cannot run a batch of 1: .*use `x\.shape\[0\]`",
        ),
        (BatchAsNumber(), "torch", r"torch\.export: Constraints violated.*use `x\.shape\[0\]`"),
        (BatchInCode(), "onnx", "BatchInCode cannot be run on the example input with a batch of 1: shape"),
        (BatchInCode(), "torch", r"torch\.export: Constraints violated.*use `x\.shape\[0\]`"),
    ],
)
def test_model_of_one_batch_size_is_an_error(module: nn.Module, format_: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export_subnet(module, ExampleInput((torch.randn(2, 4),)), tmp_path, (format_,))
    assert names(tmp_path) == []


def test_failure_leaves_the_earlier_export_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_subnet(ConvNet(), image_example(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(files, "ir_runner", lambda *_: lambda image: torch.zeros(len(image), 5))
    with pytest.raises(ExportError, match="of ir got"):
        export_subnet(ConvNet(), image_example(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_file_that_its_library_refuses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, names: list[str]) -> Callable:
        raise RuntimeError("version too new\nsecond line")

    monkeypatch.setattr(files, "onnx_runner", refuse)
    with pytest.raises(
        ExportError, match=r"model\.onnx cannot be loaded again: version too new; leave 'onnx' out of `formats`\.$"
    ):
        export_subnet(ConvNet(), image_example(), tmp_path)


class Convolution(nn.Conv2d):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(3, 4, 3, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "format_"), [(torch.float64, "onnx"), (torch.bfloat16, "onnx"), (torch.bfloat16, "ir")]
)
def test_precision_that_a_library_lacks_is_an_error_that_says_what_to_do(
    dtype: torch.dtype, format_: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="; convert the model and its example input to float32 before"):
        export_subnet(Convolution(dtype), image_example().map(lambda x: x.to(dtype)), tmp_path, (format_,))


def test_float64_is_exported_where_it_is_known(tmp_path: Path) -> None:
    example = image_example().map(Tensor.double)
    exported = export_subnet(Convolution(torch.float64), example, tmp_path, ("ir", "torch"))
    assert all(d.max_relative < 1e-5 for d in exported.verification.differences.values())


def test_tensors_without_a_batch_keep_their_size_in_all_formats(tmp_path: Path) -> None:
    module, example = Unbatched(), unbatched_example()
    exported = export_subnet(module, example, tmp_path, tuple(FORMATS))
    assert all(d.max_relative < 1e-5 for d in exported.verification.differences.values())
    stored = core().read_model(tmp_path / "model.xml")
    assert [str(port.partial_shape) for port in stored.inputs] == ["[1,3,8,8]", "[8]"]
    x, mask = example.args
    results = core().compile_model(stored, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x.numpy(), mask.numpy()])
    for index, expected in enumerate(module(x, mask)):
        torch.testing.assert_close(torch.from_numpy(results[index]), expected)


@pytest.mark.parametrize(("stored", "fails"), [(1, True), (4, True), (None, False)])
def test_ir_is_run_as_it_is_stored(
    stored: int | None, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_model = runners._compile

    def fail_if_static(model: ov.Model) -> Callable:
        if model.is_dynamic():
            return compile_model(model)
        return Mock(side_effect=RuntimeError("as stored"))

    monkeypatch.setattr(runners, "_compile", fail_if_static)
    if fails:
        with pytest.raises(ExportError, match=f"ir cannot run a batch of {stored}: as stored"):
            export_subnet(ConvNet(), image_example().with_batch(2), tmp_path, ("ir",), ir_batch=stored)
    else:
        export_subnet(ConvNet(), image_example(), tmp_path, ("ir",), ir_batch=stored)


def test_formats_that_would_leave_files_of_another_export_are_refused(tmp_path: Path) -> None:
    export_subnet(ConvNet(), image_example(), tmp_path, ("onnx", "ir"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ExportError, match=r"one export only, but it has model\.bin, model\.xml.*choose another folder"):
        export_subnet(ConvNet(), image_example(), tmp_path, ("onnx", "torch"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("moved", range(4))
def test_interruption_leaves_no_files_of_two_exports(
    moved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_subnet(ConvNet(), image_example(), tmp_path, tuple(FORMATS))
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    moves = []

    def replace(source: Path, target: Path) -> None:
        if len(moves) == moved:
            raise OSError("no such luck")
        moves.append(target.name)
        source.rename(target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(ExportError, match="no such luck"):
        export_subnet(ConvNet(), image_example(), tmp_path, tuple(FORMATS))
    assert names(tmp_path) == sorted(moves)
    assert all((tmp_path / name).read_bytes() != old[name] for name in moves)
    assert moves == ["model.onnx", "model.bin", "model.xml", "model.pt2"][:moved]


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "subnet.json").write_text("{}")
    export_subnet(ConvNet(), image_example(), tmp_path, ("onnx",))
    assert names(tmp_path) == ["model.onnx", "subnet.json"]


def test_module_is_left_in_its_modes(tmp_path: Path) -> None:
    module = ConvNet().train()
    export_subnet(module, image_example(), tmp_path, tuple(FORMATS))
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("formats", [(), ("onnx", "tflite")])
def test_unknown_or_no_format_is_an_error(formats: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="`formats` must be one or more of onnx, ir, torch, but got"):
        export_subnet(ConvNet(), image_example(), tmp_path, formats)


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"cannot be written to .*file.*choose a folder that is writable"):
        export_subnet(ConvNet(), image_example(), tmp_path / "file" / "best")


def test_module_that_torch_export_refuses_is_an_error(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(ExportError, match=r"Branch cannot be exported by torch\.export: "):
        export_subnet(Branch(), ExampleInput((torch.randn(1, 4),)), tmp_path, ("torch",))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121", "efficientnet_b0", "vgg11_bn"])
def test_torchvision_models_agree_in_all_formats(name: str, tmp_path: Path) -> None:
    kwargs = {"num_classes": 10} if not name.startswith("vgg") else {"num_classes": 10, "init_weights": False}
    module = torchvision.models.get_model(name, weights=None, **kwargs)
    if name.startswith("vgg"):
        module.classifier = nn.Linear(512 * 7 * 7, 10)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    exported = export_subnet(module, ExampleInput((torch.randn(1, 3, 32, 32),)), tmp_path)
    assert all(d.max_relative < 1e-4 for d in exported.verification.differences.values())
