"""Output of the commands: tables on a terminal, plain lines in a pipe, or JSON."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from pydantic import BaseModel

from scythe.texts import printable

_LEAST = 8  # characters to which a column is shortened
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def line(text: str = "") -> None:
    """Print a line."""
    sys.stdout.write(f"{printable(text)}\n")


def note(text: str) -> None:
    """Print a line on standard error, where it is in nobody's way."""
    sys.stderr.write(f"{printable(text)}\n")


def as_json(value: Any, *, in_one_line: bool = False) -> str:
    """Return a value as JSON. What JSON has no word for is null or text."""
    indent = None if in_one_line else 1
    return json.dumps(_plain(value), default=_of_object, indent=indent, ensure_ascii=False)


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    whole: Sequence[str] = (),
    *,
    as_named: bool = False,
) -> None:
    """Print rows: on a terminal in columns that fit it, else separated by tabs.

    Args:
        rows: The rows, by column.
        columns: The columns to print, in order.
        whole: The columns that are never shortened.
        as_named: Whether the header has the names as they are.
    """
    cells = [[*columns] if as_named else [name.upper() for name in columns]]
    cells += [[cell(row.get(name)) for name in columns] for row in rows]
    if not is_terminal():
        for row in cells:
            line("\t".join(row))
        return
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    room = shutil.get_terminal_size().columns - 2 * (len(columns) - 1)
    elastic = [number for number, name in enumerate(columns) if name not in whole]
    while sum(widths) > room and elastic:
        widest = max(elastic, key=lambda number: widths[number])
        if widths[widest] <= _LEAST:
            break
        widths[widest] -= min(sum(widths) - room, max(1, widths[widest] - _second(widths, widest)))
        widths[widest] = max(widths[widest], _LEAST)
    for row in cells:
        shown = [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        line("  ".join(shown).rstrip())


def cell(value: Any) -> str:
    """Return a value as it is in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        value = f"{value:.6g}"
    text = " ".join(str(value).split())
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def pairs(items: Mapping[str, Any]) -> None:
    """Print names and values, one pair in a line, those that are empty left out."""
    for name, value in items.items():
        for number, text in enumerate(str(value).splitlines()):
            line(f"{'' if number else name:<10}{text}")


def age(seconds: float) -> str:
    """Return a duration in one unit, such as `5 min`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "0 s"


def since(timestamp: float) -> str:
    """Return how long ago something was, such as `5 min`."""
    return age(max(0.0, time.time() - timestamp))


def size(count: float) -> str:
    """Return a number of bytes, such as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _second(widths: Sequence[int], widest: int) -> int:
    others = [width for number, width in enumerate(widths) if number != widest]
    return max(others, default=0)


def _cut(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else f"{cell[: width - 1]}…"


def _plain(value: Any) -> Any:
    """Return a value in which all numbers and texts are such as JSON has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {str(name): _plain(one) for name, one in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in cast("Sequence[Any]", value)]
    return value


def _of_object(value: Any) -> Any:
    """Return an object as what JSON has words for."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return value.hex() if isinstance(value, bytes) else str(value)
