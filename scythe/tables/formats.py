"""Write a table, some rows at a time, in the format that a file's name asks for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.errors import MissingLibraryError, OutputError

if TYPE_CHECKING:
    import pyarrow as pa

_EXCEL_ROWS = 1_048_576  # of a sheet, its header included


def check_format(path: Path) -> None:
    """Raise unless a table can be written to a file of this name here.

    Raises:
        OutputError: The suffix stands for no format.
        MissingLibraryError: The library that writes it is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise OutputError(
            f"{path.name!r} does not say in which format to write: let it end in "
            f"{', '.join(_WRITERS)}."
        )
    _, library, purpose = _WRITERS[suffix]
    if library:
        _load(library, purpose)
    if not path.absolute().parent.is_dir():
        raise OutputError(f"The folder {path.absolute().parent} is not there: make it first.")


def write_table(reader: pa.RecordBatchReader, path: Path, name: str) -> int:
    """Write a table to a file, whose suffix says how; return the number of its rows.

    Memory holds some rows at a time. The file is whole, or as it was before.

    Args:
        reader: The rows.
        path: The file; `.pq`, `.parquet`, `.csv`, `.xlsx` or `.duckdb`.
        name: The name of the table, for formats that have several in one file.
    """
    check_format(path)
    return _WRITERS[path.suffix.lower()][0](reader, path, name)


def write_csv(reader: pa.RecordBatchReader, sink: Any) -> int:
    """Write a table as CSV to a binary file that is open; return the number of its rows.

    Lists and other nested values are written as JSON.
    """
    import pyarrow as pa
    from pyarrow import csv

    kinds = {field.name: _csv_type(field.type) for field in reader.schema}
    schema = pa.schema([pa.field(name, kind or pa.string()) for name, kind in kinds.items()])
    rows = 0
    with csv.CSVWriter(sink, schema) as writer:
        for batch in reader:
            columns = [
                batch.column(number).cast(kind) if kind else _texts(batch.column(number))
                for number, kind in enumerate(kinds.values())
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            rows += batch.num_rows
    return rows


@contextmanager
def _replacing(path: Path) -> Generator[Path]:
    """Give a new file beside `path`, which takes its place when all went well."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _to_parquet(reader: pa.RecordBatchReader, path: Path, name: str) -> int:
    del name
    import pyarrow.parquet as pq

    rows = 0
    with _replacing(path) as file, pq.ParquetWriter(file, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _to_csv(reader: pa.RecordBatchReader, path: Path, name: str) -> int:
    del name
    with _replacing(path) as file, file.open("wb") as sink:
        return write_csv(reader, sink)


def _to_excel(reader: pa.RecordBatchReader, path: Path, name: str) -> int:
    book = _load("openpyxl", "An Excel file").Workbook(write_only=True)
    sheet = book.create_sheet(name[:31])
    sheet.append(reader.schema.names)
    rows = 0
    for batch in reader:
        rows += batch.num_rows
        if rows >= _EXCEL_ROWS:
            raise OutputError(
                f"The table has more than the {_EXCEL_ROWS - 1:,} rows of an Excel sheet: write "
                "CSV or Parquet."
            )
        for row in batch.to_pylist():
            sheet.append([_cell(value) for value in row.values()])
    with _replacing(path) as file:
        book.save(file)
    return rows


def _to_duckdb(reader: pa.RecordBatchReader, path: Path, name: str) -> int:
    with _load("duckdb", "A DuckDB file").connect(str(path)) as database:
        database.register("scythe_rows", reader)
        quoted = '"' + name.replace('"', '""') + '"'
        database.execute(f"create or replace table {quoted} as from scythe_rows")
        counted = database.execute(f"select count(*) from {quoted}").fetchone()  # noqa: S608
    return int(counted[0])


_WRITERS: dict[str, tuple[Callable[[Any, Path, str], int], str, str]] = {
    ".parquet": (_to_parquet, "", ""),
    ".pq": (_to_parquet, "", ""),
    ".csv": (_to_csv, "", ""),
    ".xlsx": (_to_excel, "openpyxl", "An Excel file"),
    ".duckdb": (_to_duckdb, "duckdb", "A DuckDB file"),
}


def _load(library: str, purpose: str) -> Any:
    try:
        return import_module(library)
    except ImportError:
        raise MissingLibraryError(library, purpose) from None


def _csv_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type in which a column is written to CSV; None for text that is made here."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _csv_type(kind.value_type)
    plain = (
        *(types.is_integer, types.is_floating, types.is_boolean, types.is_string),
        *(types.is_large_string, types.is_date, types.is_timestamp, types.is_null),
    )
    return kind if any(is_kind(kind) for is_kind in plain) else None


def _texts(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if v is None else _text(v) for v in column.to_pylist()], pa.string())


def _text(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str)
    return value.hex() if isinstance(value, bytes) else str(value)


def _cell(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()  # a cell has no zone
    is_plain = value is None or isinstance(value, bool | int | float | str | date | datetime)
    return value if is_plain else _text(value)
