"""Tables of results, as they are printed and as they stand in docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Table:
    """Prints its rows as they come, in Markdown.

    Args:
        columns: The headings.
    """

    def __init__(self, *columns: str) -> None:
        self._print(columns)
        self._print(["---"] * len(columns))

    def row(self, *cells: Any) -> None:
        """Print a row; numbers are shown with three digits."""
        self._print([_show(cell) for cell in cells])

    def _print(self, cells: Sequence[str]) -> None:
        print(f"| {' | '.join(cells)} |", flush=True)


def _show(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
