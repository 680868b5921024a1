"""Specs reach the leaf exactly as the caller validated them, or are refused with a sentence."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretStr,
    ValidationError,
    computed_field,
    field_validator,
)

from scythe.base import ExperimentInputSpec
from scythe.errors import SpecError
from scythe.specs.codec import (
    decode_spec,
    describe_validation_error,
    differing_fields,
    encode_spec,
    encode_specs,
)
from scythe.storage.files import FileReference, S3Url

IDS = {"experiment_id": "wall/v1.0.0/2025-01-01_00-00-00", "sort_index": 3}
INF, NAN = math.inf, math.nan


class Free(ExperimentInputSpec):
    """Takes anything in `value`, so that nothing but the codec keeps its type."""

    value: Any = None


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Layer(BaseModel):
    """A nested model with pydantic's own settings: NaN becomes null, bytes become text."""

    thickness: float | None = None
    raw: bytes = b""
    tags: dict[str, Any] = Field(default_factory=dict)


def round_trip(spec: ExperimentInputSpec) -> Any:
    text = encode_spec(spec)
    assert encode_specs([spec, spec]) == [text, text]
    back = decode_spec(type(spec), text)
    assert type(back) is type(spec)
    assert differing_fields(spec, back) == []
    return back


@pytest.mark.parametrize(
    "value",
    [
        *[None, True, False, 0, -1, 2**53 + 1, 2**63, -(2**200), 1.0, 1.5, 5e-324, 1.7e308],
        *[INF, -INF, 0.1 + 0.2],
        *["", "null", "NaN", "1", "true", "é😀中", "a\x00b", "\u2028\u2029\ufeff", '"\\/\n\t', " "],
        *[[], [[]], [1, "1", 1.0, None], {}, {"": {}}, {"a": {"b": []}}, [{}, {"x": None}]],
        *[{1: "a", "1": "b"}, {None: 1, True: 2, 2.5: 3}, {(1, "x"): {(): []}}, {"$": 1, "$a": 2}],
        *[{"$": "date", "v": "2024-01-01"}, {INF: 1}, {date(2024, 1, 1): datetime(2024, 1, 1)}],
        *[(), (1, (2, 3)), [(1,), [1]], {1, 2}, set(), frozenset({"a"}), {(1, 2), (3, 4)}],
        *[date(2024, 2, 29), datetime(1, 1, 1), datetime(2024, 1, 1, 1, 1, 1, 999999, UTC)],
        *[
            datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            time(23, 59, 1, 7),
        ],
        *[timedelta(days=-1, microseconds=1), timedelta.max, Decimal("1.10"), Decimal("1E+400")],
        *[b"", b"\x00\xff", 1 + 2j, UUID(int=7), Path("/tmp/a b"), Path("relative/x")],
        *["\ud800", {"\udfff": 1}],
    ],
    ids=repr,
)
def test_any_value_keeps_value_and_type(value: Any) -> None:
    back = round_trip(Free(**IDS, value=value)).value
    assert back == value
    assert repr(back) == repr(value)  # also 1 against 1.0 against True, deep inside


def test_nan_none_and_infinities_are_three_things() -> None:
    back = round_trip(Free(**IDS, value=[NAN, None, INF, -INF, {"a": NAN, "b": None}])).value
    assert math.isnan(back[0])
    assert back[1:4] == [None, INF, -INF]
    assert math.isnan(back[4]["a"])
    assert back[4]["b"] is None


def test_minus_zero_keeps_its_sign() -> None:
    assert math.copysign(1, round_trip(Free(**IDS, value=-0.0)).value) == -1


def test_typed_fields_with_keys_that_are_not_text() -> None:
    class Spec(ExperimentInputSpec):
        by_number: dict[int, float]
        by_pair: dict[tuple[int, str], list[int]]
        by_date: dict[date, Colour]
        by_flag: dict[bool, str]
        by_float: dict[float, int]

    spec = Spec(
        **IDS,
        by_number={1: 0.5, -2: INF},
        by_pair={(1, "a,b"): [], (2, ""): [1]},
        by_date={date(2024, 1, 1): Colour.RED},
        by_flag={True: "t"},
        by_float={INF: 1, 1.5: 2},
    )
    assert round_trip(spec) == spec


def test_order_of_dicts_is_kept() -> None:
    assert list(round_trip(Free(**IDS, value={"b": 1, "a": 2, "c": 3})).value) == ["b", "a", "c"]
    assert list(round_trip(Free(**IDS, value={2: 1, 1: 2})).value) == [2, 1]


