"""ONNX of a plain module, with dynamic batch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export.messages import ANY_BATCH, first_line
from bootstrapnas_ext.export.names import input_names, output_tensors
from bootstrapnas_ext.export.runners import onnx_runner
from bootstrapnas_ext.export.verify import Backend, verify
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode

#: Not 1, so that nothing in the traced code takes the batch for a dimension to broadcast or to squeeze.
TRACED_BATCH = 2

#: What a traced model is tried with, so that a batch size that tracing took for a constant is found.
OTHER_BATCH = 1

Axes = Mapping[int, str]
"""Dimension to its name, of those of a tensor that change with the batch size."""


def to_onnx(module: nn.Module, example: ExampleInput) -> bytes:
    """
    Returns a module as an ONNX model that takes any batch size and that ONNX's checker accepts.

    PyTorch has two exporters. The one that traces goes first, because a search exports every subnet that it measures: a
    MobileNetV2 takes it 0.3 s, and the one on top of ``torch.export`` 6 s. That one knows more operations, and does
    not take a batch size for a constant; it gets what the first refuses, and what then computes something else than
    the module for another batch size.

    :param module: A module on the CPU; it is exported in evaluation mode and left as it was.
    :param example: What to call it with; :meth:`ExampleInput.has_batch` says which tensors have a batch.
    :raises ExportError: If the module fails, or has a fixed batch size, or uses an operation that neither exporter
        knows.
    :raises ModelError: If its outputs are not tensors.
    """
    traced, other = example.with_batch(TRACED_BATCH), example.with_batch(OTHER_BATCH)
    with evaluation_mode(module), torch.no_grad(), _plain_attention(), warnings.catch_warnings():
        # One exporter is deprecated, both guess aloud; the checks of the result do not depend on it.
        warnings.simplefilter("ignore")
        results, expected = _run(module, traced, TRACED_BATCH), _run(module, other, OTHER_BATCH)
        # In evaluation mode itself, because the exporter gives all parts the mode that the outermost one had.
        flat = _Flat(module, traced).eval()
        names = input_names(module, traced)
        inputs = {
            name: {0: "batch"} if example.has_batch(tensor) else {}
            for name, tensor in zip(names, example.tensors(), strict=True)
        }
        # ONNX has one namespace for inputs and outputs.
        outputs = {
            f"output_{name}" if name in inputs else name: _changing(name, results[name], expected[name])
            for name in results
        }
        errors: list[Exception] = []
        for export in (_export_traced, _export_program):
            try:
                model = export(flat, traced.tensors(), inputs, outputs)
                _check_other_batch(model, names, other.tensors(), expected.values())
                return model
            except Exception as error:  # whatever the traced code, or one of the exporter's passes, happens to raise
                errors.append(error)
    # Of the two messages, the first is the one that is short and names the operation.
    advice = ANY_BATCH if isinstance(errors[0], ExportError) else "write what it names in other operations"
    msg = f"{type(module).__name__} cannot be exported to ONNX: {first_line(errors[0]).rstrip('.')}; {advice}."
    raise ExportError(msg) from errors[1]


def renamed(model: bytes, inputs: Sequence[str] | None, outputs: Sequence[str] | None) -> bytes:
    """
    Returns an ONNX model with other names of its inputs and outputs.

    :param model: The model.
    :param inputs: Names of all inputs in order; as they are if not given.
    :param outputs: Names of all outputs in order; as they are if not given.
    :raises ExportError: If there are more or less names.
    """
    if inputs is None and outputs is None:
        return model
    loaded = onnx.load_from_string(model)
    names: dict[str, str] = {}
    for kind, values, given in (("input", loaded.graph.input, inputs), ("output", loaded.graph.output, outputs)):
        if given is not None and len(given) != len(values):
            found = [value.name for value in values]
            msg = f"`{kind}_names` must name {len(values)} {kind}s, which are {found}, but got {list(given)}."
            raise ExportError(msg)
        names |= {value.name: name for value, name in zip(values, given or (), strict=False)}
    for part in (*loaded.graph.input, *loaded.graph.output):
        part.name = names.get(part.name, part.name)
    for node in loaded.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    onnx.checker.check_model(loaded)
    result: bytes = loaded.SerializeToString()
    return result


def _run(module: nn.Module, example: ExampleInput, batch: int) -> dict[str, Tensor]:
    try:
        return output_tensors(module(*example.args, **example.kwargs))
    except RuntimeError as error:
        msg = (
            f"{type(module).__name__} cannot be run on the example input with a batch of {batch}: {first_line(error)}; "
            "it must run with a batch of any size."
        )
        raise ExportError(msg) from error


def _changing(name: str, traced: Tensor, other: Tensor) -> Axes:
    """Returns the dimensions of an output that change with the batch size; only the batch itself is named so."""
    sizes = list(zip(traced.shape, other.shape, strict=False))
    batch = {0: "batch"} if sizes[:1] == [(TRACED_BATCH, OTHER_BATCH)] else {}
    return {index: f"{name}_{index}" for index, (one, two) in enumerate(sizes) if one != two} | batch


def _check_other_batch(
    model: bytes, names: Sequence[str], tensors: Sequence[Tensor], expected: Iterable[Tensor]
) -> None:
    try:
        run = onnx_runner(model, names)
    except Exception:  # not all of ONNX is in ONNX Runtime, such as convolutions in float64; others may run it
        return

    def finite(results: Iterable[Tensor]) -> list[Tensor]:
        # Whether the model is any good is not the question here.
        return [tensor.nan_to_num() for tensor in results]

    backend = Backend(lambda *given: finite(run(*given)))
    verify(lambda *_: finite(expected), {"the ONNX model": backend}, [ExampleInput(tuple(tensors))])


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


def _export_traced(
    flat: _Flat, tensors: Sequence[Tensor], inputs: Mapping[str, Axes], outputs: Mapping[str, Axes]
) -> bytes:
    buffer: Any = io.BytesIO()  # the exporter takes a buffer, though its annotation names paths only
    with _no_graph_dump():
        torch.onnx.export(
            flat,
            tuple(tensors),
            buffer,
            dynamo=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in {**inputs, **outputs}.items()},
        )
    return _checked(buffer.getvalue())


def _export_program(
    flat: _Flat, tensors: Sequence[Tensor], inputs: Mapping[str, Axes], outputs: Mapping[str, Axes]
) -> bytes:
    batch = Dim("batch")
    program = torch.onnx.export(
        flat,
        tuple(tensors),
        dynamo=True,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=(tuple(dict.fromkeys(axes, batch) for axes in inputs.values()),),
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
