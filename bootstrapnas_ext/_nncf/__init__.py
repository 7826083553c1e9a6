"""The only door to NNCF's inside: tracing, hook registration, and running a model with hooks.

NNCF names every operation by the module that calls it, the function and a counter (``layer1/0/conv1/conv2d/0``), and
addresses its arguments by port numbers. A pre-op hook is an ``nn.Module`` that gets the argument and returns what the
operation sees instead.

NNCF 2.19 and NNCF 3 both have these hooks; what differs is in ``nncf2`` and ``nncf3``, and ``host`` picks one of them.
"""

from bootstrapnas_ext._nncf.copies import bare_copy, copy_of
from bootstrapnas_ext._nncf.hook_mode import HookMode
from bootstrapnas_ext._nncf.network import is_compressed
from bootstrapnas_ext._nncf.tracing import trace
from bootstrapnas_ext._nncf.wrapping import add_module, add_pre_hook, original_forward, unwrap, wrap

__all__ = [
    "HookMode",
    "add_module",
    "add_pre_hook",
    "bare_copy",
    "copy_of",
    "is_compressed",
    "original_forward",
    "trace",
    "unwrap",
    "wrap",
]