def test_enums_dates_and_the_like_in_typed_fields() -> None:
    class Spec(ExperimentInputSpec):
        colour: Colour
        level: Level
        colours: list[Colour]
        day: date
        when: datetime
        lasting: timedelta
        price: Decimal
        data: bytes
        pairs: set[tuple[int, str]]
        optional: Colour | None = None

    spec = Spec(
        **IDS,
        colour=Colour.BLUE,
        level=Level.LOW,
        colours=[Colour.RED],
        day=date(2024, 1, 1),
        when=datetime(2024, 1, 1, 12, tzinfo=UTC),
        lasting=timedelta(microseconds=1),
        price=Decimal("0.10"),
        data=bytes(range(256)),
        pairs={(1, "a"), (2, "b")},
    )
    # The extra field cannot be plain JSON, so that the second form is used.
    for given in (spec, spec.model_copy(update={"zone": {1: 2}})):
        back = round_trip(given)
        assert back.colour is Colour.BLUE
        assert str(back.price) == "0.10"


def test_types_that_only_pydantic_can_write() -> None:
    class Spec(ExperimentInputSpec):
        address: IPv4Address
        pattern: re.Pattern[str]

    back = round_trip(Spec(**IDS, address=IPv4Address("127.0.0.1"), pattern=re.compile("a+")))
    assert (str(back.address), back.pattern.pattern) == ("127.0.0.1", "a+")


def test_unions_give_back_the_member_that_was_there() -> None:
    class Circle(BaseModel):
        kind: Literal["circle"] = "circle"
        size: float

    class Square(BaseModel):
        kind: Literal["square"] = "square"
        size: float

    class Spec(ExperimentInputSpec):
        number: int | float | bool | str | None
        day: date | str
        shape: Annotated[Circle | Square, Field(discriminator="kind")]
        item: Layer | int | list[Layer]

    shape = Square(size=NAN)
    for number, day in [(1, "2024-01-01"), (1.0, date(2024, 1, 1)), (True, "x"), ("1", "")]:
        back = round_trip(
            Spec(**IDS, number=number, day=day, shape=shape, item=[Layer(thickness=NAN)])
        )
        assert type(back.number) is type(number)
        assert type(back.day) is type(day)
        assert type(back.shape) is Square


def test_nested_models_with_their_own_settings() -> None:
    class Spec(ExperimentInputSpec):
        layer: Layer
        layers: dict[str, Layer] = {}

    layer = Layer(thickness=NAN, raw=b"\xff\x00", tags={"empty": {}, "mixed": [1, None, "x"]})
    back = round_trip(Spec(**IDS, layer=layer, layers={"a": Layer(), "b": Layer(tags={"k": 1})}))
    assert math.isnan(back.layer.thickness)
    assert back.layer.raw == b"\xff\x00"
    assert back.layers["a"].tags == {}


def test_a_dataclass_with_nan() -> None:
    @dataclass
    class Point:
        x: float
        y: float

    class Spec(ExperimentInputSpec):
        point: Point

    back = round_trip(Spec(**IDS, point=Point(NAN, 1.0)))
    assert math.isnan(back.point.x)


def test_numpy_numbers_in_plain_fields() -> None:
    class Spec(ExperimentInputSpec):
        width: float
        count: int
        values: list[float]

    spec = Spec(**IDS, width=np.float32(0.1), count=np.int64(3), values=list(np.linspace(0, 1, 3)))
    back = decode_spec(Spec, encode_spec(spec))
    assert (back.width, back.count, back.values) == (float(np.float32(0.1)), 3, [0.0, 0.5, 1.0])


Array = Annotated[
    np.ndarray,
    BeforeValidator(np.asarray),
    PlainSerializer(lambda value: value.tolist(), when_used="json"),
]


class WithArray(ExperimentInputSpec):
    values: Array


@pytest.mark.parametrize("values", [[], [1.0, NAN], [NAN], [[1, 2], [3, 4]], [True, False]])
def test_arrays_with_a_serializer(values: list[Any]) -> None:
    back = round_trip(WithArray(**IDS, values=values)).values
    np.testing.assert_array_equal(back, np.asarray(values))


def test_an_array_that_comes_back_with_another_dtype_is_refused() -> None:
    spec = WithArray(**IDS, values=np.array([0.1], dtype="float32"))
    with pytest.raises(SpecError, match=r"'values'.*ndarray.*same dtype"):
        encode_spec(spec)


def test_extra_fields_travel_too() -> None:
    spec = Free(**IDS, city="Wien", day=date(2024, 1, 1), nested={1: [None]})  # pyright: ignore
    back = round_trip(spec)
    assert back.model_extra == {"city": "Wien", "day": date(2024, 1, 1), "nested": {1: [None]}}


class Aliased(ExperimentInputSpec):
    width: float = Field(alias="w")
    height: float = Field(validation_alias=AliasChoices("h", "hoch"), serialization_alias="out")
    first: int = Field(validation_alias=AliasPath("list", 0))
    names: dict[Any, Any] = Field(default_factory=dict, alias="map")


