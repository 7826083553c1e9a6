"""OpenVINO models and IR files."""

from __future__ import annotations

import functools
from pathlib import Path

import openvino as ov
from openvino._offline_transformations import apply_moc_transformations

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export.messages import ANY_BATCH

#: The device that everything is measured and verified on.
DEVICE = "CPU"


@functools.cache
def core() -> ov.Core:
    """Returns the one OpenVINO core of the process; plugins load once."""
    return ov.Core()


def to_openvino(onnx_model: bytes) -> ov.Model:
    """
    Returns an ONNX model as an OpenVINO model in memory, of the same dynamic batch.

    The graph is simplified as ``openvino.convert_model`` does, which NNCF's quantization needs to find its patterns.
    Reading and simplifying a MobileNetV2 takes 0.05 s here, ``convert_model`` takes 1 s for the same.

    :param onnx_model: What :func:`bootstrapnas_ext.export.to_onnx` returned.
    :raises ExportError: If OpenVINO cannot read it.
    """
    try:
        model = core().read_model(onnx_model)
        apply_moc_transformations(model, cf=False, smart_reshape=False)
    except RuntimeError as error:
        msg = f"OpenVINO cannot convert the ONNX model: {str(error).strip().splitlines()[-1]}"
        raise ExportError(msg) from error
    for port in model.inputs:
        # Says which dimension is the batch, for `ov.set_batch` and for `benchmark_app -b`.
        if port.partial_shape.rank.get_length() and port.partial_shape[0].is_dynamic:
            port.node.layout = ov.Layout("N...")
    return model


def with_batch(model: ov.Model, batch: int | None) -> ov.Model:
    """
    Returns a copy of another batch size; inputs without a batch stay as they are.

    :param model: What :func:`to_openvino` returned, or what was read from an IR file of it.
    :param batch: The batch size, at least 1; ``None`` for dynamic.
    :raises ExportError: If the graph has another batch size written into it.
    """
    model = model.clone()
    if not any(port.node.layout.has_name("N") for port in model.inputs):
        return model
    try:
        ov.set_batch(model, ov.Dimension(-1 if batch is None else batch))
    except RuntimeError as error:
        msg = f"The model does not run with a batch of {batch or 'any size'}; {ANY_BATCH}."
        raise ExportError(msg) from error
    return model


def save_ir(model: ov.Model, path: Path) -> None:
    """
    Writes ``path`` and, next to it, its ``.bin``. Weights keep their precision.

    :param model: The model.
    :param path: A path that ends in ``.xml``.
    :raises ExportError: If the files cannot be written.
    """
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        msg = f"OpenVINO cannot write {path}: {str(error).strip().splitlines()[-1]}"
        raise ExportError(msg) from error
