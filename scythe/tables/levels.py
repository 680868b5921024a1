"""Makes the index levels of result tables from specs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from pydantic import AnyUrl, BaseModel

from scythe.storage.file_values import kinds_of
from scythe.storage.uris import shown_uri

LEVEL_TYPES = frozenset({str, int, float, bool, type(None)})


def dump_levels(spec: BaseModel, excluded: set[str]) -> dict[str, Any]:
    """Return the values of a spec as JSON values, without those that JSON cannot hold."""
    return dump_all_levels([spec], excluded)[0]


def dump_all_levels(specs: Sequence[BaseModel], excluded: set[str]) -> list[dict[str, Any]]:
    """Return the levels of specs of one class, see `dump_levels`."""
    cls = type(specs[0])
    # What `model_dump` calls, at half of the time.
    to_python = cls.__pydantic_serializer__.to_python
    try:
        rows = [to_python(one, mode="json", by_alias=False, exclude=excluded) for one in specs]
    except Exception:  # noqa: BLE001 - a value that only the codec of specs can write
        rows = [_dump_each(spec, excluded) for spec in specs]
    for name in _url_fields(cls):
        for row in rows:
            if type(row.get(name)) is str:
                row[name] = shown_uri(row[name])
    return rows


@cache
def _url_fields(cls: type[BaseModel]) -> tuple[str, ...]:
    """Return the fields that may hold URLs, and with them passwords and signatures."""
    return tuple(
        name
        for name, field in cls.model_fields.items()
        if any(isinstance(k, type) and issubclass(k, AnyUrl) for k in kinds_of(field.annotation))
    )


def _dump_each(spec: BaseModel, excluded: set[str]) -> dict[str, Any]:
    """Return the levels of a spec, each written by itself."""
    to_python = type(spec).__pydantic_serializer__.to_python
    row: dict[str, Any] = {}
    for name in [*type(spec).model_fields, *(spec.model_extra or {})]:
        if name not in excluded:
            with suppress(Exception):
                row |= to_python(spec, mode="json", by_alias=False, include={name})
    return row


def scalars_of(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a level of an index can have."""
    return {name: value for name, value in values.items() if type(value) in LEVEL_TYPES}
