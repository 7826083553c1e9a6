"""What NNCF 2.19 has otherwise than NNCF 3: its function modes, with the methods of NNCF 3's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nncf.torch.function_hook.graph import build_graph_mode
from nncf.torch.function_hook.hook_executor_mode import FunctionHookMode
from nncf.torch.layer_utils import _NNCFModuleMixin as NNCFModule
from nncf.torch.nncf_network import NNCFNetwork

__all__ = ["GraphBuilderMode", "HookExecutorMode", "NNCFModule", "NNCFNetwork", "hand_over"]


@contextmanager
def hand_over() -> Iterator[None]:
    """
    Lets functions of PyTorch hand over to a function mode as without NNCF, for the length of a ``with`` block.

    NNCF 2's patched operators take the handing over for an operation, inside of which no quantizer runs.
    """
    functions: Any = torch.nn.functional
    patched = functions.handle_torch_function
    functions.handle_torch_function = getattr(patched, "_original_op", patched)
    try:
        yield
    finally:
        functions.handle_torch_function = patched


class _OneStepNames:
    """Names an operation and counts it in one step, in the place of NNCF 2's two."""

    def get_next_op_call_name(self, fn_name: str) -> str:
        name: str = super().get_current_executed_op_name(fn_name)  # type: ignore[misc]
        super().register_op(fn_name)  # type: ignore[misc]
        return name

    def get_current_executed_op_name(self, fn_name: str) -> str:
        return self.get_next_op_call_name(fn_name)

    def register_op(self, fn_name: str) -> None:
        """Does nothing, since the name was counted when it was made."""


class GraphBuilderMode(_OneStepNames, build_graph_mode.GraphBuilderMode):
    """NNCF's graph builder."""


class HookExecutorMode(_OneStepNames, FunctionHookMode):
    """NNCF's executor of hooks."""
