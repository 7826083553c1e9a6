"""What NNCF 3 has that NNCF 2 has otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nncf.torch.function_hook.graph.build_graph_mode import GraphBuilderMode
from nncf.torch.function_hook.hook_executor_mode import FunctionHookMode as HookExecutorMode
from torch import nn

__all__ = ["GraphBuilderMode", "HookExecutorMode", "NNCFModule", "NNCFNetwork", "hand_over"]


class NNCFNetwork(nn.Module):
    """The type of models that NNCF 2's ``create_compressed_model`` returns: on NNCF 3, there is none."""


class NNCFModule(nn.Module):
    """The type of the layers of such a model."""


@contextmanager
def hand_over() -> Iterator[None]:
    """Changes nothing: functions of PyTorch hand over to function modes, since NNCF 3 patches none of them."""
    yield
