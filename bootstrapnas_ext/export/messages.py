"""Parts of the messages of errors."""

from __future__ import annotations

from bootstrapnas_ext.errors import first_line as first_line

#: What to do about a batch size that is fixed.
ANY_BATCH = (
    "its code must not have a batch size written in it or turn it into a number, as `len(x)` and `int(x.shape[0])` do; "
    "use `x.shape[0]`"
)

#: What to do about a type that a library does not compute with.
FLOAT32 = "convert the model and its example input to float32 before, with `.float()`"
