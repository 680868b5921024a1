"""Columns hold what was given, and tables with other columns are put together without loss."""

from __future__ import annotations

import io
import itertools
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.tables.arrow import column, from_ipc, table_from_rows, to_ipc
from scythe.tables.combine import concat
from scythe.tables.pandas_index import with_pandas_index

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        ([1, None], [1, None], pa.int64()),
        ([1, 2.5, None], [1.0, 2.5, None], pa.float64()),
        ([True, None], [True, None], pa.bool_()),
        (["a\x00", "", None, "😀"], ["a\x00", "", None, "😀"], pa.string()),
        ([None, None], [None, None], pa.null()),
        ([], [], pa.null()),
        ([True, 1], ["True", "1"], pa.string()),
        ([1, "a"], ["1", "a"], pa.string()),
        ([2**70, 1, None], [str(2**70), "1", None], pa.string()),
        ([2**63, -1], [str(2**63), "-1"], pa.string()),
        ([2**62 + 1, 0.5], [str(2**62 + 1), "0.5"], pa.string()),
        ([[1], [2.5], []], [[1.0], [2.5], []], pa.list_(pa.float64())),
        ([[], []], [[], []], pa.list_(pa.null())),
        ([[1], ["a"]], ["[1]", "['a']"], pa.string()),
        ([[1, "a"], 3], ["[1, 'a']", "3"], pa.string()),
        ([{"a": 1}, None, {}], ['{"a": 1}', None, "{}"], pa.string()),
        ([{"a": 1}, 2], ['{"a": 1}', "2"], pa.string()),
        ([[{"a": 1}, {}], []], ['[{"a": 1}, {}]', "[]"], pa.string()),
        ([[[{}]]], ["[[{}]]"], pa.string()),
        ([{"a": [None, "x"]}], ['{"a": [null, "x"]}'], pa.string()),
        (["\ud800", None, "a"], ["\\ud800", None, "a"], pa.string()),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_columns(values: list[Any], expected: list[Any], kind: pa.DataType) -> None:
    made = column(values)
    assert made.to_pylist() == expected
    assert made.type == kind
    pq.write_table(pa.table({"c": made}), io.BytesIO())  # Parquet takes all of them


def test_nan_is_not_null() -> None:
    made = column([1.0, NAN, None, math.inf])
    assert made.null_count == 1
    assert math.isnan(made[1].as_py())
    assert made[3].as_py() == math.inf


def test_rows_may_lack_keys() -> None:
    table = table_from_rows([{"a": 1}, {"b": "x"}, {}])
    assert table.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}, {"a": None, "b": None}]
    assert table_from_rows([]).num_columns == 0


def test_ipc_keeps_types_and_the_note_for_pandas() -> None:
    table = with_pandas_index(pa.table({"k": [1], "a": pa.array(["x"]).dictionary_encode()}), ["k"])
    back = from_ipc(to_ipc(table))
    assert back.equals(table)
    assert back.schema.metadata == table.schema.metadata


