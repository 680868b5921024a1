"""A spec that cannot arrive as it is is refused with its field and the true reason."""

from __future__ import annotations

import dataclasses
import threading
import time as clock
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from scythe.base import ExperimentInputSpec
from scythe.errors import SpecError
from scythe.specs.codec import decode_spec
from tests.unit.specs.exact import described
from tests.unit.specs.test_round_trip import IDS, allocated

BERLIN = ZoneInfo("Europe/Berlin")


class OldZone(tzinfo):
    """A zone of another library, such as pytz or dateutil."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, dt: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, dt: datetime | None) -> str:
        return "OLD"


class Layer(BaseModel):
    thickness: float = 0.1
    _seen: int = PrivateAttr(default=0)


class Coated(Layer):
    coat: str = "white"


class Wall(ExperimentInputSpec):
    when: datetime | None = None
    opens: time | None = None
    layer: Layer = Field(default_factory=Layer)
    by_name: dict[str, list[Layer]] = {}
    anything: Any = None


def arrives(spec: Any) -> Any:
    back = decode_spec(type(spec), allocated([spec])[0])
    assert described(back) == described(spec)
    return back


def refused(spec: Any) -> str:
    with pytest.raises(SpecError) as caught:
        allocated([spec])
    message = str(caught.value)
    assert message.startswith("Spec 0: ")
    assert message.endswith(". Nothing was uploaded or started.")
    return message.removeprefix("Spec 0: ")


def test_half_a_year_later_is_the_same_hour_in_the_leaf() -> None:
    when = datetime(2026, 1, 15, 12, tzinfo=BERLIN)
    back = arrives(Wall(**IDS, when=when))
    assert str(back.when + timedelta(days=182)) == "2026-07-16 12:00:00+02:00"
    assert back.when.tzinfo is BERLIN


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("zone", [None, UTC, BERLIN, timezone(timedelta(hours=1), "CET")])
def test_the_hour_that_a_clock_change_repeats(fold: int, zone: Any) -> None:
    when = datetime(2024, 10, 27, 2, 30, tzinfo=zone, fold=fold)
    back = arrives(Wall(**IDS, when=when, opens=when.timetz(), anything=[{when: when}]))
    assert (back.when.utcoffset(), back.when.fold) == (when.utcoffset(), fold)
    assert (back.opens.tzinfo, back.opens.fold) == (zone, fold)


def test_times_of_pandas_keep_their_zone() -> None:
    spec = Wall(**IDS, when=pd.Timestamp("2026-01-15T12:00", tz="Europe/Berlin"))
    back = decode_spec(Wall, allocated([spec])[0])
    assert (type(back.when), back.when) == (datetime, datetime(2026, 1, 15, 12, tzinfo=BERLIN))
    assert back.when is not None
    assert back.when.tzinfo is BERLIN


def test_a_zone_of_another_library_is_named() -> None:
    message = refused(Wall(**IDS, when=datetime(2026, 1, 1, tzinfo=OldZone())))
    assert message.startswith("Field 'when' cannot be carried to a leaf: its time zone is a ")
    assert "test_refusals.OldZone" in message
    assert "Use zoneinfo.ZoneInfo(<key>) or datetime.timezone." in message


def test_aliases_that_are_written_too() -> None:
    class Spec(ExperimentInputSpec):
        model_config = ConfigDict(alias_generator=str.upper, serialize_by_alias=True)
        r_value: float

    spec = Spec.model_validate({"EXPERIMENT_ID": "x", "SORT_INDEX": 3, "R_VALUE": 1})
    assert spec.index_data()["r_value"] == 1
    assert set(spec.make_multiindex().names) >= {"r_value", "sort_index"}
    assert arrives(spec.model_copy(update=IDS)).r_value == 1


def test_aliases_that_are_the_names_of_other_fields() -> None:
    class Spec(ExperimentInputSpec):
        width: int = Field(alias="height")
        height: int = Field(alias="width")

    back = arrives(Spec.model_validate({**IDS, "width": 1, "height": 2}))
    assert (back.width, back.height) == (2, 1)


class Noting(ExperimentInputSpec):
    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _made: float = PrivateAttr(default_factory=clock.monotonic)
    _memo: dict[Any, Any] = PrivateAttr(default_factory=dict)
    _frame: Any = None


def test_private_attributes_are_carried() -> None:
    specs = [Noting(**IDS) for _ in range(3)]
    for number, spec in enumerate(specs):
        spec._memo[number, "x"] = datetime(2026, 1, 1, tzinfo=BERLIN)
    for spec, text in zip(specs, allocated(specs), strict=True):
        back = decode_spec(Noting, text)
        assert (back._memo, back._made) == (spec._memo, spec._made)
        assert type(back._lock) is type(spec._lock)


def test_a_private_attribute_that_cannot_be_carried_is_named() -> None:
    spec = Noting(**IDS)
    spec._frame = pd.DataFrame({"a": [1]})
    assert refused(spec).startswith("Field '_frame' ")
    inside = Wall(**IDS, by_name={"a": [Layer(), Layer()]})
    inside.by_name["a"][1]._seen = 7
    assert refused(inside) == (
        "Field 'by_name' cannot be carried to a leaf at by_name['a'][1]: its private attribute "
        "'_seen' would be lost. Make it a field. Nothing was uploaded or started."
    )


def test_a_subclass_in_a_field_of_its_base() -> None:
    message = "it is a Coated and would arrive as a Layer, the class that the field is declared"
    assert message in refused(Wall(**IDS, layer=Coated()))
    assert f"at by_name['a'][0]: {message}" in refused(Wall(**IDS, by_name={"a": [Coated()]}))


def test_a_spec_of_a_subclass_of_the_experiments_class() -> None:
    from scythe.specs.writer import SpecChecker, SpecRules
    from scythe.storage.layout import RunLayout
    from tests.unit.specs.test_round_trip import RUN, STORE

    class Roof(Wall):
        pitch: float

    checker = SpecChecker(SpecRules(Wall, False, True, True), RunLayout("p", RUN), STORE)
    with pytest.raises(SpecError, match=r"Spec 1 is a Roof and would arrive as a Wall"):
        checker.chunk([Wall(**IDS), Roof(**IDS, pitch=1)])


def test_secrets() -> None:
    class Spec(ExperimentInputSpec):
        key: dict[str, SecretStr]

    message = refused(Spec(**IDS, key={"a": SecretStr("hush")}))
    assert message.startswith("Field 'key' cannot be carried to a leaf at key['a']: a SecretStr")
    assert "hush" not in message


@pytest.mark.parametrize("default", [..., 0])
def test_a_field_that_is_not_written(default: Any) -> None:
    class Spec(ExperimentInputSpec):
        kept_out: int = Field(default, exclude=True)

    message = refused(Spec(**IDS, kept_out=1))
    assert message.startswith("Field 'kept_out' is left out of what is written (exclude=True)")
    if default == 0:
        assert arrives(Spec(**IDS)).kept_out == 0


def test_validators_that_need_a_context() -> None:
    class Spec(ExperimentInputSpec):
        value: int

        @field_validator("value")
        @classmethod
        def _scale(cls, value: int, info: ValidationInfo) -> int:
            return value * info.context["factor"]  # pyright: ignore[reportOptionalSubscript]

    class Checking(ExperimentInputSpec):
        value: int

        @field_validator("value")
        @classmethod
        def _check(cls, value: int, info: ValidationInfo) -> int:
            if info.context is None:
                raise ValueError("no context")
            return value

    for cls in (Spec, Checking):
        spec = cls.model_validate({**IDS, "value": 1}, context={"factor": 2})
        message = refused(spec)
        assert message.startswith("Field 'value' is validated with a `context`"), message


def test_a_validator_that_fails_on_what_it_made() -> None:
    class Spec(ExperimentInputSpec):
        value: Any

        @field_validator("value", mode="before")
        @classmethod
        def _parse(cls, value: Any) -> Any:
            return value["deep"]

    message = refused(Spec(**IDS, value={"deep": 1}))
    assert message.startswith("Field 'value' cannot be validated again, its validator raises Type")


def test_a_serializer_that_fails() -> None:
    class Spec(ExperimentInputSpec):
        value: int

        @model_serializer
        def _write(self) -> dict[str, Any]:
            raise RuntimeError("cannot write")

    assert "RuntimeError: cannot write" in refused(Spec(**IDS, value=1))


def test_a_sort_index_that_is_too_large() -> None:
    from scythe.specs.writer import SpecChecker, SpecRules
    from scythe.storage.layout import RunLayout
    from tests.unit.specs.test_round_trip import RUN, STORE

    checker = SpecChecker(SpecRules(Wall, False, False, True), RunLayout("p", RUN), STORE)
    spec = Wall(**{**IDS, "sort_index": 2**64})
    with pytest.raises(SpecError, match=r"^Spec 1: Field 'sort_index' must be below 2\*\*63, got"):
        checker.chunk([Wall(**IDS), spec])


def test_values_that_json_has_in_no_column_are_no_reason_to_refuse() -> None:
    @dataclasses.dataclass
    class Raw:
        data: bytes

    class Spec(ExperimentInputSpec):
        raw: Raw
        number: int = 7

    spec = Spec(**IDS, raw=Raw(b"\xff"))
    assert arrives(spec).raw == Raw(b"\xff")
    assert spec.index_data()["number"] == 7


def test_arrays_beside_values_that_need_tags() -> None:
    from tests.unit.specs.field_kinds import Array

    class Spec(ExperimentInputSpec):
        values: Array
        when: datetime

    back = arrives(Spec(**IDS, values=[1, 2], when=datetime(2026, 1, 1, tzinfo=BERLIN)))
    np.testing.assert_array_equal(back.values, [1.0, 2.0])


def test_integers_that_python_does_not_write_in_decimal() -> None:
    huge = 10**5000
    assert arrives_as(Wall(**IDS, anything={huge: [-huge]})).anything == {huge: [-huge]}
    assert refused(Wall(**IDS, anything=huge)).startswith("Field 'anything' is an integer of more")


def arrives_as(spec: Any) -> Any:
    """Return what arrives; `repr`, by which `arrives` compares, does not write such integers."""
    back = decode_spec(type(spec), allocated([spec])[0])
    assert back == spec
    return back
