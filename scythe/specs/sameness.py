"""Compares specs exactly: values, types, time zones, folds, signs of zero, order of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from math import copysign
from operator import attrgetter, itemgetter
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel

# Two of one of these types are the same where they are equal.
_PLAIN = frozenset({str, int, float, bool, type(None), date, timedelta, UUID})
_TIMES = frozenset({datetime, time, type(None)})
_MISSING = object()

get_extras = attrgetter("__pydantic_extra__")
_get_private = attrgetter("__pydantic_private__")


def differing_fields(one: BaseModel, other: BaseModel) -> list[str]:
    """Return the fields and private attributes in which two models of one class differ."""
    if _is_plainly_same(vars(one), vars(other)) and not (get_extras(one) or get_extras(other)):
        return _differing_names(_get_private(one) or {}, _get_private(other) or {})
    left = _values(one)
    right = _values(other)
    differing = _differing_names(left, right)
    return differing + _differing_names(_get_private(one) or {}, _get_private(other) or {})


def _differing_names(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    names = dict.fromkeys([*left, *right])
    return [n for n in names if not is_same(left.get(n, _MISSING), right.get(n, _MISSING))]


def _is_plainly_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether a quick comparison finds two sets of values equal, as with most specs."""
    kinds = list(map(type, one.values()))
    return _PLAIN.issuperset(kinds) and one == other and kinds == list(map(type, other.values()))


def compare_models(ones: Sequence[BaseModel], others: Sequence[BaseModel]) -> list[bool]:
    """Return for each pair of models of one class whether they are equal; False in doubt."""
    left = list(map(vars, ones))
    right = list(map(vars, others))
    same = [True] * len(ones)
    cls = type(ones[0])
    try:
        getters = map(itemgetter, cls.model_fields)
        values = [(list(map(get, left)), list(map(get, right))) for get in getters]
        extras = list(map(get_extras, ones)), list(map(get_extras, others))
        if any(extras[0]) or any(extras[1]):
            values.append(extras)
        if cls.__private_attributes__:
            values.append((list(map(_get_private, ones)), list(map(_get_private, others))))
        for some, those in values:
            if _is_column_same(some, those):
                continue
            pairs = zip(same, some, those, strict=True)
            same = [known and is_same(one, other) for known, one, other in pairs]
    except Exception:  # noqa: BLE001 - a field that was never set, or values that do not compare
        return [False] * len(ones)
    return same


def _is_column_same(some: list[Any], those: list[Any]) -> bool:
    """Return whether a quick comparison finds a field equal in all models."""
    kinds = list(map(type, some))
    if _PLAIN.issuperset(kinds):
        return some == those and kinds == list(map(type, those))
    if not _TIMES.issuperset(kinds) or any(v and (v.tzinfo or v.fold) for v in some):
        return False
    return some == those and kinds == list(map(type, those))


def _values(model: BaseModel) -> dict[str, Any]:
    """Return the values of the fields, without cached properties."""
    held = model.__dict__
    values = {name: held[name] for name in type(model).model_fields if name in held}
    return {**values, **(model.model_extra or {})}


def is_same(one: Any, other: Any) -> bool:
    """Return whether the value read back, `other`, equals the written one.

    Two conversions count as the same: a whole number that is the default of a float field, which
    pydantic leaves unvalidated, and a time of pandas in a field for one of Python's.
    """
    try:
        return _is_same(one, other)
    except Exception:  # noqa: BLE001 - values whose comparison fails are not known to be the same
        return False


def _is_same(one: Any, other: Any) -> bool:  # noqa: PLR0911 - one line for each kind of value
    if type(one) is not type(other):
        return _is_converted(one, other)
    if compare := _COMPARISONS.get(type(one)):
        return compare(one, other)
    if isinstance(one, BaseModel):
        return not differing_fields(one, other)
    if isinstance(one, dict):
        return _is_same_dict(cast("dict[Any, Any]", one), other)
    if isinstance(one, (list, tuple)):
        pairs = zip(cast("list[Any]", one), other, strict=False)
        return len(one) == len(other) and all(_is_same(a, b) for a, b in pairs)
    if isinstance(one, (set, frozenset)):
        return _is_same_set(cast("set[Any]", one), other)
    if is_dataclass(one):
        names = [field.name for field in fields(one)]
        left, right = ({n: getattr(x, n) for n in names if hasattr(x, n)} for x in (one, other))
        return not _differing_names(left, right)
    return _is_same_object(one, other)


def _is_same_object(one: Any, other: Any) -> bool:
    """Compare values of other libraries and of the user's types."""
    if hasattr(one, "equals"):  # tables and series of pandas, polars and Arrow
        kinds = [(getattr(x, "dtype", None), getattr(x, "schema", None)) for x in (one, other)]
        return kinds[0] == kinds[1] and bool(one.equals(other))
    if hasattr(one, "dtype") and hasattr(one, "tolist"):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and _is_same(one.tolist(), other.tolist())
    if type(one).__eq__ is object.__eq__:
        return True  # nothing to compare by: its own serialiser and validator are trusted
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _is_converted(one: Any, other: Any) -> bool:
    if type(one) is int and type(other) is float:
        return one == other
    if type(other) not in (datetime, timedelta) or not isinstance(one, type(other)):
        return False
    if not type(one).__module__.startswith("pandas") or one != other:
        return False
    zones = [getattr(value, "tzinfo", None) for value in (one, other)]
    return is_same_zone(*zones)


def _is_same_float(one: float, other: float) -> bool:
    if one == other:
        return one != 0 or copysign(1, one) == copysign(1, other)
    return one != one and other != other  # noqa: PLR0124 - NaN


def _is_same_time(one: Any, other: Any) -> bool:
    if one.fold != other.fold or not is_same_zone(one.tzinfo, other.tzinfo):
        return False
    return one.replace(tzinfo=None) == other.replace(tzinfo=None)


def _is_same_complex(one: complex, other: complex) -> bool:
    return _is_same_float(one.real, other.real) and _is_same_float(one.imag, other.imag)


_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    datetime: _is_same_time,
    time: _is_same_time,
    float: _is_same_float,
    complex: _is_same_complex,
    Decimal: lambda one, other: one.as_tuple() == other.as_tuple(),
}


def is_same_zone(one: Any, other: Any) -> bool:
    """Return whether two time zones are of one kind and have the same key, or offset and name."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, ZoneInfo):
        return bool(one.key) and one.key == other.key
    if isinstance(one, timezone):
        return one == other and one.tzname(None) == other.tzname(None)
    return bool(one == other)


def _is_same_dict(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    keys = zip(one, other, strict=False)
    return len(one) == len(other) and all(
        _is_same(a, b) and _is_same(one[a], other[b]) for a, b in keys
    )


def _is_same_set(one: set[Any], other: set[Any]) -> bool:
    left, right = [[x for x in group if x == x] for group in (one, other)]  # noqa: PLR0124 - NaN
    found = {item: item for item in right}
    same = len(one) == len(other) and len(left) == len(right)
    return same and all(item in found and _is_same(item, found[item]) for item in left)
