"""Specs as text and back, so that the leaf gets exactly what the caller validated.

Plain JSON, as pydantic writes it, is tried first. If reading it back gives another spec (a dict
with keys that are not text, a time with a zone, a private attribute, …), values are written with
tags that keep their types. A spec that neither form can carry is refused at allocation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from scythe.errors import SpecError
from scythe.specs.refusal import refusal_of_difference, refusal_of_reading, refusal_of_writing
from scythe.specs.sameness import compare_models, differing_fields
from scythe.specs.tags import tag, untag

_TAGGED = "tagged:"
_WITH_PRIVATE = "private:"

SpecT = TypeVar("SpecT", bound=BaseModel)


def encode_spec(spec: BaseModel) -> str:
    """Encode a spec as text that `decode_spec` turns into an equal spec.

    Raises:
        ValidationError: The spec does not pass its own validation (it was changed after it was
            made, or made without validation).
        SpecError: A field cannot be carried to another process.
    """
    text = _plain_json(spec)
    if text is not None:
        return text
    tagged = _tagged(spec)
    try:
        back = decode_spec(type(spec), tagged)
    except Exception as error:
        refusal = refusal_of_reading(spec, error)
        if refusal is None:
            raise
        raise refusal from error
    differing = differing_fields(spec, back)
    if not differing:
        return tagged
    fields = [name for name in differing if name not in type(spec).__private_attributes__]
    if fields:
        raise refusal_of_difference(spec, back, fields[0])
    return _with_private(spec, tagged, differing)


def _with_private(spec: BaseModel, tagged: str, names: list[str]) -> str:
    """Encode a spec with its private attributes."""
    values: dict[str, Any] = {}
    for name in names:
        try:
            values[name] = tag((spec.__pydantic_private__ or {}).get(name), name)
        except SpecError as error:
            raise refusal_of_difference(spec, spec, name) from error
    text = _WITH_PRIVATE + json.dumps([values, tagged])
    back = decode_spec(type(spec), text)
    differing = differing_fields(spec, back)
    if differing:
        raise refusal_of_difference(spec, back, differing[0])
    return text


def _tagged(spec: BaseModel) -> str:
    options: dict[str, Any] = {"round_trip": True, "by_alias": False, "warnings": False}
    try:
        dumped = spec.model_dump(**options)
    except Exception as error:
        raise refusal_of_writing(error) from error
    values: dict[str, Any] = {}
    for name, value in dumped.items():
        try:
            values[name] = tag(value, name, converts_times=_is_typed(type(spec), name))
        except SpecError:
            try:  # its own serializer may know how
                values |= spec.model_dump(mode="json", include={name}, **options)
            except Exception:  # noqa: BLE001 - the first error says what is wrong
                values = {}
            if name not in values:
                raise
    return _TAGGED + json.dumps(values)


def _is_typed(cls: type[BaseModel], name: str) -> bool:
    """Return whether the class declares the type of a field's values."""
    field = cls.model_fields.get(name)
    return field is not None and "Any" not in repr(field.annotation)


def _plain_json(spec: BaseModel) -> str | None:
    """Return the spec as JSON, or None if that does not read back as an equal spec."""
    return _plain_jsons([spec])[0]


def encode_specs(specs: Sequence[BaseModel]) -> list[str]:
    """Encode many specs as `encode_spec` does, faster if they share a class.

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
            text = to_json(spec, round_trip=True, by_alias=False, warnings=False).decode()
            back.append(cast("BaseModel", from_json(text, by_alias=True, by_name=True)))
            texts.append(text)
        except Exception:  # noqa: BLE001 - what it is, `encode_spec` says
            back.append(spec)
            texts.append(None)
    same = compare_models(specs, back)
    return [text if is_same else None for text, is_same in zip(texts, same, strict=True)]


def decode_spec(cls: type[SpecT], text: str) -> SpecT:
    """Decode the text of `encode_spec`, which has the names of fields, not their aliases."""
    if not text.startswith((_TAGGED, _WITH_PRIVATE)):
        # What `model_validate_json` calls, at three quarters of the time.
        return cast(
            "SpecT", cls.__pydantic_validator__.validate_json(text, by_alias=True, by_name=True)
        )
    if text.startswith(_TAGGED):
        tagged = json.loads(text[len(_TAGGED) :])
        values = {name: untag(value) for name, value in tagged.items()}
        return cls.model_validate(values, strict=False, by_alias=False, by_name=True)
    private, tagged = cast("tuple[dict[str, Any], str]", json.loads(text[len(_WITH_PRIVATE) :]))
    spec = decode_spec(cls, tagged)
    attributes = dict(spec.__pydantic_private__ or {})
    attributes.update({name: untag(value) for name, value in private.items()})
    object.__setattr__(spec, "__pydantic_private__", attributes)
    return spec


def describe_validation_error(error: ValidationError) -> str:
    """Return one line with the invalid fields and the reasons."""
    parts = [
        f"field {'.'.join(str(step) for step in item['loc']) or '(whole spec)'!r}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    ]
    return "; ".join(parts[:5]) + (f"; and {len(parts) - 5} more" if len(parts) > 5 else "")
