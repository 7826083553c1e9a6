"""Exported files as functions that are called like the module they came from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from bootstrapnas_ext.errors import ExportError
from bootstrapnas_ext.export.messages import FLOAT32
from bootstrapnas_ext.export.openvino import DEVICE, core, with_batch

Runner = Callable[..., Any]


def onnx_runner(model: Path | bytes, names: Sequence[str]) -> Runner:
    """
    Returns an ONNX model as a function, run by ONNX Runtime on the CPU.

    :param model: The ``.onnx`` file, or what is in it.
    :param names: Names of the input tensors in the order of ``ExampleInput.tensors()``.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised too, so that printing them says nothing new
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    used = {port.name for port in session.get_inputs()}

    def run(*args: Any, **kwargs: Any) -> list[Tensor]:
        feeds = {name: value for name, value in _feeds(names, args, kwargs).items() if name in used}
        return [torch.from_numpy(result) for result in session.run(None, feeds)]

    return run


def ir_runner(path: Path, names: Sequence[str]) -> Runner:
    """
    Returns an IR file as a function of any batch, run by OpenVINO on the CPU in float32.

    Inputs that fit the stored shapes are run on the model as it is stored, others on one of dynamic batch.

    :param path: The ``.xml`` file.
    :param names: Names of the input tensors in the order of ``ExampleInput.tensors()``.
    """
    model = core().read_model(path)
    # A port also has the names of operations that were simplified away.
    shapes = {name: port.partial_shape for port in model.inputs for name in port.get_names()}
    stored = _compile(model)

    @functools.cache
    def dynamic() -> ov.CompiledModel:
        return _compile(with_batch(model, None))

    def run(*args: Any, **kwargs: Any) -> list[Tensor]:
        feeds = {name: value for name, value in _feeds(names, args, kwargs).items() if name in shapes}
        fits = all(shapes[name].compatible(ov.PartialShape(value.shape)) for name, value in feeds.items())
        compiled = stored if fits else dynamic()
        results = compiled(feeds)
        return [torch.from_numpy(results[port]) for port in compiled.outputs]

    return run


def torch_runner(path: Path) -> Runner:
    """
    Returns a ``.pt2`` file as a function.

    :param path: A file that this process wrote: PyTorch's loader of this format may unpickle.
    """
    module: Runner = torch.export.load(path).module()
    return module


def _compile(model: ov.Model) -> ov.CompiledModel:
    # Left alone, OpenVINO computes in bfloat16 where the CPU has it, a thousand times less exact.
    return core().compile_model(model, DEVICE, {"INFERENCE_PRECISION_HINT": "f32"})


def _feeds(names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, NDArray[Any]]:
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    try:
        return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    except TypeError as error:
        raise ExportError(f"NumPy has no such numbers ({error}); {FLOAT32}.") from error
