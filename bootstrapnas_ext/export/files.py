"""A subnet as files that other programs run."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ShapesCollection

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export.messages import ANY_BATCH, FLOAT32, first_line
from bootstrapnas_ext.export.names import input_names
from bootstrapnas_ext.export.onnx import TRACED_BATCH, to_onnx
from bootstrapnas_ext.export.openvino import save_ir, to_openvino, with_batch
from bootstrapnas_ext.export.runners import Runner, ir_runner, onnx_runner, torch_runner
from bootstrapnas_ext.export.verify import (
    BATCH_SIZES,
    Backend,
    VerificationReport,
    verification_inputs,
    verify,
)
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode

#: Format to the files that it consists of, in the order in which they get their places.
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

    All files are made and verified in a temporary folder inside the directory. When anything fails until then, an older
    export is still there, untouched. Then the files of the older export are removed, and the new ones moved to their
    places one by one, ``.bin`` before ``.xml``: who is interrupted in between finds files missing, but never files of
    two exports beside each other. For the same reason, a directory with files of a format that is not asked for is
    refused.

    .. code-block:: python

        exported = export_subnet(extract(supernet, subnet), supernet.example, "subnets/best")
        exported.verification.differences["ir"].max_relative

    :param module: A plain module on the CPU; it is exported in evaluation mode and left as it was.
    :param example: What to call it with; :meth:`ExampleInput.has_batch` says which tensors have a batch.
    :param directory: The folder, made if it is not there.
    :param formats: Any of :data:`FORMATS`, at least one.
    :param ir_batch: Batch size that is stored in the IR; ``None`` for dynamic.
    :param seed: Of the random inputs of the verification.
    :raises ExportError: If a format is not known, the directory has files of another format, the module cannot be
        exported, a file cannot be written, or its outputs differ from the module's by more than the tolerance.
    """
    _check_formats(formats)
    formats = list(dict.fromkeys(formats))
    directory = Path(directory)
    _check_directory(directory, formats)
    names = [name for format_ in formats for name in FORMATS[format_]]
    batch_sizes = (
        BATCH_SIZES if ir_batch is None or "ir" not in formats else tuple(dict.fromkeys((*BATCH_SIZES, ir_batch)))
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=directory) as temporary, evaluation_mode(module):
            backends = _write(module, example, Path(temporary), formats, ir_batch)
            report = verify(module, backends, verification_inputs(example, seed, batch_sizes))
            _move(names, Path(temporary), directory)
    except OSError as error:
        msg = f"The export cannot be written to {directory} ({first_line(error)}); choose a folder that is writable."
        raise ExportError(msg) from error
    return ExportedSubnet(tuple(directory / name for name in names), report)


def _check_formats(formats: Sequence[str]) -> None:
    unknown = [format_ for format_ in formats if format_ not in FORMATS]
    if unknown or not formats:
        msg = f"`formats` must be one or more of {', '.join(FORMATS)}, but got {list(formats)}."
        raise ExportError(msg)


def _check_directory(directory: Path, formats: Sequence[str]) -> None:
    others = itertools.chain.from_iterable(names for format_, names in FORMATS.items() if format_ not in formats)
    found = [name for name in others if (directory / name).exists()]
    if found:
        msg = (
            f"{directory} must hold files of one export only, but it has {', '.join(found)}, which an export as "
            f"{' and '.join(formats)} would leave beside the new files; choose another folder, or remove what it has."
        )
        raise ExportError(msg)


def _move(names: Sequence[str], source: Path, target: Path) -> None:
    for name in reversed(names):
        (target / name).unlink(missing_ok=True)
    for name in names:
        os.replace(source / name, target / name)


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
        backends["onnx"] = Backend(_load("onnx", lambda: onnx_runner(folder / "model.onnx", inputs), module, example))
    if "ir" in formats:
        save_ir(with_batch(to_openvino(onnx_model), ir_batch), folder / "model.xml")
        backends["ir"] = Backend(_load("ir", lambda: ir_runner(folder / "model.xml", inputs), module, example))
    if "torch" in formats:
        _save_torch(module, example, folder / "model.pt2")
        backends["torch"] = Backend(_load("torch", lambda: torch_runner(folder / "model.pt2"), module, example))
    return backends


def _load(format_: str, load: Callable[[], Runner], module: nn.Module, example: ExampleInput) -> Runner:
    try:
        return load()
    except Exception as error:  # each library has exceptions of its own
        tensors = [*module.state_dict().values(), *example.tensors()]
        others = {tensor.dtype for tensor in tensors if tensor.is_floating_point()} - {torch.float32}
        advice = FLOAT32 if others else f"leave {format_!r} out of `formats`"
        msg = f"The exported {FORMATS[format_][-1]} cannot be loaded again: {first_line(error)}; {advice}."
        raise ExportError(msg) from error


def _save_torch(module: nn.Module, example: ExampleInput, path: Path) -> None:
    batch, shapes = Dim("batch"), ShapesCollection()  # type: ignore[no-untyped-call]
    traced = example.with_batch(TRACED_BATCH)
    for tensor, given in zip(traced.tensors(), example.tensors(), strict=True):
        if example.has_batch(given):
            shapes[tensor] = {0: batch}
    try:
        program = torch.export.export(module, traced.args, traced.kwargs, dynamic_shapes=shapes, strict=False)
        torch.export.save(program, path)
    except OSError:
        raise
    except Exception as error:
        # As with ONNX, anything that the traced code or a pass raises.
        msg = f"{type(module).__name__} cannot be exported by torch.export: {first_line(error)}; {ANY_BATCH}."
        raise ExportError(msg) from error
