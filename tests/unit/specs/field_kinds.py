"""Field types with values for them, of which the property tests make classes of specs."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    PlainSerializer,
    RootModel,
    SecretStr,
    computed_field,
    field_validator,
)
from pydantic_core import TzInfo
from typing_extensions import TypedDict

from scythe.storage.files import FileReference


class Colour(enum.Enum):
    RED = "red"
    BLUE = (0, 0, 255)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mood(enum.StrEnum):
    GOOD = "good"


class Flags(enum.Flag):
    A = 1
    B = 2


class Layer(BaseModel):
    """With pydantic's own settings: NaN becomes null, bytes become text."""

    thickness: float = 0.1
    raw: bytes = b""
    when: datetime | None = None
    tags: dict[str, Any] = Field(default_factory=dict)


class Coated(Layer):
    coat: str = ""


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    size: float


class Square(BaseModel):
    kind: Literal["square"] = "square"
    size: float

    @computed_field
    @property
    def area(self) -> float:
        return self.size**2


class Named(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper, serialize_by_alias=True)
    value: int | str
    when: time | None = None


class Names(RootModel[list[str]]):
    pass


class Point(NamedTuple):
    x: float
    y: int


@dataclasses.dataclass
class Place:
    name: str
    at: datetime
    tags: set[int] = dataclasses.field(default_factory=set)


class Options(TypedDict, total=False):
    width: float
    since: date


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


class WithContext(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def _check(cls, value: int, info: Any) -> int:
        return value if info.context is None else info.context["factor"] * value


Array = Annotated[
    np.ndarray,
    BeforeValidator(lambda v: np.asarray(v, dtype=np.float64)),
    PlainSerializer(lambda v: v.tolist(), when_used="json"),
]
Frame = Annotated[
    pd.DataFrame,
    BeforeValidator(lambda v: v if isinstance(v, pd.DataFrame) else pd.DataFrame(v)),
    PlainSerializer(lambda v: v.to_dict("list"), when_used="json"),
]

text = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(
    ["\ud800", "a\x00b", "null", "NaN", "1", "2024-01-01", "true", "s3://b/k", "{}", "tagged:{}"]
)
integers = st.integers() | st.sampled_from([2**53 + 1, 2**63, -(2**64), 10**400])
floats = st.floats() | st.sampled_from([-0.0, 5e-324, 1e308])
decimals = (
    st.decimals(allow_nan=False, allow_infinity=False)
    | st.just(Decimal("1.10"))
    | st.just(Decimal("-0"))
)
zones = st.sampled_from(
    [
        *[None, UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("UTC")],
        *[timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=1), "CET")],
        *[TzInfo(0), TzInfo(-3600), timezone(timedelta(hours=-3, seconds=7))],
    ]
)
repeated_hour = datetime(2024, 10, 27, 2, 30)
moments = st.builds(
    lambda moment, fold, zone: moment.replace(fold=fold, tzinfo=zone),
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)) | st.just(repeated_hour),
    st.integers(0, 1),
    zones,
)
clock_times = st.builds(
    lambda moment, fold, zone: moment.replace(fold=fold, tzinfo=zone),
    st.times(),
    st.integers(0, 1),
    zones,
)
layers = st.builds(
    Layer,
    thickness=floats,
    raw=st.binary(max_size=4),
    when=st.none() | moments,
    tags=st.dictionaries(text, st.none() | integers | text, max_size=2),
)
scalars = st.one_of(
    *[st.none(), st.booleans(), integers, floats, text, decimals, moments, clock_times],
    *[st.dates(), st.timedeltas(), st.uuids(), st.binary(max_size=5), st.complex_numbers()],
    st.sampled_from([Path("/a b"), Path("rel/x")]),
)
keys = st.none() | st.booleans() | integers | floats | text | st.dates() | moments
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(keys, max_size=3),
        st.frozensets(st.integers() | st.tuples(st.integers(), text), max_size=2),
    ),
    max_leaves=6,
)

