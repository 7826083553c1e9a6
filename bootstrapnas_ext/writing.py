"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """
    Gives another path to write to, which takes the place of the file at the end; after an error it is removed.

    .. code-block:: python

        with whole_file(path) as partial:
            partial.write_text(text)

    :param path: Of the file, in a folder that exists. What is there stays whole until then.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
