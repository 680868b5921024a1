"""The levels that a spec gives to the index of result tables."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pydantic import BaseModel

LEVEL_TYPES = frozenset({str, int, float, bool, type(None)})


def dump_levels(spec: BaseModel, excluded: set[str]) -> dict[str, Any]:
    """Return the values of a spec as JSON has them, without those that JSON cannot hold."""
    # What `model_dump` calls, at half of the time.
    to_python = type(spec).__pydantic_serializer__.to_python
    try:
        return to_python(spec, mode="json", by_alias=False, exclude=excluded)
    except Exception:  # noqa: BLE001 - a value that only the codec of specs can write
        row: dict[str, Any] = {}
        for name in [*type(spec).model_fields, *(spec.model_extra or {})]:
            if name not in excluded:
                with suppress(Exception):
                    row |= to_python(spec, mode="json", by_alias=False, include={name})
        return row


def scalars_of(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a level of an index can have."""
    return {name: value for name, value in values.items() if type(value) in LEVEL_TYPES}