# Annotation and values. What is in the first must arrive; what is in the second may be refused.
Kind = tuple[Any, st.SearchStrategy[Any]]
CARRIED: dict[str, Kind] = {
    "text": (str, text),
    "number": (int, integers),
    "float": (float, floats),
    "flag": (bool, st.booleans()),
    "optional": (float | None, st.none() | floats),
    "mixed": (
        int | float | bool | str | None,
        st.none() | st.booleans() | integers | floats | text,
    ),
    "anything": (Any, anything),
    "decimal": (Decimal, decimals),
    "identifier": (uuid.UUID, st.uuids()),
    "path": (Path, st.sampled_from([Path("a"), Path("/tmp/ü x"), Path()])),
    "colour": (Colour, st.sampled_from(Colour)),
    "level": (Level, st.sampled_from(Level)),
    "mood": (Mood, st.sampled_from(Mood)),
    "literal": (Literal["a", 1, Level.LOW] | None, st.sampled_from(["a", 1, None])),
    "day": (date, st.dates()),
    "moment": (datetime, moments),
    "moments": (dict[str, list[datetime]], st.dictionaries(text, st.lists(moments, max_size=2))),
    "clock": (time, clock_times),
    "duration": (timedelta, st.timedeltas()),
    "day_or_text": (date | str, st.dates() | text),
    "moment_or_number": (datetime | float | None, st.none() | floats | moments),
    "raw": (bytes, st.binary(max_size=8)),
    "numbers": (set[int], st.sets(integers, max_size=3)),
    "fixed": (frozenset[str], st.frozensets(text, max_size=3)),
    "pair": (tuple[int, str], st.tuples(integers, text)),
    "many": (tuple[float, ...], st.lists(floats, max_size=3).map(tuple)),
    "point": (Point, st.builds(Point, floats, integers)),
    "by_number": (dict[int, float], st.dictionaries(integers, floats, max_size=3)),
    "by_pair": (
        dict[tuple[int, str], bool],
        st.dictionaries(st.tuples(integers, text), st.booleans()),
    ),
    "by_moment": (dict[datetime, int], st.dictionaries(moments, integers, max_size=2)),
    "layer": (Layer, layers),
    "layers": (list[Layer], st.lists(layers, max_size=2)),
    "shape": (
        Annotated[Circle | Square, Field(discriminator="kind")],
        st.builds(Circle, size=floats) | st.builds(Square, size=floats),
    ),
    "undeclared_shape": (
        Circle | Square,
        st.builds(Circle, size=floats) | st.builds(Square, size=floats),
    ),
    "named": (
        Named,
        st.builds(lambda v, w: Named(VALUE=v, WHEN=w), integers | text, st.none() | clock_times),
    ),
    "names": (Names, st.builds(Names, st.lists(text, max_size=2))),
    "place": (Place, st.builds(Place, text, moments, st.sets(integers, max_size=2))),
    "options": (
        Options,
        st.builds(lambda width, more: {"width": width, **more}, floats, st.just({}))
        | st.builds(lambda width, since: {"width": width, "since": since}, floats, st.dates()),
    ),
    "box": (Box[list[int]], st.builds(Box[list[int]], content=st.lists(integers, max_size=2))),
    "limited": (Annotated[int, Field(ge=0, lt=10)], st.integers(0, 9)),
    "array": (Array, st.lists(st.floats(), max_size=3).map(lambda v: np.asarray(v, np.float64))),
    "address": (ipaddress.IPv4Address, st.builds(ipaddress.IPv4Address, st.integers(0, 2**32 - 1))),
    "file": (
        FileReference,
        st.sampled_from(["s3://b/a%20b", "http://h/x?y=1", "file:///x"]),
    ),
    "url": (HttpUrl, st.sampled_from(["http://h/x", "https://ü.example/a?b#c"])),
    "queue": (deque[int], st.lists(integers, max_size=2).map(deque)),
    "ordered": (
        OrderedDict[str, int],
        st.dictionaries(text, integers, max_size=2).map(OrderedDict),
    ),
    "parsed": (Json[list[int]], st.sampled_from(["[1, 2]", "[]"])),
    "numpy_number": (float, st.builds(np.float64, floats)),
}
REFUSABLE: dict[str, Kind] = {
    "secret": (SecretStr, st.builds(SecretStr, st.just("hush"))),
    "subclass": (Layer, st.builds(Coated)),
    "subclass_in_union": (Coated | Layer, layers | st.builds(Coated, coat=text)),
    "model_in_any": (Any, layers),
    "enum_in_any": (Any, st.sampled_from([Colour.RED, Level.LOW, Mood.GOOD])),
    "point_in_any": (Any, st.builds(Point, floats, integers)),
    "object": (Any, st.builds(object)),
    "function": (Callable[[], int], st.just(lambda: 1)),
    "pure_path": (Any, st.just(PurePosixPath("x"))),
    "fraction": (Any, st.fractions()),
    "array_in_any": (Any, st.just(np.zeros(2))),
    "frame": (Frame, st.just(pd.DataFrame({"a": [1.0, 2.0]}, index=["x", "y"]))),
    "decimal_nan": (
        Annotated[Decimal, Field(allow_inf_nan=True)],
        st.sampled_from([Decimal("sNaN"), Decimal("-NaN"), Decimal("NaN5"), Decimal("-Infinity")]),
    ),
    "default_dict": (Any, st.just(defaultdict(int, a=1))),
    "queue_in_any": (Any, st.just(deque([1], 3))),
    "time_of_pandas": (datetime, st.just(pd.Timestamp("2026-01-01T12:00:00.000000001"))),
    "missing_time_of_pandas": (datetime, st.just(pd.NaT)),
    "timestamp_in_any": (Any, st.just(pd.Timestamp("2026-01-01", tz="Europe/Berlin"))),
    "number_of_numpy": (Any, st.just(np.float32(0.1))),
    "flags": (Flags, st.just(Flags.A | Flags.B)),
    "in_set": (set[Any], st.sets(keys, max_size=3)),
    "fraction_field": (Fraction, st.fractions()),
    "bytearray": (Any, st.just(bytearray(b"x"))),
}
