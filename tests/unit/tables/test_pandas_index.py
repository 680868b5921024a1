"""The note for pandas: levels by name, dtypes kept, and agreement of several tables."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from scythe.tables.pandas_index import free_name, index_names, roles, shared_note, with_pandas_index


def test_levels_under_other_names() -> None:
    table = with_pandas_index(pa.table({"index.x": [1], "x": [2]}), [("index.x", "x")])
    frame = table.to_pandas()
    assert frame.index.names == ["x"]
    assert frame.index.tolist() == [1]
    assert frame["x"].tolist() == [2]
    assert index_names(table.schema) == [("index.x", "x")]
    assert roles(table.schema) == {("level", "x", 0): "index.x", ("data", "x", 0): "x"}


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None]),
        pa.array([1.5, None]),
        pa.array([True, None]),
        pa.array(["a", None]),
        pa.array(["a", None], pa.large_string()),
        pa.array([None, None]),
        pa.array([1, 2], pa.timestamp("us", tz="UTC")),
        pa.array([1, 2], pa.timestamp("s")),
        pa.array([[1], None]),
        pa.array([1, 2], pa.uint8()),
    ],
    ids=lambda array: str(array.type),
)
def test_pandas_reads_levels_of_any_type(values: pa.Array) -> None:
    table = with_pandas_index(pa.table({"k": values, "a": [1, 2]}), ["k"])
    frame = table.to_pandas()
    assert frame.index.names == ["k"]
    assert list(frame.columns) == ["a"]
    assert len(frame) == 2


def test_tables_without_a_note_have_no_index() -> None:
    schema = pa.schema([("a", pa.int64())])
    assert index_names(schema) == []
    assert roles(schema) == {("data", "a", 0): "a"}


def test_a_range_is_no_column() -> None:
    assert index_names(pa.Table.from_pandas(pd.DataFrame({"a": [1]})).schema) == []


def test_two_levels_of_one_name_are_two() -> None:
    index = pd.MultiIndex.from_tuples([(1, 2)], names=["k", None])
    schema = pa.Table.from_pandas(pd.DataFrame({"a": [1]}, index=index)).schema
    table = with_pandas_index(pa.table({"p": [1], "q": [2]}), [("p", "k"), ("q", "k")])
    assert roles(table.schema) == {("level", "k", 0): "p", ("level", "k", 1): "q"}
    assert roles(schema)["level", "k", 0] == "k"
    assert roles(schema)["level", "__index_level_1__", 0] == "__index_level_1__"


def test_free_names() -> None:
    assert free_name("x", ["a"]) == "x"
    assert free_name("x", {"x", "index.x"}) == "index.index.x"


def test_dtypes_are_kept_where_all_tables_agree() -> None:
    def schema(dtype: str) -> pa.Schema:
        return pa.Table.from_pandas(pd.DataFrame({"a": pd.array([1], dtype=dtype)})).schema

    def dtype_of(note: dict[bytes, bytes]) -> str:
        table = pa.table({"a": pa.array([1, None], pa.int64())}, metadata=note)
        return str(with_pandas_index(table, []).to_pandas()["a"].dtype)

    unified = pa.schema([("a", pa.int64())])
    assert dtype_of(shared_note([schema("Int64"), schema("Int64")], unified)) == "Int64"
    assert dtype_of(shared_note([schema("Int64"), schema("int64")], unified)) == "float64"
    assert dtype_of(shared_note([schema("Int64"), schema("Int32")], unified)) == "float64"
