"""Rows as a table, for a terminal and for Markdown, and what is wrong with a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]
EXTRACTED_LIMIT = 1e-4
IR_LIMIT = 1e-3
RATIO_LIMIT = 2.0


def faults(row: Row) -> list[str]:
    """Returns what of a row breaks the criteria."""
    if row["error"]:
        return [f"{row['stage']}: {row['error']}"]
    return list(_broken(row))


def _broken(row: Row) -> Iterator[str]:
    if not row["exact"]:
        yield "maximum differs"
    if not row["extracted"] <= EXTRACTED_LIMIT:
        yield f"extracted > {EXTRACTED_LIMIT:g}"
    if "ir" in row and not row["ir"] <= IR_LIMIT:
        yield f"IR > {IR_LIMIT:g}"
    if row["macs_ratio"] < RATIO_LIMIT:
        yield f"ratio < {RATIO_LIMIT:g}"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row["model"],
    "build s": lambda row: f"{row['build_s']:.1f}",
    "analysis s": lambda row: f"{row['analysis_s']:.1f}",
    "forward s": lambda row: f"{row['forward_s']:.2f}",
    "ops": lambda row: str(row["operations"]),
    "exact": lambda row: "yes" if row["exact"] else "no",
    "subnets": lambda row: f"1 + {row['subnets']}",
    "extracted": lambda row: f"{row['extracted']:.0e}",
    "IR": lambda row: f"{row['ir']:.0e}",
    "widths": lambda row: str(row["widths"]),
    "kernels": lambda row: str(row["kernels"]),
    "blocks": lambda row: str(row["blocks"]),
    "static": lambda row: str(sum(map(len, row["static"].values()))),
    "refused": lambda row: str(len(row["refused"])),
    "GMACs": lambda row: f"{row['macs'] / 1e9:.3g}",
    "M weights": lambda row: f"{row['weights'] / 1e6:.3g}",
    "MACs ratio": lambda row: f"{row['macs_ratio']:.1f}",
    "at full depth": lambda row: f"{row['full_depth_macs_ratio']:.1f}",
    "weights ratio": lambda row: f"{row['weights_ratio']:.1f}",
    "MACs counted": lambda row: "equal" if row["macs_equal"] else f"{row['counted_macs'] / max(row['macs'], 1):.3g} x",
    "peak GiB": lambda row: f"{row['peak_mib'] / 1024:.1f}",
    "status": lambda row: f"{row['stage']} failed" if row["error"] else "; ".join(faults(row)) or "ok",
}
"""Title to text of a row; a row that ended early has no text for what it does not know."""


def rich_table(rows: Sequence[Row]) -> Group:
    """
    Returns the rows for a terminal, and the errors below.

    :param rows: In the order of the table.
    """
    table = Table(*COLUMNS, title=f"{sum(not faults(row) for row in rows)} of {len(rows)} models without a fault")
    table.columns[0].overflow = "fold"
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    return Group(table, *map(Text, _errors(rows)))


def markdown_table(rows: Sequence[Row]) -> str:
    """
    Returns the rows for a document, and the errors below.

    :param rows: In the order of the table.
    """
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *map(_cells, rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + "".join(f"\n- {error}" for error in _errors(rows)) + "\n"


def _errors(rows: Sequence[Row]) -> list[str]:
    return [f"{row['model']}: {fault}" for row in rows if row["error"] for fault in faults(row)]


def _cells(row: Row) -> list[str]:
    return [_cell(text, row) for text in COLUMNS.values()]


def _cell(text: Callable[[Row], str], row: Row) -> str:
    try:
        return text(row)
    except KeyError:
        return "-"
