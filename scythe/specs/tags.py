"""Values as JSON with tags that keep the types which JSON does not have."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AnyUrl
from pydantic_core import PydanticSerializationError, TzInfo, to_jsonable_python

from scythe.errors import SpecError

_TAG = "$"
DECIMAL_BITS = 14_000  # Python writes and reads integers of up to 4,300 digits in decimal


def _write_time(value: datetime | time) -> Any:
    """Write a time with the key of its zone, which its offset at one moment does not tell."""
    zone = value.tzinfo
    if zone is None and not value.fold:
        return value.isoformat()
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _write_zone(zone)]


def _write_zone(zone: tzinfo | None) -> Any:
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    if not isinstance(zone, (TzInfo, timezone)):
        return None
    offset = cast("timedelta", zone.utcoffset(None))
    if isinstance(zone, TzInfo):
        return {"offset": offset.total_seconds()}
    name = zone.tzname(None)
    own_name = None if name == timezone(offset).tzname(None) else name
    return [offset.days, offset.seconds, offset.microseconds, own_name]


def _read_time(kind: Callable[[str], Any], value: Any) -> Any:
    if isinstance(value, str):
        return kind(value)
    text, fold, zone = cast("tuple[str, int, Any]", value)
    return kind(text).replace(tzinfo=_read_zone(zone), fold=fold)


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    if isinstance(zone, dict):
        return TzInfo(cast("dict[str, float]", zone)["offset"])
    *parts, name = cast("list[Any]", zone)
    offset = timedelta(*parts)
    if name is None:
        return timezone(offset) if offset else UTC
    return timezone(offset, name)


_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", _write_time),
    date: ("date", date.isoformat),
    time: ("time", _write_time),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", str),
    complex: ("complex", lambda value: [value.real, value.imag]),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    bytearray: ("bytearray", lambda value: base64.b64encode(value).decode()),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: int(value, 16),
    "datetime": lambda value: _read_time(datetime.fromisoformat, value),
    "date": date.fromisoformat,
    "time": lambda value: _read_time(time.fromisoformat, value),
    "timedelta": lambda value: timedelta(*value),
    "decimal": Decimal,
    "uuid": UUID,
    "complex": lambda value: complex(*value),
    "bytes": base64.b64decode,
    "bytearray": lambda value: bytearray(base64.b64decode(value)),
    "path": Path,
    "tuple": lambda value: tuple(untag(item) for item in value),
    "set": lambda value: {untag(item) for item in value},
    "frozenset": lambda value: frozenset(untag(item) for item in value),
    "map": lambda value: {untag(key): untag(item) for key, item in value},
}


def tag(value: Any, where: str, *, converts_times: bool = False) -> Any:  # noqa: C901, PLR0911
    """Write a value as what JSON has.

    Args:
        value: A value as `model_dump` gives it.
        where: The name of the field, for the error.
        converts_times: Whether a time of pandas is written as one of Python's.

    Raises:
        SpecError: It is of a type that cannot be written.
    """
    if type(value) is int and value.bit_length() > DECIMAL_BITS:
        return {_TAG: "int", "v": hex(value)}
    if value is None or type(value) in (str, int, float, bool):
        return value
    again = partial(tag, where=where, converts_times=converts_times)
    if isinstance(value, Enum):
        return again(value.value)
    if isinstance(value, dict):
        return _tag_dict(cast("dict[Any, Any]", value), again)
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items = [again(item) for item in cast("list[Any]", value)]
            return items if kind is list else {_TAG: kind.__name__, "v": items}
    if converts_times and type(value).__module__.startswith("pandas"):
        value = _time_of_python(value)
    if type(value) in _WRITERS:
        name, write = _WRITERS[type(value)]
        return {_TAG: name, "v": write(value)}
    if isinstance(value, Path):
        return {_TAG: "path", "v": str(value)}
    if isinstance(value, AnyUrl):
        return str(value)
    return _plain_number_or_text(value, where)


def untag(value: Any) -> Any:
    """Return the value that `tag` wrote."""
    if isinstance(value, list):
        return [untag(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        tagged = cast("dict[str, Any]", value)
        if _TAG in tagged:
            return _READERS[tagged[_TAG]](tagged["v"])
        return {key: untag(item) for key, item in tagged.items()}
    return value


def _time_of_python(value: Any) -> Any:
    """Return a time of pandas as one of Python's; that nanoseconds are lost is seen later."""
    if isinstance(value, timedelta):
        return value.to_pytimedelta()  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, datetime) and value == value:  # noqa: PLR0124 - NaT
        return value.to_pydatetime(warn=False)  # pyright: ignore[reportAttributeAccessIssue]
    return value


def _plain_number_or_text(value: Any, where: str) -> Any:
    for base in (str, int, float):  # subclasses, such as numpy's float64
        if isinstance(value, base):
            return base(value)
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise SpecError(
            f"Field {where!r} has a value of type {type(value).__name__}, which cannot be carried "
            "to a leaf: give the field a serializer and a validator for JSON that bring back the "
            "same value (an array with the same dtype)."
        ) from error


def _tag_dict(value: dict[Any, Any], write: Callable[[Any], Any]) -> Any:
    if all(type(key) is str and not key.startswith(_TAG) for key in value):
        return {key: write(item) for key, item in value.items()}
    return {_TAG: "map", "v": [[write(key), write(item)] for key, item in value.items()]}
