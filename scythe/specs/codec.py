"""Specs as text and back, so that the leaf gets exactly what the caller validated.

Plain JSON, as pydantic writes it, is tried first. Where reading it back gives another spec (a dict
with keys that are not text, a date in a field that also takes text, …) the values are written with
tags that keep their types. What neither form can carry is an error at allocation, not a wrong
input of a leaf.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

from pydantic import AnyUrl, BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from scythe.errors import SpecError

_TAGGED = "tagged:"
_TAG = "$"
_PLAIN = frozenset({str, int, float, bool, type(None), datetime, date, time, timedelta, UUID})

_EXTRAS = attrgetter("__pydantic_extra__")

SpecT = TypeVar("SpecT", bound=BaseModel)


def encode_spec(spec: BaseModel) -> str:
    """Write a spec as text from which `decode_spec` makes an equal one.

    Raises:
        ValidationError: The spec does not pass its own validation (it was changed after it was
            made, or made without validation).
        SpecError: A field cannot be carried to another process.
    """
    text = _plain_json(spec)
    if text is not None:
        return text
    dumped = spec.model_dump(round_trip=True, warnings=False)
    values = {name: _tag(value, name) for name, value in dumped.items()}
    tagged = _TAGGED + json.dumps(values)
    differing = differing_fields(spec, decode_spec(type(spec), tagged))
    if differing:
        raise SpecError(
            f"Field {differing[0]!r} is not the same after it was written and read back: use a "
            "field type whose value is kept by validation (a validator that changes a valid value "
            "again is the usual cause)."
        )
    return tagged


def _plain_json(spec: BaseModel) -> str | None:
    """Return the spec as JSON, or None where that does not read back as an equal spec."""
    try:
        serializer = type(spec).__pydantic_serializer__
        text = serializer.to_json(spec, round_trip=True, warnings=False).decode()
        return None if differing_fields(spec, decode_spec(type(spec), text)) else text
    except Exception:  # noqa: BLE001 - what JSON cannot hold may be held by tags
        return None


def encode_specs(specs: Sequence[BaseModel]) -> list[str]:
    """Write specs as `encode_spec` does, in less time for each where they are of one class.

    Raises:
        ValidationError: See there.
        SpecError: See there.
    """
    texts: list[str | None] = [None] * len(specs)
    if len(set(map(type, specs))) == 1:
        texts = _plain_jsons(specs)
    return [text or encode_spec(spec) for text, spec in zip(texts, specs, strict=True)]


def _plain_jsons(specs: Sequence[BaseModel]) -> list[str | None]:
    """Return specs of one class as JSON, or None for those that do not read back as equal ones."""
    cls = type(specs[0])
    to_json = cls.__pydantic_serializer__.to_json
    from_json = cls.__pydantic_validator__.validate_json
    texts: list[str | None] = []
    back: list[BaseModel] = []
    for spec in specs:
        try:
            text = to_json(spec, round_trip=True, warnings=False).decode()
            back.append(cast("BaseModel", from_json(text, by_alias=True, by_name=True)))
            texts.append(text)
        except Exception:  # noqa: BLE001 - what it is, `encode_spec` says
            back.append(spec)
            texts.append(None)
    return [text if same else None for text, same in zip(texts, _alike(specs, back), strict=True)]


def decode_spec(cls: type[SpecT], text: str) -> SpecT:
    """Make the spec that `encode_spec` wrote (its fields are named as they are, not by alias)."""
    if text.startswith(_TAGGED):
        tagged = json.loads(text[len(_TAGGED) :])
        values = {name: _untag(value) for name, value in tagged.items()}
        return cls.model_validate(values, strict=False, by_alias=True, by_name=True)
    # What `model_validate_json` calls, at three quarters of the time.
    return cast(
        "SpecT", cls.__pydantic_validator__.validate_json(text, by_alias=True, by_name=True)
    )


def describe_validation_error(error: ValidationError) -> str:
    """Say in one line which fields are wrong, and why."""
    parts = [
        f"field {'.'.join(str(step) for step in item['loc']) or '(whole spec)'!r}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    ]
    return "; ".join(parts[:5]) + (f"; and {len(parts) - 5} more" if len(parts) > 5 else "")


def differing_fields(one: BaseModel, other: BaseModel) -> list[str]:
    """Return the names of the fields in which two models of one class differ."""
    if _plainly_same(vars(one), vars(other)) and not (one.model_extra or other.model_extra):
        return []
    left, right = _values(one), _values(other)
    names = list(dict.fromkeys([*left, *right]))
    return [
        name
        for name in names
        if (name in left) != (name in right) or not _same(left[name], right[name])
    ]


def _plainly_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two sets of values are the same at first sight, which most specs are."""
    kinds = list(map(type, one.values()))
    return _PLAIN.issuperset(kinds) and one == other and kinds == list(map(type, other.values()))


