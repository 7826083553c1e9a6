"""Which NNCF is installed, and what this package takes from it under one name whichever it is."""

from __future__ import annotations

import nncf
from packaging.version import Version

from bootstrapnas_ext.errors import warn

_OLDEST, _NEWEST_TESTED, _TOO_NEW = (2, 19), (3, 4), (4, 0)
_VERSION = Version(nncf.__version__).release[:2]  # of a pre-release, too
if not _OLDEST <= _VERSION < _TOO_NEW:
    _MSG = f"NNCF 2.19 or 3.x is needed, but {nncf.__version__} is installed; run: pip install 'nncf>=2.19,<4'"
    raise ImportError(_MSG)
if _VERSION > _NEWEST_TESTED:
    _NEWEST = ".".join(map(str, _NEWEST_TESTED))
    warn(
        f"NNCF {nncf.__version__} is newer than {_NEWEST}, the newest that bootstrapnas_ext is tested with; if "
        f"something fails, run: pip install 'nncf=={_NEWEST}.*'"
    )

if _VERSION < (3, 0):
    from bootstrapnas_ext._nncf.nncf2 import GraphBuilderMode, HookExecutorMode, NNCFModule, NNCFNetwork, hand_over
else:
    from bootstrapnas_ext._nncf.nncf3 import GraphBuilderMode, HookExecutorMode, NNCFModule, NNCFNetwork, hand_over

__all__ = ["GraphBuilderMode", "HookExecutorMode", "NNCFModule", "NNCFNetwork", "hand_over"]
