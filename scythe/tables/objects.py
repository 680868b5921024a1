"""Converts columns of Python objects in pandas and polars."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, cast

from scythe.errors import OutputError
from scythe.tables.casts import texts_of

_KNOWN = (bool, int, float, str, bytes, dt.date, dt.timedelta, Decimal)
_NUMBERS: set[Any] = {int, float}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")


def plain_values(name: Any, values: Iterable[Any]) -> list[Any]:
    """Convert Python objects to values that Arrow supports; without a common type, to text.

    Args:
        name: The column.
        values: Its values; None, NaN, NA and NaT are missing.

    Raises:
        OutputError: The text of a value would be its address in memory, or only a part of it.
    """
    import pyarrow as pa

    found = list(map(_plain, values))
    if _have_type(found):
        try:
            pa.array(found)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            pass
        else:
            return found
    texts = texts_of(found)
    for value, text in zip(found, texts, strict=True):
        is_text = isinstance(value, str)
        if hasattr(value, "shape") or (text and not is_text and _ADDRESS.search(text)):
            raise OutputError(
                f"column {name!r} holds objects of type {type(value).__name__}, of which a table "
                "can only hold the text: store their values in columns of their own"
            )
    return texts


def is_plain_text(values: Iterable[Any]) -> bool:
    """Return whether all values are text or missing."""
    return all(isinstance(value, str) or _plain(value) is None for value in values)


def _plain(value: Any) -> Any:
    """Convert a value of numpy or pandas to Python; None for a missing one."""
    import numpy as np

    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return list(array) if array.dtype.kind in "mM" else array.tolist()
    if isinstance(value, np.generic) and not isinstance(value, (np.datetime64, np.timedelta64)):
        value = value.item()
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return None
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _have_type(values: Sequence[Any]) -> bool:
    """Return whether Arrow has a type for all values that is that of each of them."""
    some = [value for value in values if value is not None]
    lists = [value for value in some if isinstance(value, (list, tuple))]
    dicts = [value for value in some if isinstance(value, dict)]
    if len(lists) == len(some):
        return not some or _have_type(list(chain.from_iterable(lists)))
    if len(dicts) == len(some):
        names = {name for one in dicts for name in one}
        return all(_have_type([one.get(name) for one in dicts]) for name in names)
    kinds = set(map(_kind, some))
    return kinds == _NUMBERS or (len(kinds) == 1 and None not in kinds)


def _kind(value: Any) -> Any:
    """Return the class by which Arrow knows a value, and whether it has a zone; None for none."""
    import numpy as np

    if isinstance(value, dt.time):
        return None if value.tzinfo else dt.time
    if isinstance(value, dt.datetime):
        return (dt.datetime, value.tzinfo is None)
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return type(value)
    return next((base for base in _KNOWN if isinstance(value, base)), None)
