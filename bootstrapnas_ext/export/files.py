"""A subnet as files that other programs run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ShapesCollection

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export.messages import first_line
from bootstrapnas_ext.export.names import input_names
from bootstrapnas_ext.export.onnx import TRACED_BATCH, to_onnx
from bootstrapnas_ext.export.openvino import save_ir, to_openvino, with_batch
from bootstrapnas_ext.export.runners import Runner, ir_runner, onnx_runner, torch_runner
from bootstrapnas_ext.export.verify import Backend, VerificationReport, verification_inputs, verify
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode

#: Format to the files that it consists of.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "ir": ("model.bin", "model.xml"),
    "torch": ("model.pt2",),
}


@dataclass(frozen=True)
class ExportedSubnet:
    """
    Files that were written, and how far their outputs are from the module's.

    :param files: All files.
    :param verification: The difference of each format.
    """

    files: tuple[Path, ...]
    verification: VerificationReport


def export_subnet(
    module: nn.Module,
    example: ExampleInput,
    directory: Path | str,
    formats: Sequence[str] = ("onnx", "ir"),
    *,
    ir_batch: int | None = 1,
    seed: int = 0,
) -> ExportedSubnet:
    """
    Writes a module in one or more formats, after the written files were run and found right.

    ``onnx`` is ``model.onnx`` and ``torch`` is ``model.pt2``, a ``torch.export`` program; both take any batch size.
    ``ir`` is ``model.xml`` and ``model.bin`` with weights in their own precision. Its graph takes any batch size too,
    and every batch size of the verification is run on it; what is stored is the one that it has until ``reshape``,
    because ``benchmark_app`` refuses to run a stored dynamic shape unless it is told a shape.

    Files appear all at once at the end: when anything fails, what was in the folder before is still there, untouched.

    .. code-block:: python

        exported = export_subnet(extract(supernet, subnet), supernet.example, "subnets/best")
        exported.verification.differences["ir"].max_relative

    :param module: A plain module on the CPU; it is exported in evaluation mode and left as it was.
    :param example: What to call it with; dimension 0 of every tensor is the batch.
    :param directory: The folder, made if it is not there.
    :param formats: Any of :data:`FORMATS`, at least one.
    :param ir_batch: Batch size that is stored in the IR; ``None`` for dynamic.
    :param seed: Of the random inputs of the verification.
    :raises ExportError: If a format is not known, the module cannot be exported, a file cannot be written, or its
        outputs differ from the module's by more than the tolerance.
    """
    _check_formats(formats)
    formats = list(dict.fromkeys(formats))
    directory = Path(directory)
    names = [name for format_ in formats for name in FORMATS[format_]]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=directory) as temporary, evaluation_mode(module):
            backends = _write(module, example, Path(temporary), formats, ir_batch)
            report = verify(module, backends, verification_inputs(example, seed))
            for name in names:
                os.replace(Path(temporary, name), directory / name)
    except OSError as error:
        msg = f"The export cannot be written to {directory} ({first_line(error)}); choose a folder that is writable."
        raise ExportError(msg) from error
    return ExportedSubnet(tuple(directory / name for name in names), report)


def _check_formats(formats: Sequence[str]) -> None:
    unknown = [format_ for format_ in formats if format_ not in FORMATS]
    if unknown or not formats:
        msg = f"`formats` must be one or more of {', '.join(FORMATS)}, but got {list(formats)}."
        raise ExportError(msg)


def _write(
    module: nn.Module, example: ExampleInput, folder: Path, formats: Sequence[str], ir_batch: int | None
) -> dict[str, Backend]:
    """Writes the files and returns, for each format, what runs them."""
    backends: dict[str, Backend] = {}
    inputs = input_names(module, example)
    if "onnx" in formats or "ir" in formats:
        onnx_model = to_onnx(module, example)
    if "onnx" in formats:
        (folder / "model.onnx").write_bytes(onnx_model)
        backends["onnx"] = Backend(_load(onnx_runner, folder / "model.onnx", inputs))
    if "ir" in formats:
        save_ir(with_batch(to_openvino(onnx_model), ir_batch), folder / "model.xml")
        backends["ir"] = Backend(_load(ir_runner, folder / "model.xml", inputs))
    if "torch" in formats:
        _save_torch(module, example.with_batch(TRACED_BATCH), folder / "model.pt2")
        backends["torch"] = Backend(_load(torch_runner, folder / "model.pt2"))
    return backends


def _load(runner: Callable[..., Runner], path: Path, *names: Sequence[str]) -> Runner:
    try:
        return runner(path, *names)
    except Exception as error:  # each library has exceptions of its own
        msg = f"The exported {path.name} cannot be loaded again: {first_line(error)}"
        raise ExportError(msg) from error


def _save_torch(module: nn.Module, example: ExampleInput, path: Path) -> None:
    batch, shapes = Dim("batch"), ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor in example.tensors():
        if tensor.ndim:
            shapes[tensor] = {0: batch}
    try:
        program = torch.export.export(module, example.args, example.kwargs, dynamic_shapes=shapes, strict=False)
        torch.export.save(program, path)
    except OSError:
        raise
    except Exception as error:
        # As with ONNX, anything that the traced code or a pass raises.
        msg = f"{type(module).__name__} cannot be exported by torch.export: {first_line(error)}"
        raise ExportError(msg) from error