class AliasedByName(Aliased):
    model_config = ConfigDict(populate_by_name=True)


@pytest.mark.parametrize("cls", [Aliased, AliasedByName])
@pytest.mark.parametrize("names", [{}, {1: 2}], ids=["plain", "tagged"])
def test_aliases(cls: type[Aliased], names: dict[Any, Any]) -> None:
    spec = cls.model_validate({**IDS, "w": 1, "hoch": 2, "list": [7, 8], "map": names})
    back = round_trip(spec)
    assert (back.width, back.height, back.first, back.names) == (1.0, 2.0, 7, names)


def test_computed_fields_and_cached_properties_are_no_inputs() -> None:
    class Spec(ExperimentInputSpec):
        side: float

        @computed_field
        @property
        def area(self) -> float:
            return self.side**2

        @cached_property
        def volume(self) -> float:
            return self.side**3

    spec = Spec(**IDS, side=2)
    assert spec.volume == 8
    back = round_trip(spec)
    assert (back.area, back.volume) == (4.0, 8.0)
    assert back.model_extra == {}


def test_a_model_with_its_own_init_defaults_and_private_attributes() -> None:
    made = iter(range(100))

    class Spec(ExperimentInputSpec):
        side: float
        number: int = Field(default_factory=lambda: next(made))
        _memo: dict[str, int] = PrivateAttr(default_factory=dict)

        def __init__(self, **data: Any) -> None:
            data.setdefault("side", 4.0)
            super().__init__(**data)

    spec = Spec(**IDS)
    spec._memo["x"] = 1
    back = round_trip(spec)
    assert (back.side, back.number) == (4.0, spec.number)
    assert back._memo == {"x": 1}


def test_an_integer_default_of_a_float_field() -> None:
    class Spec(ExperimentInputSpec):
        size: float = 4

    assert round_trip(Spec(**IDS)).size == 4


def test_frozen_strict_and_generic_models() -> None:
    class Frozen(ExperimentInputSpec):
        model_config = ConfigDict(frozen=True)
        value: int

    class Strict(ExperimentInputSpec):
        model_config = ConfigDict(strict=True)
        colour: Colour
        day: date
        items: tuple[int, ...]
        free: Any = None

    T = TypeVar("T")

    class Box(ExperimentInputSpec, Generic[T]):
        content: T

    assert round_trip(Frozen(**IDS, value=1)).value == 1
    for free in (None, {1: 1}):
        spec = Strict(**IDS, colour=Colour.RED, day=date(2024, 1, 1), items=(1, 2), free=free)
        assert round_trip(spec).items == (1, 2)
    assert round_trip(Box[dict[int, str]](**IDS, content={1: "a"})).content == {1: "a"}


def test_root_models_and_json_fields() -> None:
    class Names(RootModel[list[str]]):
        pass

    class Spec(ExperimentInputSpec):
        names: Names
        parsed: Json[list[int]]

    back = round_trip(Spec(**IDS, names=Names(["a"]), parsed="[1, 2]"))
    assert (back.names.root, back.parsed) == (["a"], [1, 2])


def test_file_references_keep_their_kind() -> None:
    class Spec(ExperimentInputSpec):
        weather: FileReference
        other: FileReference

    back = round_trip(Spec(**IDS, weather="s3://bucket/a%20b.epw", other=Path("/tmp/x y.epw")))
    assert isinstance(back.weather, S3Url)
    assert back.other == Path("/tmp/x y.epw")


def test_a_field_whose_own_type_compares_by_identity_is_trusted() -> None:
    class Handle:
        def __init__(self, name: str) -> None:
            self.name = name

    Field_ = Annotated[
        Handle,
        BeforeValidator(lambda v: v if isinstance(v, Handle) else Handle(v)),
        PlainSerializer(lambda v: v.name),
    ]

    class Spec(ExperimentInputSpec):
        handle: Field_

    assert decode_spec(Spec, encode_spec(Spec(**IDS, handle="h"))).handle.name == "h"


class Doubling(ExperimentInputSpec):
    width: float

    @field_validator("width")
    @classmethod
    def _double(cls, value: float) -> float:
        return value * 2


class Hidden(ExperimentInputSpec):
    secret: SecretStr


class Wide(Layer):
    width: int = 1


class HoldsLayer(ExperimentInputSpec):
    layer: Layer


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (Doubling(**IDS, width=1), "width"),
        (Hidden(**IDS, secret=SecretStr("hush")), "secret"),
        (HoldsLayer(**IDS, layer=Wide()), "layer"),
        (Free(**IDS, value=object()), "value"),
        (Free(**IDS, value=[{"deep": lambda: 1}]), "value"),
        (Free(**IDS, value=Colour.RED), "value"),
        (Free(**IDS, value=Layer()), "value"),
    ],
    ids=["validator", "secret", "subclass", "object", "function", "enum", "model"],
)
def test_what_cannot_travel_is_refused_by_name(spec: ExperimentInputSpec, field: str) -> None:
    with pytest.raises(SpecError, match=f"Field '{field}'") as error:
        encode_spec(spec)
    assert "hush" not in str(error.value)
    with pytest.raises(SpecError, match=f"Field '{field}'"):
        encode_specs([spec])


