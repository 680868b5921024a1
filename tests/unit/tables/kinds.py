"""Columns of every kind of `docs/tables.md`, for hypothesis."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

PAGE = Path(__file__).parents[3] / "docs" / "tables.md"
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "+05:30")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def pairs() -> dict[frozenset[str], str]:
    """The pairs of kinds that have a type in common, as the page says it."""
    section = PAGE.read_text().split("## Two types in one column")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return {frozenset(row[:2]): row[2] for row in rows if row[0] not in ("one", "---")}


def kinds() -> list[str]:
    """The kinds of columns that the page names."""
    section = PAGE.read_text().split("## Types")[1].split("\n## ")[0]
    return re.findall(r"^\| (?!kind|---)(.+?) \|", section, re.MULTILINE)


def _integers(kind: pa.DataType) -> st.SearchStrategy[int]:
    low = -(2 ** (kind.bit_width - 1)) if pa.types.is_signed_integer(kind) else 0
    return st.integers(low, low + 2**kind.bit_width - 1)


def _floats(kind: pa.DataType) -> st.SearchStrategy[float]:
    return st.floats(width=kind.bit_width, allow_nan=False)  # type: ignore[arg-type]


def _decimals(kind: Any) -> st.SearchStrategy[Decimal]:
    top = 10**kind.precision - 1
    exact = Context(prec=80)
    return st.integers(-top, top).map(lambda n: Decimal(n).scaleb(-kind.scale, exact))


def _moments(unit: str) -> st.SearchStrategy[int]:
    year = {"ns": 2250, "us": 9990, "ms": 9990, "s": 9990}[unit]
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    top = int(dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp()) * per_second
    low = -200 * 365 * 86400 * per_second
    return st.integers(low, top)


def _spans(unit: str) -> st.SearchStrategy[int]:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    top = 200 * 365 * 86400 * per_second
    return st.integers(-top, top)


_NESTED = "s ms us"  # pandas shows nanoseconds within lists and structs as integers
INTEGERS = st.sampled_from(
    [getattr(pa, f"{sign}int{n}")() for sign in ("", "u") for n in (8, 16, 32, 64)]
)
FLOATS = st.sampled_from([pa.float16(), pa.float32(), pa.float64()])


@st.composite
def arrays(draw: st.DrawFn, kind: str, units: str = "s ms us ns") -> pa.Array:  # noqa: C901
    """A column of a kind, of a type drawn, with one to three values, of which some may be null."""
    size = draw(st.integers(1, 3))

    def many(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(st.none() | values, min_size=size, max_size=size))

    match kind:
        case "null":
            return pa.nulls(size)
        case "boolean":
            return pa.array(many(st.booleans()), pa.bool_())
        case "integer":
            one = draw(INTEGERS)
            return pa.array(many(_integers(one)), one)
        case "float":
            one = draw(FLOATS)
            return pa.array(many(_floats(one)), one)
        case "decimal":
            precision = draw(st.integers(1, 38))
            one = pa.decimal128(precision, draw(st.integers(0, precision)))
            with_context = many(_decimals(one))
            return pa.array(with_context, one)
        case "date":
            return pa.array(many(st.dates()), draw(st.sampled_from([pa.date32(), pa.date64()])))
        case "timestamp" | "timestamp with zone":
            unit = draw(st.sampled_from(units.split()))
            zone = None if kind == "timestamp" else draw(st.sampled_from(ZONES))
            return pa.array(many(_moments(unit)), pa.int64()).cast(pa.timestamp(unit, zone))
        case "duration":
            unit = draw(st.sampled_from(units.split()))
            return pa.array(many(_spans(unit)), pa.int64()).cast(pa.duration(unit))
        case "time":
            one = draw(
                st.sampled_from([pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")])
            )
            return pa.array(many(st.times()), pa.time64("us")).cast(one, safe=False)
        case "text":
            return pa.array(
                many(TEXTS),
                draw(st.sampled_from([pa.string(), pa.large_string(), pa.string_view()])),
            )
        case "bytes":
            return pa.array(
                many(st.binary(max_size=4)), draw(st.sampled_from([pa.binary(), pa.large_binary()]))
            )
        case "category":
            values = pa.array(many(st.sampled_from("abcd")), pa.string()).dictionary_encode()
            return values.cast(
                pa.dictionary(draw(st.sampled_from([pa.int8(), pa.uint32()])), pa.string())
            )
        case "list":
            inner = draw(arrays(draw(st.sampled_from(FLAT)), _NESTED))
            offsets = sorted(
                draw(st.lists(st.integers(0, len(inner)), min_size=size + 1, max_size=size + 1))
            )
            make = draw(
                st.sampled_from([(pa.ListArray, pa.int32()), (pa.LargeListArray, pa.int64())])
            )
            return make[0].from_arrays(pa.array(offsets, make[1]), inner)
        case "struct":
            names = draw(st.lists(st.sampled_from("pqr"), min_size=1, max_size=2, unique=True))
            fields = [draw(arrays(draw(st.sampled_from(FLAT)), _NESTED)) for _ in names]
            length = min(map(len, fields))
            return pa.StructArray.from_arrays([one[:length] for one in fields], names)
        case "period":
            numbers = draw(st.lists(st.integers(0, 500), min_size=size, max_size=size))
            freq = draw(st.sampled_from("MDYh"))
            periods = pd.PeriodIndex.from_ordinals(numbers, freq=freq)
            return pa.Table.from_pandas(pd.DataFrame({"c": periods})).column("c").combine_chunks()
        case "interval":
            bounds = draw(st.lists(st.integers(0, 50), min_size=size, max_size=size))
            made = pd.arrays.IntervalArray.from_arrays(
                [b / 2 for b in bounds], [b + 1.0 for b in bounds]
            )
            return pa.Table.from_pandas(pd.DataFrame({"c": made})).column("c").combine_chunks()
    raise AssertionError(kind)


FLAT = [
    "boolean",
    "integer",
    "float",
    "date",
    "timestamp",
    "duration",
    "text",
    "bytes",
    "decimal",
    "null",
]
