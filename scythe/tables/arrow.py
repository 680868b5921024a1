"""Makes Arrow tables from rows, and writes and reads them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.tables.casts import texts_of
from scythe.tables.columns import Kind, variant_field
from scythe.tables.combine import concat
from scythe.tables.pandas_index import free_name

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 65_536  # rows read at one time
_MANY_COLUMNS = 1000
_TYPES_OF_PANDAS = "pandas.core.arrays.arrow.extension_types"


def to_ipc(table: pa.Table) -> bytes:
    """Write a table as one Arrow IPC stream."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    # The index of a leaf is the same in all rows of its table.
    options = ipc_options(table.schema, compress=table.num_rows > 1)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, WINDOW)
    return sink.getvalue().to_pybytes()


def ipc_options(schema: pa.Schema, *, compress: bool = True) -> Any:
    """Return the options for writing IPC streams."""
    import pyarrow as pa

    is_worth_it = compress and len(schema.names) < _MANY_COLUMNS
    return pa.ipc.IpcWriteOptions(compression="lz4" if is_worth_it else None)


def from_ipc(data: bytes) -> pa.Table:
    """Read a table from an Arrow IPC stream; run-end encoded columns become plain ones."""
    import pyarrow as pa

    return pa.concat_tables(ipc_windows(data))


def ipc_windows(data: bytes | Path) -> Iterator[pa.Table]:
    """Yield a table, in memory or in a file, in windows of rows; an empty one once.

    Run-end encoded columns become plain ones.
    """
    import pyarrow as pa

    with pa.BufferReader(data) if isinstance(data, bytes) else pa.OSFile(str(data)) as source:
        yield from map(_without_runs, windows(open_ipc(source)))


def windows(reader: Any) -> Iterator[pa.Table]:
    """Yield the record batches of a reader as tables, or one empty table."""
    import pyarrow as pa

    has_rows = False
    for batch in reader:
        has_rows = True
        yield pa.Table.from_batches([batch])
    if not has_rows:
        yield reader.schema.empty_table()


def open_ipc(source: Any) -> Any:
    """Open an Arrow IPC stream in a file, and register the types of pandas if needed."""
    import pyarrow as pa

    start = source.tell()
    reader = pa.ipc.open_stream(source)
    if not know_types_of_pandas(reader.schema):
        return reader
    source.seek(start)
    return pa.ipc.open_stream(source)


def parquet_schema(file: Path) -> pa.Schema:
    """Read the schema of a Parquet file, and register the types of pandas if needed."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(file)
    return pq.read_schema(file) if know_types_of_pandas(schema) else schema


def know_types_of_pandas(schema: pa.Schema) -> bool:
    """Register pandas' periods and intervals with Arrow if a schema needs them.

    Returns:
        Whether they were registered now; tables read before have plain numbers instead.
    """
    if _TYPES_OF_PANDAS in sys.modules:
        return False
    text = schema.serialize().to_pybytes()  # checking each field would take much longer
    if b"pandas.period" not in text and b"pandas.interval" not in text:
        return False
    import_module(_TYPES_OF_PANDAS)  # registers them
    return True


def column(values: Sequence[Any]) -> pa.Array:
    """Make a column of the narrowest type that holds all values exactly.

    Integers and floats become floats; dicts, and lists with dicts, become JSON; values that have no
    type in common become text.
    """
    made = column_variants(values)
    if len(made) == 1:
        return made[0]
    table = concat([_table({"": made})], final=True)
    return table.column(0).combine_chunks()


def column_variants(values: Sequence[Any]) -> list[pa.Array]:
    """Make one column per kind of value, with nulls for the others."""
    kinds = set(map(type, values))
    kinds.discard(type(None))
    if len(kinds) < 2 and list not in kinds:
        return [_plain_column(values)]
    found = list(map(_kind, values))
    different = [kind for kind in dict.fromkeys(found) if kind is not None]
    if len(different) < 2:
        return [_plain_column(values)]
    return [
        _plain_column([v if one == kind else None for v, one in zip(values, found, strict=True)])
        for kind in different
    ]


def table_from_rows(rows: Sequence[Mapping[str, Any]], *, final: bool = True) -> pa.Table:
    """Make a table from one dict for each row; a key that a row lacks is null there.

    Args:
        rows: The rows.
        final: Whether each column has one type; else it may have variants.
    """
    made = {name: column_variants(values) for name, values in values_by_name(rows).items()}
    table = _table(made)
    has_variants = table.num_columns > len(made)
    return concat([table], final=True) if final and has_variants else table


def _table(columns: Mapping[str, Sequence[pa.Array]]) -> pa.Table:
    """Make a table of columns with variants."""
    import pyarrow as pa

    taken = set(columns)
    fields = list[Any]()
    arrays = list[Any]()
    for name, (main, *others) in columns.items():
        fields.append(pa.field(name, main.type))
        arrays += [main, *others]
        for number, other in enumerate(others, 1):
            variant = free_name(f"{name}#{number}", taken)
            taken.add(variant)
            fields.append(variant_field(variant, Kind(other.type), of=name))
    return pa.table(arrays, schema=pa.schema(fields))


def _plain_column(values: Sequence[Any]) -> pa.Array:
    """Make a column of values of one kind; values without an Arrow type become text."""
    import pyarrow as pa

    if dict in set(map(type, values)):
        return pa.array([_as_json(value) for value in values], pa.string())
    try:
        made = pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return pa.array(texts_of(values), pa.string())
    if _has_struct(made.type):  # Parquet has no empty ones, and gives all the same keys
        return pa.array([_as_json(value) for value in values], pa.string())
    return made


def _kind(value: Any) -> Any:
    """Return the kind of a value; None for a missing value."""
    kind = type(value)
    if kind is list:
        return (list, frozenset(map(type, value)))
    return None if value is None else kind


def values_by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Convert rows to columns; a missing key becomes None."""
    shapes = list(dict.fromkeys(map(tuple, rows)))
    if len(shapes) == 1:  # nearly always, and much quicker
        return {name: list(map(itemgetter(name), rows)) for name in shapes[0]}
    names = list(dict.fromkeys(name for shape in shapes for name in shape))
    return {name: [row.get(name) for row in rows] for name in names}


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the options for writing Parquet files.

    Dictionaries make most columns larger and twice as slow to write, so only categories have them.
    """
    has_categories = any("dictionary<" in str(kind) for kind in set(schema.types))
    # For a short column, starting zstd takes longer than writing it.
    compression = "zstd" if len(schema.names) < _MANY_COLUMNS else "snappy"
    return {"compression": compression, "use_dictionary": has_categories}


def _without_runs(table: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not any(map(pa.types.is_run_end_encoded, set(table.schema.types))):
        return table
    for number, field in enumerate(table.schema):
        if pa.types.is_run_end_encoded(field.type):
            plain = pc.call_function("run_end_decode", [table.column(number)])
            table = table.set_column(number, field.with_type(plain.type), plain)
    return table


def _has_struct(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return _has_struct(kind.value_type)
    return pa.types.is_struct(kind)


def _as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, default=str)
