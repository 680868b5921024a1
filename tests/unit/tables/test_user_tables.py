"""Tables of pandas, polars and Arrow become Parquet that pandas reads with the spec's index."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.errors import OutputError
from scythe.tables.arrow import from_ipc, to_ipc
from scythe.tables.combine import concat
from scythe.tables.merge import merge_files, write_merged
from scythe.tables.names import ORDER
from scythe.tables.user_tables import is_table, storable, to_arrow, with_leaf_index

INDEX: dict[str, Any] = {"experiment_id": "e", "sort_index": 3, "x": 1.5, "workflow_run_id": None}
SPEC_LEVELS = list(INDEX)
ROWS = 2


def read_back(table: pa.Table) -> pd.DataFrame:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return pd.read_parquet(buffer)


def stored(value: Any, index: dict[str, Any] = INDEX) -> pd.DataFrame:
    """Return a leaf's table as a user reads it."""
    return read_back(with_leaf_index(storable("t", value), index))


def merged(folder: Path, *values: Any) -> pd.DataFrame:
    """Return the merged table of leaves, each of which comes from a node of its own."""
    files: list[Path] = []
    for row, value in enumerate(values):
        table = with_leaf_index(storable("t", value), {"sort_index": row, "x": row / 2})
        table = from_ipc(to_ipc(table))
        table = table.append_column(ORDER, pa.array([row] * table.num_rows, pa.int64()))
        files.insert(0, folder / f"{row}.pq")
        write_merged([concat([table])], files[0], final=False)
    merge_files(files, folder / "all.pq", final=True)
    return pd.read_parquet(folder / "all.pq")


PANDAS: dict[str, pd.DataFrame] = {
    "plain": pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
    "numbers as names": pd.DataFrame({0: [1, 2], 1: [3, 4]}),
    "times as names": pd.DataFrame({pd.Timestamp("2024"): [1, 2]}),
    "two rows of names": pd.DataFrame({("a", "b"): [1, 2], ("a", "c"): [3, 4]}),
    "named names": pd.DataFrame({"a": [1, 2]}).rename_axis(columns="kind"),
    "nullable": pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "s": pd.array(["a", None], dtype="string"),
            "b": pd.array([True, None], dtype="boolean"),
        }
    ),
    "category": pd.DataFrame(
        {"c": pd.Categorical(["a", "b"], categories=["b", "a"], ordered=True)}
    ),
    "times": pd.DataFrame(
        {
            "t": pd.to_datetime(["2024-01-01", None]),
            "z": pd.to_datetime(["2024-03-31 01:30", "2024-10-27 02:30"]).tz_localize("UTC"),
            "b": pd.to_datetime(["2024-07-01", "2024-12-01"]).tz_localize("Europe/Berlin"),
            "d": pd.to_timedelta([1, 2], unit="s"),
            "p": pd.period_range("2024", periods=2, freq="D"),
        }
    ),
    "lists": pd.DataFrame({"l": [[1, 2], []]}),
    "empty": pd.DataFrame({"a": np.array([], dtype="int64"), "s": pd.array([], dtype="string")}),
    "intervals": pd.DataFrame({"i": pd.interval_range(0, 2)}),
    "bool": pd.DataFrame({"a": [True, False]}),
}


@pytest.mark.parametrize("frame", PANDAS.values(), ids=PANDAS)
def test_pandas_columns_names_and_dtypes_are_kept(frame: pd.DataFrame, tmp_path: Path) -> None:
    # What pandas itself keeps in a Parquet file is the measure.
    frame.to_parquet(tmp_path / "own.pq")
    expected = pd.read_parquet(tmp_path / "own.pq")
    for found in (stored(frame), merged(tmp_path, frame, frame).iloc[: len(frame)]):
        for column in found.select_dtypes("datetimetz"):  # the moments are the same
            expected[column] = expected[column].dt.tz_convert(found[column].dt.tz)
        pd.testing.assert_frame_equal(
            found.reset_index(drop=True), expected, check_column_type=False
        )


