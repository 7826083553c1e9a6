"""What NNCF 3 has that NNCF 2 has otherwise."""

from __future__ import annotations

from nncf.torch.function_hook.graph.build_graph_mode import GraphBuilderMode
from nncf.torch.function_hook.hook_executor_mode import FunctionHookMode as HookExecutorMode

__all__ = ["GraphBuilderMode", "HookExecutorMode"]
