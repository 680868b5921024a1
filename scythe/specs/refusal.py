"""Finds the reason why a spec cannot be carried to a leaf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime, time
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from scythe.errors import SpecError
from scythe.specs.sameness import differing_fields, is_same, is_same_zone

_MISSING = object()


def refusal_of_writing(error: Exception) -> SpecError:
    """Return the refusal of a spec whose serializers fail."""
    return SpecError(
        f"The spec cannot be written, a serializer of its class fails "
        f"({type(error).__name__}: {error}): correct the serializer."
    )


def refusal_of_reading(spec: BaseModel, error: Exception) -> SpecError | None:
    """Return the refusal of a spec that cannot be read back; None if the spec is invalid."""
    excluded = next(_excluded_fields(spec), None)
    if excluded is not None and isinstance(error, ValidationError) and _is_incomplete(error):
        return SpecError(_EXCLUDED.format(field=excluded))
    field = _raising_field(spec, type(error))
    where = "The spec" if field is None else f"Field {field!r}"
    if _needs_context(spec):
        return SpecError(
            f"{where} is validated with a `context`, which a leaf does not have: keep what its "
            "validator needs in a field, or let it pass a valid value without a context."
        )
    if isinstance(error, ValidationError):
        return None
    return SpecError(
        f"{where} cannot be validated again, its validator raises {type(error).__name__} "
        f"({error}): let the validator pass a valid value."
    )


_EXCLUDED = (
    "Field {field!r} is left out of what is written (exclude=True), so that a leaf would not get "
    "its value: remove `exclude=True`, or give it a default and set it in the leaf."
)


def refusal_of_difference(spec: BaseModel, back: BaseModel, name: str) -> SpecError:
    """Return the refusal of a spec whose field or private attribute reads back differently."""
    if name in type(spec).__private_attributes__:
        return SpecError(
            f"Field {name!r} is a private attribute whose value cannot be carried to a leaf: "
            "make it a field, or set it in the leaf."
        )
    if name in _excluded_fields(spec):
        return SpecError(_EXCLUDED.format(field=name))
    one = _value(spec, name)
    other = _value(back, name)
    path, one, other = _first_difference(name, one, other)
    inside = "" if path == name else f" at {path}"
    return SpecError(f"Field {name!r} cannot be carried to a leaf{inside}: {_why(one, other)}")


def _why(one: Any, other: Any) -> str:  # noqa: PLR0911 - one return for each reason
    """Return what would be lost, and what to do, without the value, which may be secret."""
    kind = type(one).__name__
    read = type(other).__name__
    if hasattr(one, "get_secret_value"):
        return (
            f"a {kind} is not written, as everybody who reads the bucket could read it. Let the "
            "leaf take it from its environment."
        )
    if isinstance(one, BaseModel) and type(one) is not type(other) and isinstance(one, type(other)):
        return (
            f"it is a {kind} and would arrive as a {read}, the class that the field is declared "
            f"with. Declare the field with {kind}, or with a union of both and a discriminator."
        )
    dtypes = [getattr(value, "dtype", None) for value in (one, other)]
    if dtypes[0] != dtypes[1]:
        return (
            f"its {kind} would arrive with the dtype {dtypes[1]} instead of {dtypes[0]}. Give the "
            "field a serializer and a validator that bring back an array with the same dtype."
        )
    if isinstance(one, (datetime, time)) and _has_another_zone(one, other):
        zone = type(one.tzinfo)
        return (
            f"its time zone is a {zone.__module__}.{zone.__qualname__} and would arrive as "
            "another one. Use zoneinfo.ZoneInfo(<key>) or datetime.timezone."
        )
    if type(one) is not type(other) or one is _MISSING:
        what = "nothing" if other is _MISSING else f"a {read}"
        return (
            f"it is a {kind} and would arrive as {what}. Declare the field with the type of its "
            "value, or convert the value before."
        )
    if isinstance(one, dict) and one == other:
        return "its keys would arrive in another order. Give them in the order of the field's type."
    if isinstance(one, BaseModel):
        names = differing_fields(one, cast("BaseModel", other))
        return f"its private attribute {names[0]!r} would be lost. Make it a field."
    return (
        "it is not the same after it was written and read back. Use a field type whose value is "
        "kept by its serializer and by validation (a validator that changes a valid value again "
        "is the usual cause)."
    )


def _has_another_zone(one: datetime | time, other: Any) -> bool:
    return isinstance(other, type(one)) and not is_same_zone(one.tzinfo, other.tzinfo)


def _first_difference(path: str, one: Any, other: Any) -> tuple[str, Any, Any]:
    """Return the first nested value that differs, with its path."""
    if type(one) is type(other):
        for step, a, b in _children(one, other):
            if not is_same(a, b):
                return _first_difference(f"{path}{step}", a, b)
    return path, one, other


def _children(one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the values inside of two of one type."""
    if isinstance(one, BaseModel):
        for name in {**vars(one), **(one.model_extra or {})}:
            yield f".{name}", _value(one, name), _value(other, name)
    elif isinstance(one, dict) and list(cast("dict[Any, Any]", one)) == list(other):
        for a, b in zip(cast("dict[Any, Any]", one), other, strict=True):
            yield " (a key)", a, b
            yield f"[{a!r}]", one[a], other[b]
    elif isinstance(one, (list, tuple)) and len(cast("list[Any]", one)) == len(other):
        for number, (a, b) in enumerate(zip(cast("list[Any]", one), other, strict=True)):
            yield f"[{number}]", a, b
    elif is_dataclass(one):
        for field in fields(one):
            values = [getattr(x, field.name, _MISSING) for x in (one, other)]
            yield f".{field.name}", values[0], values[1]


def _is_incomplete(error: ValidationError) -> bool:
    return any(item["type"] == "missing" for item in error.errors(include_url=False))


def _value(model: BaseModel, name: str) -> Any:
    return vars(model).get(name, (model.model_extra or {}).get(name, _MISSING))


def _excluded_fields(spec: BaseModel) -> Iterator[str]:
    for name, field in type(spec).model_fields.items():
        if field.exclude or getattr(field, "exclude_if", None) is not None:
            yield name


def _raising_field(spec: BaseModel, kind: type[Exception]) -> str | None:
    """Return the field whose own validation raises an error of this kind."""
    for name in type(spec).model_fields:
        copy = spec.model_copy()
        try:
            copy.__pydantic_validator__.validate_assignment(copy, name, _value(spec, name))
        except ValidationError as error:
            if kind is ValidationError and any(one["loc"][:1] == (name,) for one in error.errors()):
                return name
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            if isinstance(error, kind):
                return name
    return None


class _Context(dict[str, Any]):
    """A validation context that records whether it is used."""

    is_used = False

    def __getitem__(self, key: str) -> Any:
        self.is_used = True
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.is_used = True
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.is_used = True
        return super().get(key, default)


def _needs_context(spec: BaseModel) -> bool:
    """Return whether the validators of a spec use a context, or fail only without one."""
    context = _Context()
    return (_is_valid(spec, context) and not _is_valid(spec, None)) or context.is_used


def _is_valid(spec: BaseModel, context: dict[str, Any] | None) -> bool:
    try:
        values = spec.model_dump(round_trip=True, by_alias=False, warnings=False)
        type(spec).model_validate(values, context=context, by_alias=False, by_name=True)
    except Exception:  # noqa: BLE001 - of whatever kind a validator raises
        return False
    return True