def test_a_table_without_index_gets_the_levels_of_the_spec_and_its_row_number() -> None:
    found = stored(pd.DataFrame({"a": [5, 6]}))
    assert found.index.names == [*SPEC_LEVELS, "sort_subindex"]
    assert found.reset_index()[
        ["experiment_id", "sort_index", "x", "sort_subindex"]
    ].values.tolist() == [
        ["e", 3, 1.5, 0],
        ["e", 3, 1.5, 1],
    ]


@pytest.mark.parametrize(
    ("index", "names", "values"),
    [
        (pd.Index(["p", "q"], name="zone"), ["zone"], [("p",), ("q",)]),
        (pd.RangeIndex(2, name="hour"), ["hour"], [(0,), (1,)]),
        (pd.RangeIndex(5, 7), ["sort_subindex"], [(5,), (6,)]),
        (pd.Index([7, 9]), ["sort_subindex"], [(7,), (9,)]),
        (pd.Index(["p", "q"]), [None], [("p",), ("q",)]),
        (
            pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["i", None]),
            ["i", None],
            [(1, "a"), (2, "b")],
        ),
    ],
    ids=["named", "named range", "range", "numbers", "unnamed", "multi"],
)
def test_a_table_with_an_index_of_its_own_keeps_it(
    index: pd.Index, names: list[str | None], values: list[Any]
) -> None:
    found = stored(pd.DataFrame({"a": [1, 2]}, index=index))
    assert list(found.index.names) == [*SPEC_LEVELS, *names]
    assert [key[len(SPEC_LEVELS) :] for key in found.index] == values


def test_a_time_zone_in_the_index_is_kept() -> None:
    hours = pd.date_range("2024-01-01", periods=2, freq="h", tz="Europe/Berlin", name="t")
    level = stored(pd.DataFrame({"a": [1, 2]}, index=hours)).index.get_level_values("t")
    assert str(level.tz) == "Europe/Berlin"
    assert list(level) == list(hours)


def test_a_table_made_with_make_multiindex_is_left_alone() -> None:
    index = pd.MultiIndex.from_tuples([(3, 0), (3, 1)], names=["sort_index", "sort_subindex"])
    frame = pd.DataFrame({"a": [1, 2]}, index=index)
    pd.testing.assert_frame_equal(stored(frame), frame)


def test_columns_with_the_names_of_levels() -> None:
    frame = pd.DataFrame({"x": [7, 8], "index.x": [9, 9], "sort_index": [0, 0]})
    found = stored(frame)
    assert list(found.columns) == ["x", "index.x", "sort_index"]
    assert list(found.index.names) == [*SPEC_LEVELS, "sort_subindex"]
    assert found["x"].tolist() == [7, 8]
    assert found.index.get_level_values("x").tolist() == [1.5, 1.5]


def test_an_own_level_with_the_name_of_a_field_does_not_hide_it() -> None:
    found = stored(pd.DataFrame({"a": [1, 2]}, index=pd.Index(["p", "q"], name="x")))
    places = [i for i, name in enumerate(found.index.names) if name == "x"]
    assert [[key[i] for i in places] for key in found.index] == [[1.5, "p"], [1.5, "q"]]


POLARS = pl.DataFrame(
    {
        "text": ["x", None],
        "number": [1, 2],
        "list": [["q"], []],
        "struct": [{"k": "v"}, {"k": None}],
        "category": ["u", "v"],
        "enum": ["u", "v"],
        "bytes": [b"\x00\xff", b""],
        "nested": [[["d"]], []],
        "when": pl.Series([0, 1]).cast(pl.Datetime("us", "UTC")),
        "day": pl.Series([0, 1]).cast(pl.Date),
        "price": pl.Series(["1.10", "2.20"]).cast(pl.Decimal(10, 2)),
    },
    schema_overrides={"category": pl.Categorical, "enum": pl.Enum(["u", "v"])},
)


