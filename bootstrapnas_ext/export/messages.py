"""Other libraries' errors within messages of one line."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """
    Returns the first line of an error's message, or its type if it has none.

    :param error: Any exception.
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
