"""Which NNCF is installed, and what this package takes from it under one name whichever it is."""

from __future__ import annotations

import nncf

OLDEST, TOO_NEW = (2, 19), (4, 0)
_VERSION = tuple(int(part) for part in nncf.__version__.split(".")[:2])
if not OLDEST <= _VERSION < TOO_NEW:
    _MSG = f"NNCF 2.19 or 3.x is needed, but {nncf.__version__} is installed; run: pip install 'nncf>=2.19,<4'"
    raise ImportError(_MSG)

IS_NNCF2 = _VERSION < (3, 0)
"""Whether NNCF has its own ``create_compressed_model`` and the older names of its function hooks."""

if IS_NNCF2:
    from bootstrapnas_ext._nncf.nncf2 import GraphBuilderMode, HookExecutorMode
else:
    from bootstrapnas_ext._nncf.nncf3 import GraphBuilderMode, HookExecutorMode

__all__ = ["IS_NNCF2", "GraphBuilderMode", "HookExecutorMode"]
