"""Which NNCF is installed, and what this package takes from it under one name whichever it is."""

from __future__ import annotations

import nncf

_OLDEST, _TOO_NEW = (2, 19), (4, 0)
_VERSION = tuple(int(part) for part in nncf.__version__.split(".")[:2])
if not _OLDEST <= _VERSION < _TOO_NEW:
    _MSG = f"NNCF 2.19 or 3.x is needed, but {nncf.__version__} is installed; run: pip install 'nncf>=2.19,<4'"
    raise ImportError(_MSG)

if _VERSION < (3, 0):
    from bootstrapnas_ext._nncf.nncf2 import GraphBuilderMode, HookExecutorMode, NNCFModule, NNCFNetwork, hand_over
else:
    from bootstrapnas_ext._nncf.nncf3 import GraphBuilderMode, HookExecutorMode, NNCFModule, NNCFNetwork, hand_over

__all__ = ["GraphBuilderMode", "HookExecutorMode", "NNCFModule", "NNCFNetwork", "hand_over"]
