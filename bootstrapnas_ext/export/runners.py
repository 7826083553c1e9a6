"""Exported files as functions that are called like the module they came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from bootstrapnas_ext.export.openvino import DEVICE, core, with_batch

Runner = Callable[..., Any]


def onnx_runner(path: Path, names: Sequence[str]) -> Runner:
    """
    Returns an ONNX file as a function, run by ONNX Runtime on the CPU.

    :param path: The ``.onnx`` file.
    :param names: Names of the input tensors in the order of ``ExampleInput.tensors()``.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised too, so that printing them says nothing new
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    used = {port.name for port in session.get_inputs()}

    def run(*args: Any, **kwargs: Any) -> list[Tensor]:
        feeds = {name: value for name, value in _feeds(names, args, kwargs).items() if name in used}
        return [torch.from_numpy(result) for result in session.run(None, feeds)]

    return run


def ir_runner(path: Path, names: Sequence[str]) -> Runner:
    """
    Returns an IR file as a function of dynamic batch, run by OpenVINO on the CPU in float32.

    :param path: The ``.xml`` file.
    :param names: Names of the input tensors in the order of ``ExampleInput.tensors()``.
    """
    # Left alone, OpenVINO computes in bfloat16 where the CPU has it, a thousand times less exact.
    compiled = core().compile_model(
        with_batch(core().read_model(path), None), DEVICE, {"INFERENCE_PRECISION_HINT": "f32"}
    )
    used = {port.any_name for port in compiled.inputs}

    def run(*args: Any, **kwargs: Any) -> list[Tensor]:
        feeds = {name: value for name, value in _feeds(names, args, kwargs).items() if name in used}
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


def _feeds(names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, NDArray[Any]]:
    tensors = [leaf.numpy() for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return dict(zip(names, tensors, strict=True))
