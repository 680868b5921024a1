"""Compares what readers find with what leaves gave."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pyarrow as pa


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def values(array: Any) -> list[Any]:
    if isinstance(array.type, pa.BaseExtensionType):
        return [None if pd.isna(value) else value for value in array.to_pandas()]
    return array.to_pylist()


def is_same(found: Any, given: Any) -> bool:
    """Return whether a reader gives the value that the leaf gave, of whatever type it makes it."""
    if isinstance(given, dict):
        missing = {name: None for name in found if name not in given}
        wanted = {**given, **missing}
        return set(found) == set(wanted) and all(is_same(found[n], wanted[n]) for n in wanted)
    if isinstance(given, (list, tuple)):
        return len(found) == len(given) and all(map(is_same, found, given))
    if given is None or (isinstance(given, float) and math.isnan(given)):
        return found is None or bool(pd.isna(found))
    if isinstance(given, int) and isinstance(found, float) and abs(given) > 2**53:
        return False  # numpy compares them as floats
    return bool(found == given)


def has_nanoseconds(value: Any) -> bool:
    return bool(getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0))


def texts(column: pa.Array) -> list[str | None]:
    """The text that `str` gives of each value of a column."""
    return [None if value is None else str(value) for value in values(column)]