def times(unit: str, zone: str | None = None) -> pa.Array:
    return pa.array([0], pa.timestamp(unit, tz=zone))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1], [1.5], [1.0, 1.5]),
        ([2**62 + 1], [1.5], [str(2**62 + 1), "1.5"]),
        (pa.array([2**63], pa.uint64()), [-1], [Decimal(2**63), Decimal(-1)]),
        (pa.array([5], pa.uint64()), [-1], [5, -1]),
        (pa.array([1], pa.int8()), pa.array([300], pa.int16()), [1, 300]),
        (pa.array([1], pa.uint8()), pa.array([-1], pa.int8()), [1, -1]),
        ([1], ["a"], ["1", "a"]),
        ([True], [2], ["True", "2"]),
        ([[1]], [["a"]], ["[1]", "['a']"]),
        ([[1]], [[]], [[1], []]),
        ([None], [1], [None, 1]),
        (pa.array(["a"], pa.large_string()), ["b"], ["a", "b"]),
        (pa.array(["a"]).dictionary_encode(), ["b"], ["a", "b"]),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([1]).dictionary_encode(), [2], [1, 2]),
        (pa.array([1]).dictionary_encode(), ["b"], ["1", "b"]),
        ([b"\xff"], ["s"], ["b'\\xff'", "s"]),
        ([b"\xff"], [1], ["b'\\xff'", "1"]),
        ([Decimal("1.10")], [Decimal("123.4567")], [Decimal("1.1000"), Decimal("123.4567")]),
        ([{"a": 1}], [{"b": "x"}], [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ([{"a": 1}], [{"a": "x"}], ["{'a': 1}", "{'a': 'x'}"]),
    ],
    ids=lambda value: repr(value)[:30].replace("\n", ""),
)
def test_columns_of_different_types_are_put_together(
    one: Any, other: Any, expected: list[Any]
) -> None:
    found = concat([pa.table({"c": one}), pa.table({"c": other})], final=True)
    assert found.column("c").to_pylist() == expected
    turned = concat([pa.table({"c": other}), pa.table({"c": one})], final=True)
    assert turned.column("c").to_pylist() == expected[::-1]


def test_times_of_different_units_and_zones() -> None:
    units = concat([pa.table({"c": times("s")}), pa.table({"c": times("ns")})], final=True)
    assert units.schema.field("c").type == pa.timestamp("ns")
    one, other = pa.table({"c": times("s", "Europe/Berlin")}), pa.table({"c": times("s")})
    zones = concat([one, other], final=True)
    assert zones.column("c").to_pylist() == ["1970-01-01 01:00:00+01:00", "1970-01-01 00:00:00"]


def test_three_types_in_any_order() -> None:
    tables = [pa.table({"c": [1]}), pa.table({"c": [None]}), pa.table({"c": ["x"]})]
    for order in itertools.permutations(tables):
        assert set(concat(order, final=True).column("c").to_pylist()) == {"1", None, "x"}


def test_missing_columns_are_null() -> None:
    found = concat([pa.table({"a": [1]}), pa.table({"b": ["x"]}), pa.table({})])
    assert found.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_a_level_and_a_data_column_of_one_name_stay_apart() -> None:
    plain = with_pandas_index(pa.table({"x": [0.5], "a": [1]}), ["x"])
    clash = with_pandas_index(pa.table({"index.x": [1.5], "x": [99], "a": [2]}), [("index.x", "x")])
    for order in ([plain, clash], [clash, plain]):
        frame = concat(order, final=True).to_pandas().sort_values("a")
        assert frame.index.names == ["x"]
        assert frame.index.tolist() == [0.5, 1.5]
        assert frame["x"].fillna(-1).tolist() == [-1, 99]


def test_levels_that_only_some_tables_have() -> None:
    named = with_pandas_index(pa.table({"s": [0], "k": ["h"], "a": [1]}), ["s", "k"])
    plain = with_pandas_index(pa.table({"s": [1], "a": [2]}), ["s"])
    found = concat([plain, named])
    assert found.to_pandas().index.names == ["s", "k"]
    assert found.column("k").to_pylist() == [None, "h"]


def test_unnamed_levels_stay_unnamed() -> None:
    made = [pa.table({"__index_level_0__": [i], "a": [v]}) for i, v in ((1, 1), (2, "x"))]
    found = concat([with_pandas_index(table, [("__index_level_0__", None)]) for table in made])
    assert found.to_pandas().index.names == [None]


def test_tables_of_one_schema_are_not_touched() -> None:
    table = pa.table({"a": [1]})
    assert concat([table, table], final=True).schema.equals(table.schema, check_metadata=True)


def test_concat_of_many_small_tables_keeps_their_order() -> None:
    tables = [pa.table({"a": [i], "b": [str(i)] if i % 2 else [None]}) for i in range(500)]
    assert concat(tables).column("a").to_pylist() == list(range(500))