def _alike(ones: Sequence[BaseModel], others: Sequence[BaseModel]) -> list[bool]:
    """Return for each two models of one class whether they are the same; in doubt, they are not."""
    left, right = list(map(vars, ones)), list(map(vars, others))
    same = [True] * len(ones)
    try:
        getters = map(itemgetter, type(ones[0]).model_fields)
        values = [(list(map(get, left)), list(map(get, right))) for get in getters]
        extras = list(map(_EXTRAS, ones)), list(map(_EXTRAS, others))
        if any(extras[0]) or any(extras[1]):
            values.append(extras)
        for some, those in values:
            kinds = list(map(type, some))
            if _PLAIN.issuperset(kinds) and some == those and kinds == list(map(type, those)):
                continue
            pairs = zip(same, some, those, strict=True)
            same = [known and _same(one, other) for known, one, other in pairs]
    except Exception:  # noqa: BLE001 - a field that was never set, or values that do not compare
        return [False] * len(ones)
    return same


def _values(model: BaseModel) -> dict[str, Any]:
    """Return the values of the fields, without what a cached property keeps beside them."""
    held = model.__dict__
    values = {name: held[name] for name in type(model).model_fields if name in held}
    return {**values, **(model.model_extra or {})}


def _same(one: Any, other: Any) -> bool:  # noqa: PLR0911 - one line for each kind of value
    if {type(one), type(other)} == {int, float}:
        return one == other  # pydantic leaves the default of `size: float = 4` as it is
    if type(one) is not type(other):
        # pydantic leaves a pandas.Timestamp in a field for a datetime as it is.
        is_time = type(other) in (datetime, timedelta) and isinstance(one, type(other))
        return is_time and bool(one == other)
    if isinstance(one, BaseModel):
        return not differing_fields(one, other)
    if isinstance(one, dict):
        return _same_dict(cast("dict[Any, Any]", one), other)
    if isinstance(one, (list, tuple)):
        pairs = zip(cast("list[Any]", one), other, strict=False)
        return len(one) == len(other) and all(_same(a, b) for a, b in pairs)
    if is_dataclass(one):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if hasattr(one, "dtype") and hasattr(one, "tolist"):
        return one.dtype == other.dtype and _same(one.tolist(), other.tolist())
    if type(one).__eq__ is object.__eq__:
        return True  # nothing to compare by: its own serialiser and validator are trusted
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _same_dict(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    keys = zip(one, other, strict=False)
    return len(one) == len(other) and all(_same(a, b) and _same(one[a], other[b]) for a, b in keys)


_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", str),
    complex: ("complex", lambda value: [value.real, value.imag]),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda value: timedelta(*value),
    "decimal": Decimal,
    "uuid": UUID,
    "complex": lambda value: complex(*value),
    "bytes": base64.b64decode,
    "path": Path,
    "tuple": lambda value: tuple(_untag(item) for item in value),
    "set": lambda value: {_untag(item) for item in value},
    "frozenset": lambda value: frozenset(_untag(item) for item in value),
    "map": lambda value: {_untag(key): _untag(item) for key, item in value},
}


def _tag(value: Any, where: str) -> Any:  # noqa: PLR0911 - one line for each kind of value
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Enum):
        return _tag(value.value, where)
    if isinstance(value, dict):
        return _tag_dict(cast("dict[Any, Any]", value), where)
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items = [_tag(item, where) for item in cast("list[Any]", value)]
            return items if kind is list else {_TAG: kind.__name__, "v": items}
    if type(value) in _WRITERS:
        name, write = _WRITERS[type(value)]
        return {_TAG: name, "v": write(value)}
    if isinstance(value, Path):
        return {_TAG: "path", "v": str(value)}
    if isinstance(value, AnyUrl):
        return str(value)
    return _plain_number_or_text(value, where)


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


def _tag_dict(value: dict[Any, Any], where: str) -> Any:
    if all(type(key) is str and not key.startswith(_TAG) for key in value):
        return {key: _tag(item, where) for key, item in value.items()}
    pairs = [[_tag(key, where), _tag(item, where)] for key, item in value.items()]
    return {_TAG: "map", "v": pairs}


def _untag(value: Any) -> Any:
    if isinstance(value, list):
        return [_untag(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        tagged = cast("dict[str, Any]", value)
        if _TAG in tagged:
            return _READERS[tagged[_TAG]](tagged["v"])
        return {key: _untag(item) for key, item in tagged.items()}
    return value