class Capsule:
    """Somebody else's table, which only has the Arrow PyCapsule interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "value",
    [
        POLARS,
        POLARS.to_arrow(),
        pa.table({"a": [1, 2], "d": pa.array(["x", "y"]).dictionary_encode()}),
        pa.table({"v": pa.array(["a", "b"], pa.string_view())}),
        pa.record_batch({"a": [1, 2]}),
        Capsule(pa.table({"a": [1, 2]})),
    ],
    ids=["polars", "arrow of polars", "dictionary", "views", "batch", "capsule"],
)
def test_other_libraries_survive_the_whole_way(value: Any, tmp_path: Path) -> None:
    assert is_table(value)
    expected = (value if isinstance(value, pa.Table) else pa.table(value)).to_pylist()
    all_rows = merged(tmp_path, value, value, value)
    assert len(all_rows) == 3 * ROWS
    found = pq.read_table(tmp_path / "all.pq").select(list(expected[0])).to_pylist()
    assert found == expected * 3


def test_text_of_polars_and_pandas_go_together(tmp_path: Path) -> None:
    frames = [pl.DataFrame({"s": ["a"]}), pd.DataFrame({"s": ["b"]}), pa.table({"s": ["c"]})]
    assert merged(tmp_path, *frames)["s"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    "value",
    [1, "s3://b/k.pq", [1], {"a": [1]}, None, object()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_table(value: Any) -> None:
    assert not is_table(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (pa.table([[1], [2]], names=["a", "a"]), "several columns called 'a'"),
        (pd.DataFrame({ORDER: [1]}), f"has a column '{ORDER}'"),
        (pd.DataFrame({"o": [object()]}), "column 'o' holds objects of type object"),
        (pd.DataFrame({"o": [[print, object()]]}), "column 'o' holds objects of type list"),
        (pd.DataFrame({"o": [pd.DataFrame()]}), "column 'o' holds objects of type DataFrame"),
        (pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}), "column 'o' holds objects"),
        (pd.DataFrame({"o": pd.cut([1, 2], 2)}), r"column 'o' .* intervals: use .astype\(str\)"),
        (pd.DataFrame({"a": [1, 2]}, pd.cut([1, 2], 2)), r"'level 0' .*use .astype\(str\)"),
    ],
)
def test_tables_that_cannot_be_stored_fail_the_leaf_with_a_sentence(
    value: Any, reason: str
) -> None:
    with pytest.raises(OutputError, match=f"Table 'loads'.*{reason}"):
        storable("loads", value)


def test_names_of_mixed_kinds_become_text() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas' own, which the user sees
        found = stored(pd.DataFrame([[1, 2]], columns=[0, "a"]))
    assert list(found.columns) == ["0", "a"]


def test_frames_without_rows() -> None:
    for value in (pd.DataFrame(), pa.table({"a": pa.array([], pa.null())}), POLARS.clear()):
        found = stored(value)
        assert len(found) == 0
        assert found.index.names[:2] == ["experiment_id", "sort_index"]


def test_rows_without_columns_are_kept() -> None:
    found = stored(pd.DataFrame(index=range(2)))
    assert found.index.get_level_values("sort_subindex").tolist() == [0, 1]


def test_an_arrow_table_with_no_odd_types_is_not_copied() -> None:
    table = pa.table({"a": [1]})
    assert to_arrow(table) is table


def test_a_large_table_carries_each_level_once_and_reads_like_a_small_one(tmp_path: Path) -> None:
    index = {**INDEX, "t": "text", "flag": True}
    n_rows = 1000
    frame = pa.table({"a": np.random.default_rng(0).random(n_rows)})
    large = with_leaf_index(storable("t", frame), index)
    data = to_ipc(large)
    numbers = pa.array(np.arange(n_rows))
    assert len(data) < len(to_ipc(frame.append_column("n", numbers))) + 6000  # the index is a note
    read = from_ipc(data)
    parts = [from_ipc(to_ipc(with_leaf_index(frame.slice(i, 10), index))) for i in (0, 990)]
    assert read.schema.equals(parts[0].schema, check_metadata=True)
    for name, value in index.items():
        assert read.column(name).to_pylist() == [value] * n_rows
    found = read_back(read)
    assert found.index.names == [*index, "sort_subindex"]
    assert found["a"].tolist() == frame.column("a").to_pylist()
    values = [pa.table({"a": range(n_rows)}), pa.table({"a": [1, 2]})]
    both = merged(tmp_path, *values)
    assert both.index.get_level_values("sort_index").tolist() == [0] * n_rows + [1, 1]
    assert both.index.get_level_values("x").tolist() == [0.0] * n_rows + [0.5, 0.5]