class Times(ExperimentInputSpec):
    when: datetime | None = None
    all_times: list[datetime] = []
    took: timedelta = timedelta()


def test_times_of_pandas_arrive_as_those_of_python() -> None:
    when = pd.Timestamp("2026-01-01T12:00", tz="Europe/Berlin")
    spec = Times(**IDS, when=when, all_times=[when], took=pd.Timedelta("90s"))
    for text in (encode_spec(spec), *encode_specs([spec])):
        back = decode_spec(Times, text)
        assert type(back.when) is type(back.all_times[0]) is datetime
        assert back.when == back.all_times[0] == when
        assert (type(back.took), back.took) == (timedelta, timedelta(seconds=90))


@pytest.mark.parametrize("when", ["2026-01-01T00:00:00.000000001", "NaT"])
def test_times_that_python_does_not_have_are_refused(when: str) -> None:
    with pytest.raises(SpecError, match="Field 'when'"):
        encode_spec(Times(**IDS, when=pd.Timestamp(when)))  # pyright: ignore[reportArgumentType]


class Whole(ExperimentInputSpec):
    whole: int


class Excluding(ExperimentInputSpec):
    kept_out: int = Field(exclude=True)


def test_a_spec_that_does_not_pass_its_own_validation() -> None:
    changed = Free(**IDS)
    changed.sort_index = -1
    with pytest.raises(ValidationError, match="sort_index"):
        encode_spec(changed)
    with pytest.raises(ValidationError, match="sort_index"):
        encode_specs([Free(**IDS), changed])
    with pytest.raises(ValidationError, match="whole"):
        encode_spec(Whole.model_construct(sort_index=1))


def test_many_specs_are_written_as_each_is_alone() -> None:
    values = [1, 1.0, NAN, [NAN, {"a": 1}], {1: 2}, date(2024, 1, 1), -0.0, "\ud800", None, True]
    specs: list[ExperimentInputSpec] = [Free(**IDS, value=value) for value in values]
    specs.append(Free(**IDS, more={1: 2}))  # pyright: ignore[reportCallIssue]
    specs.append(Free(**IDS, more="x"))  # pyright: ignore[reportCallIssue]
    assert encode_specs(specs) == [encode_spec(spec) for spec in specs]
    mixed = [*specs, Aliased.model_validate({**IDS, "w": 1, "h": 2, "list": [7]})]
    assert encode_specs(mixed) == [encode_spec(spec) for spec in mixed]
    assert encode_specs([]) == []


def test_one_spec_of_many_that_does_not_come_back_is_refused() -> None:
    specs = [Free(**IDS, value=number) for number in range(5)]
    specs[3] = Free(**IDS, value=Colour.RED)
    with pytest.raises(SpecError, match="Field 'value'"):
        encode_specs(specs)


def test_validation_errors_in_one_line_without_the_values() -> None:
    class Spec(ExperimentInputSpec):
        layers: list[Layer]
        name: str

    with pytest.raises(ValidationError) as caught:
        Spec(sort_index=-1, layers=[{"thickness": "my-password"}])  # pyright: ignore
    text = describe_validation_error(caught.value)
    assert "\n" not in text
    assert "'layers.0.thickness'" in text
    assert "'name': Field required" in text
    assert "my-password" not in text


def test_a_long_list_of_validation_errors_is_cut() -> None:
    class Spec(ExperimentInputSpec):
        values: list[int]

    with pytest.raises(ValidationError) as caught:
        Spec(**IDS, values=["x"] * 9)  # pyright: ignore
    assert describe_validation_error(caught.value).endswith("; and 4 more")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1.0, NAN),
        ([1], (1,)),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ("1", 1),
        (date(2024, 1, 1), datetime(2024, 1, 1)),
        (np.array([1.0]), np.array([1.0], dtype="float32")),
        (np.array([1.0]), np.array([[1.0]])),
        (None, NAN),
        (Layer(), Layer(thickness=0)),
        ([NAN], [0.0]),
    ],
    ids=repr,
)
def test_differing_values_are_seen(one: Any, other: Any) -> None:
    assert differing_fields(Free(**IDS, value=one), Free(**IDS, value=other)) == ["value"]


def test_differing_extras_are_seen() -> None:
    assert differing_fields(Free(**IDS, more=1), Free(**IDS)) == ["more"]  # pyright: ignore
