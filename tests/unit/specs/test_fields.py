"""Changes of an input model that count as a mismatch, and changes that do not."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from scythe.base import ExperimentInputSpec
from scythe.specs.fields import describe_differences, fields_digest, input_fields
from scythe.storage.files import FileReference
from scythe.storage.manifest import from_yaml, io_schema, to_yaml


def fields_of(cls: type[BaseModel]) -> dict[str, str]:
    return input_fields(from_yaml(to_yaml(io_schema(cls, None))))


class Layer(BaseModel):
    thickness: float
    parts: list[Layer] = []


class Usual(ExperimentInputSpec):
    azimuth: float = 2.0
    weather: FileReference
    layers: list[Layer] = []
    by_name: dict[str, Layer] = {}
    when: datetime | None = None
    kind: Literal["a", "b"] = "a"
    anything: Any = None
    folder: Path = Path()


def test_fields_are_told_with_their_types_also_those_inside_of_others() -> None:
    fields = fields_of(Usual)
    assert fields["azimuth"] == "number"
    assert fields["layers[].thickness"] == "number"
    assert fields["layers[].parts[]"] == "itself"
    assert fields["by_name{}.thickness"] == "number"
    assert fields["when"] == "null or string (date-time)"
    assert not {"experiment_id", "sort_index", "storage_settings"} & set(fields)
    assert not [name for name in fields if name.startswith("storage_settings")]


def changed(**fields: Any) -> str:
    """Say how a model with these fields differs from the usual one."""
    of_run, of_worker = fields_of(Usual), fields_of(create_model("New", __base__=Usual, **fields))
    said = describe_differences(of_run, of_worker)
    assert (fields_digest(of_run) == fields_digest(of_worker)) == (said == "")
    return said


class Thicker(BaseModel):
    thick: float


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tilt": (float, 1.0)}, "only the worker has tilt"),
        ({"azimuth": (int, 2)}, "azimuth is number in the run and integer in the worker"),
        ({"when": (datetime, ...)}, "when is null or string (date-time) in the run"),
        ({"layers": (list[Thicker], [])}, "only the run has layers[].parts, layers[].parts[], "),
    ],
)
def test_what_is_another_model(fields: dict[str, Any], said: str) -> None:
    assert changed(**fields).startswith(said)


@pytest.mark.parametrize(
    "fields",
    [
        {"azimuth": (float, 3.0)},
        {"azimuth": (float, Field(default=2.0, title="Azimuth", description="of the roof", ge=0))},
        {"azimuth": (Annotated[float, Field(examples=[1.0])], ...)},
        {"kind": (Literal["a", "b", "c"], "a")},
    ],
)
def test_what_is_no_other_model(fields: dict[str, Any]) -> None:
    assert changed(**fields) == ""


TYPES = st.sampled_from([int, float, str, bool, list[int], dict[str, float], int | None, Layer])
MODELS = st.dictionaries(st.from_regex(r"f[a-z]{1,4}", fullmatch=True), TYPES, max_size=5)


@settings(max_examples=200)  # each makes two models
@given(MODELS, MODELS)
def test_two_models_agree_if_and_only_if_they_have_the_same_fields(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    def made(types: dict[str, Any]) -> dict[str, str]:
        fields: dict[str, Any] = {name: (kind, ...) for name, kind in types.items()}
        return fields_of(create_model("Model", __base__=ExperimentInputSpec, **fields))

    said = describe_differences(made(one), made(other))
    assert (said == "") == (one == other)
    assert all(name in said for name in one.keys() ^ other.keys())


class Color(Enum):
    RED = 1


def test_a_field_that_has_no_schema_is_anything() -> None:
    class Odd(ExperimentInputSpec):
        value: complex = 1j
        color: Color = Color.RED

    assert fields_of(Odd)["color"] in ("integer", "a choice")
    assert "value" in fields_of(Odd)
    assert input_fields({}) == {}
