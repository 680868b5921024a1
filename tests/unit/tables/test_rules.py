"""`docs/tables.md` holds for any two types, any values, and any way from leaves to the table."""

from __future__ import annotations

import tempfile
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tables.kinds import arrays, kinds, pairs
from tests.unit.tables.readers import has_nanoseconds, is_same, is_text, texts, values
from tests.unit.tables.through import WAYS, Way, final_table, record

KINDS = kinds()
PAIRS = pairs()


def read(file: Path) -> dict[str, list[Any]]:
    """Read the column with each reader."""
    table = pq.read_table(file)
    found = {"pyarrow": values(table.column("c")), "pandas": list(pd.read_parquet(file)["c"])}
    if not isinstance(table.schema.field("c").type, pa.BaseExtensionType):  # unknown to polars
        found["polars"] = pl.read_parquet(file)["c"].to_list()
    return found


def check(columns: list[pa.Array], way: Way) -> tuple[pa.DataType, list[str]]:
    """Take a column of each leaf to the final table, and compare what readers find there."""
    with tempfile.TemporaryDirectory() as folder:
        records = [record(row, {"t": pa.table({"c": one})}, {}) for row, one in enumerate(columns)]
        file, warnings = final_table(Path(folder), records, way)
        kind = pq.read_schema(file).field("c").type
        given = [
            value for one in columns for value in (texts(one) if is_text(kind) else values(one))
        ]
        for reader, found in read(file).items():
            assert len(found) == len(given), reader
            for one, other in zip(found, given, strict=True):
                if reader == "polars" and has_nanoseconds(other):
                    continue
                assert is_same(one, other), (reader, one, other, kind)
    return kind, warnings


@pytest.mark.timeout(1800)
@given(st.data())
def test_any_types_of_any_leaves_on_any_way(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    check([data.draw(arrays(word)) for word in words], data.draw(st.sampled_from(WAYS)))


@pytest.mark.timeout(1800)
@given(st.data())
def test_a_pair_of_the_page_becomes_text_only_where_the_page_says_so(data: st.DataObject) -> None:
    pair = data.draw(st.sampled_from(list(PAIRS)))
    one, other = min(pair), max(pair)
    columns = [data.draw(arrays(one)), data.draw(arrays(other))]
    kind, warnings = check(columns, "one node")
    if is_text(kind):
        assert "text" in PAIRS[pair] or "text" in pair
    else:
        assert warnings == []


UNLISTED = [
    pair
    for pair in combinations_with_replacement(KINDS, 2)
    if frozenset(pair) not in PAIRS and "null" not in pair
]


@pytest.mark.parametrize("pair", UNLISTED, ids=" and ".join)
@settings(max_examples=3)
@given(st.data())
def test_a_pair_that_is_not_on_the_page_becomes_text(
    pair: tuple[str, str], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(pair))
    columns = [data.draw(arrays(word).filter(has_values)) for word in order]
    same = columns[0].type == columns[1].type
    kind, warnings = check(columns, "batches")
    assert is_text(kind) != same
    assert len(warnings) == int(not same)
    for warning in warnings:
        assert "Column 'c' of table 't' became text" in warning
        assert "leaf 0" in warning and "leaf 1" in warning


def has_values(column: pa.Array) -> bool:
    return column.null_count < len(column)
