"""ONNX of a plain module, with dynamic batch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export.messages import first_line
from bootstrapnas_ext.export.names import input_names, output_tensors
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode

#: Not 1, so that nothing in the traced code takes the batch for a dimension to broadcast or to squeeze.
TRACED_BATCH = 2


def to_onnx(module: nn.Module, example: ExampleInput) -> bytes:
    """
    Returns a module as an ONNX model that takes any batch size and that ONNX's checker accepts.

    PyTorch has two exporters. The one that traces goes first, because a search exports every subnet that it measures: a
    MobileNetV2 takes it 0.3 s, and the one on top of ``torch.export`` 6 s. That one knows more operations; it
    gets what the first refuses.

    :param module: A module on the CPU; it is exported in evaluation mode and left as it was.
    :param example: What to call it with; dimension 0 of every tensor is the batch.
    :raises ExportError: If the module fails, or uses an operation that neither exporter knows.
    :raises ModelError: If its outputs are not tensors.
    """
    example = example.with_batch(TRACED_BATCH)
    with evaluation_mode(module), torch.no_grad(), _plain_attention(), warnings.catch_warnings():
        # One exporter is deprecated, both guess aloud; the checks of the result do not depend on it.
        warnings.simplefilter("ignore")
        try:
            results = output_tensors(module(*example.args, **example.kwargs))
        except RuntimeError as error:
            msg = f"{type(module).__name__} cannot be run on the example input: {first_line(error)}"
            raise ExportError(msg) from error
        inputs = input_names(module, example)
        # ONNX has one namespace for inputs and outputs.
        outputs = [f"output_{name}" if name in inputs else name for name in results]
        # In evaluation mode itself, because the exporter gives all parts the mode that the outermost one had.
        flat = _Flat(module, example).eval()
        try:
            model = _export_traced(flat, example.tensors(), inputs, dict(zip(outputs, results.values(), strict=True)))
        except Exception as error:  # whatever the traced code, or one of the exporter's passes, happens to raise
            try:
                model = _export_program(flat, example.tensors(), inputs, outputs)
            except Exception as second_error:
                # Of the two messages, the first is the one that is short and names the operation.
                msg = f"{type(module).__name__} cannot be exported to ONNX: {first_line(error)}"
                raise ExportError(msg) from second_error
    return model


class _Flat(nn.Module):
    """A model that takes and returns plain tuples of tensors, so that no exporter needs to know any structure."""

    def __init__(self, model: nn.Module, example: ExampleInput) -> None:
        super().__init__()
        self.model = model
        self._example = example

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        following = iter(tensors)
        example = self._example.map(lambda _: next(following))
        return tuple(output_tensors(self.model(*example.args, **example.kwargs)).values())


def _export_traced(flat: _Flat, tensors: list[Tensor], inputs: list[str], outputs: Mapping[str, Tensor]) -> bytes:
    buffer: Any = io.BytesIO()  # the exporter takes a buffer, though its annotation names paths only
    named = {**dict(zip(inputs, tensors, strict=True)), **outputs}
    with _no_graph_dump():
        torch.onnx.export(
            flat,
            tuple(tensors),
            buffer,
            dynamo=False,
            input_names=inputs,
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name, tensor in named.items() if tensor.ndim},
        )
    return _checked(buffer.getvalue())


def _export_program(flat: _Flat, tensors: list[Tensor], inputs: list[str], outputs: list[str]) -> bytes:
    batch = Dim("batch")
    program = torch.onnx.export(
        flat,
        tuple(tensors),
        dynamo=True,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=(tuple({0: batch} if tensor.ndim else None for tensor in tensors),),
        verbose=False,
    )
    assert program is not None
    return _checked(program.model_proto.SerializeToString())


def _checked(model: bytes) -> bytes:
    onnx.checker.check_model(model)
    return model


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps attention out of its fused kernel, which ONNX does not have."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _no_graph_dump() -> Iterator[None]:
    """Keeps a failing export from printing the whole graph to stdout; PyTorch's own switch is turned on regardless."""
    library: Any = torch._C
    log = library._jit_onnx_log
    library._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        library._jit_onnx_log = log
