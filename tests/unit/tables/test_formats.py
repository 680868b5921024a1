"""Tables without an index, and in files of several formats."""

from __future__ import annotations

import importlib.util
import io
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.errors import MissingLibraryError, OutputError, ResultNotFoundError
from scythe.tables.formats import write_csv, write_table
from scythe.tables.pandas_index import with_pandas_index
from scythe.tables.tidy import tidy_columns, tidy_table


def stored() -> pa.Table:
    """Return a table as a run stores it: ids, a field that an output is called like, an output."""
    columns = {
        "experiment_id": ["e", "e"],
        "sort_index": [0, 1],
        "workflow_run_id": ["a", "b"],
        "width": [1.5, 2.5],
        "index.area": [1, 2],
        "area": [7.0, float("nan")],
    }
    levels = ["experiment_id", "sort_index", "workflow_run_id", "width", ("index.area", "area")]
    return with_pandas_index(pa.table(columns), levels)


def reader(table: pa.Table, rows: int = 1) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=rows))


def test_a_tidy_table_has_fields_then_outputs_and_no_ids() -> None:
    table = tidy_table(stored())
    assert table.column_names == ["sort_index", "width", "index.area", "area"]
    frame = table.to_pandas()
    assert isinstance(frame.index, pd.RangeIndex)
    assert frame["index.area"].tolist() == [1, 2]


def test_columns_can_be_chosen_ids_among_them() -> None:
    table = tidy_table(stored(), ["area", "workflow_run_id"])
    assert table.column_names == ["area", "workflow_run_id"]
    with pytest.raises(ResultNotFoundError, match=r"no column 'depth'\. It has: .*width"):
        tidy_columns(stored().schema, ["width", "depth"])


def test_csv_has_a_text_for_every_type() -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    values: dict[str, list[Any]] = {
        "i": [1, None],
        "text": ['a,"b"', "ü\n"],
        "at": [noon, None],
        "took": [timedelta(seconds=90), None],
        "list": [[1, 2], []],
        "struct": [{"a": 1}, None],
        "bytes": [b"\x00\xff", None],
        "nothing": [None, None],
    }
    table = pa.table(values)
    table = table.append_column("kind", pa.array(["x", "y"]).dictionary_encode())
    sink = io.BytesIO()
    assert write_csv(reader(table), sink) == 2
    read = pd.read_csv(io.BytesIO(sink.getvalue()))
    assert read["text"].tolist() == ['a,"b"', "ü\n"]
    assert pd.Timestamp(read["at"][0]) == noon
    assert json.loads(read["list"][0]) == [1, 2]
    assert json.loads(read["struct"][0]) == {"a": 1}
    assert (read["took"][0], read["bytes"][0]) == ("0:01:30", "00ff")
    assert read["kind"].tolist() == ["x", "y"]


@pytest.mark.parametrize("suffix", [".parquet", ".pq", ".csv"])
def test_a_file_is_whole_or_as_it_was(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"
    table = pa.table({"x": list(range(10))})
    assert write_table(reader(table, 3), file, "scalars") == 10
    before = file.read_bytes()

    def broken() -> Any:
        yield table.to_batches()[0]
        raise OSError("the store is gone")

    with pytest.raises(OSError, match="gone"):
        write_table(pa.RecordBatchReader.from_batches(table.schema, broken()), file, "scalars")
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [file.name]
    read = pq.read_table(file).to_pandas() if suffix != ".csv" else pd.read_csv(file)
    assert read["x"].tolist() == list(range(10))


def test_a_name_that_says_no_format(tmp_path: Path) -> None:
    table = pa.table({"x": [1]})
    with pytest.raises(OutputError, match=r"'t\.txt' does not say .* \.csv"):
        write_table(reader(table), tmp_path / "t.txt", "scalars")
    with pytest.raises(OutputError, match=r"folder .*nowhere is not there"):
        write_table(reader(table), tmp_path / "nowhere" / "t.csv", "scalars")


@pytest.mark.parametrize(("suffix", "library"), [(".xlsx", "openpyxl"), (".duckdb", "duckdb")])
def test_formats_of_optional_libraries(suffix: str, library: str, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"
    table = pa.table({"x": [1, 2], "at": [datetime(2026, 1, 2, tzinfo=UTC)] * 2, "l": [[1], [2]]})
    if importlib.util.find_spec(library) is None:
        with pytest.raises(MissingLibraryError, match=f"pip install {library}"):
            write_table(reader(table), file, "scalars")
        assert not file.exists()
        return
    assert write_table(reader(table), file, "scalars") == 2
    if library == "openpyxl":
        assert pd.read_excel(file)["x"].tolist() == [1, 2]
    else:
        duckdb: Any = importlib.import_module("duckdb")
        with duckdb.connect(str(file)) as database:
            assert database.execute("select sum(x) from scalars").fetchone() == (3,)


def die_after_some_rows(path: str) -> None:
    """Write a table whose reader kills the process after two of its batches."""
    schema = pa.schema([pa.field("n", pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(2):
            yield pa.record_batch([pa.array(range(100_000))], schema=schema)
        os.kill(os.getpid(), signal.SIGKILL)

    write_table(pa.RecordBatchReader.from_batches(schema, batches()), Path(path), "scalars")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_writer_that_is_killed_leaves_the_file_as_it_was(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"
    write_table(reader(tidy_table(stored())), file, "scalars")
    before = file.read_bytes()
    writer = multiprocessing.get_context("spawn").Process(
        target=die_after_some_rows, args=(str(file),)
    )
    writer.start()
    writer.join(120)
    assert writer.exitcode == -signal.SIGKILL
    assert file.read_bytes() == before
    assert write_table(reader(tidy_table(stored())), file, "scalars") == 2
