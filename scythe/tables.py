"""Result tables as Arrow: from the user's libraries, with the spec's index, and for pandas to read.

pandas keeps an index in a Parquet file as ordinary columns plus a note in the schema. This module
writes that note itself, so that no pandas is needed to make a table with a MultiIndex.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import pyarrow as pa

SORT_INDEX = "sort_index"
SUB_INDEX = "sort_subindex"
_PANDAS = b"pandas"


def is_table(value: Any) -> bool:
    """Return whether a value is a table of pandas, polars, Arrow or alike."""
    return hasattr(value, "__arrow_c_stream__") or _is_pandas(value)


def to_arrow(value: Any) -> pa.Table:
    """Turn a table of pandas, polars, Arrow or alike into an Arrow table, its index included."""
    import pyarrow as pa

    if _is_pandas(value):
        return pa.Table.from_pandas(value)
    if isinstance(value, pa.Table):
        return value
    return pa.table(value)


def to_ipc(value: Any) -> bytes:
    """Write a table as one Arrow IPC stream."""
    import pyarrow as pa

    table = to_arrow(value)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_ipc(data: bytes) -> pa.Table:
    """Read a table from an Arrow IPC stream."""
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def index_names(schema: pa.Schema) -> list[tuple[str, str | None]]:
    """Return the index of a table: the column that holds each level, and the level's name."""
    note = _pandas_note(schema)
    names = {column["field_name"]: column["name"] for column in note.get("columns", [])}
    levels = [level for level in note.get("index_columns", []) if isinstance(level, str)]
    return [(level, names.get(level, level)) for level in levels if level in schema.names]


def with_leaf_index(table: pa.Table, index: Mapping[str, Any]) -> pa.Table:
    """Put the index of a leaf's spec before a table's own index.

    A table that has it already (it was made with `make_multiindex`) is given back unchanged. One
    without any index gets the level `sort_subindex`, the number of the row in its leaf. A level
    with the name of a column is kept in a column `index.<name>`.

    Args:
        table: A table of n rows.
        index: The value of each level for this leaf.

    Returns:
        A table of n rows whose first columns are the levels.
    """
    import pyarrow as pa

    own = index_names(table.schema)
    if any(name == SORT_INDEX for _, name in own):
        return table
    data = [name for name in table.column_names if name not in {field for field, _ in own}]
    levels: list[tuple[str, str | None]] = []
    arrays: list[Any] = []
    for name, value in index.items():
        field = f"index.{name}" if name in table.column_names else name
        levels.append((field, name))
        arrays.append(column([value] * table.num_rows))
    if own:
        levels += own
        arrays += [table.column(field) for field, _ in own]
    elif SUB_INDEX not in table.column_names:
        levels.append((SUB_INDEX, SUB_INDEX))
        arrays.append(pa.array(range(table.num_rows), pa.int64()))
    fields = [field for field, _ in levels]
    made = pa.table(dict(zip(fields, arrays, strict=True)))
    for name in data:
        made = made.append_column(table.schema.field(name), table.column(name))
    return with_pandas_index(made, levels)


def with_pandas_index(table: pa.Table, levels: Sequence[tuple[str, str | None] | str]) -> pa.Table:
    """Return the table with a note that makes pandas read `levels` as its index.

    Args:
        table: The table; the levels are columns of it.
        levels: The columns of the levels, each with the level's name where that differs.
    """
    pairs = [(level, level) if isinstance(level, str) else level for level in levels]
    names = dict(pairs)
    note = {
        "index_columns": [field for field, _ in pairs],
        "column_indexes": [],
        "columns": [
            {
                "name": names.get(field.name, field.name),
                "field_name": field.name,
                "pandas_type": _pandas_type(field.type),
                "numpy_type": _numpy_type(field.type),
                "metadata": None,
            }
            for field in table.schema
        ],
        "creator": {"library": "scythe", "version": "1"},
        "pandas_version": "2.2.0",
    }
    kept = dict(table.schema.metadata or {})
    return table.replace_schema_metadata({**kept, _PANDAS: json.dumps(note).encode()})


def column(values: Sequence[Any]) -> pa.Array:
    """Make a column of the narrowest type that holds all values as they are.

    Numbers of mixed kinds become floats; dicts, and values that have no type in common, become
    text (JSON for dicts, and for lists of different types).
    """
    import pyarrow as pa

    if any(isinstance(value, dict) for value in values):
        return pa.array([_as_json(value) for value in values], pa.string())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([_as_text(value) for value in values], pa.string())


def table_from_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make a table from one dict for each row; a key that a row lacks is null there."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: column([row.get(name) for row in rows]) for name in names}
    return pa.table(columns)


def concat(tables: Iterable[pa.Table]) -> pa.Table:
    """Concatenate tables whose columns may differ, and keep the index of the first one.

    Columns that a table lacks are null there. Numbers are widened; a column that is text in one
    table and something else in another becomes text.
    """
    import pyarrow as pa

    given = list(tables)
    schema = unify_schemas([table.schema for table in given])
    return pa.concat_tables([conform(table, schema) for table in given])


def unify_schemas(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return a schema that holds the columns of all, with the index note of the first."""
    import pyarrow as pa

    distinct = list({schema.to_string(): schema for schema in schemas}.values())
    if len(distinct) == 1:
        return distinct[0]
    fields: dict[str, pa.Field] = {}
    for schema in distinct:
        for field in schema:
            known = fields.get(field.name)
            fields[field.name] = field if known is None else _unify_fields(known, field)
    index = list(dict.fromkeys(level for schema in distinct for level in index_names(schema)))
    ordered = [fields.pop(name) for name, _ in index] + list(fields.values())
    unified = pa.schema([field.with_nullable(True) for field in ordered])
    return with_pandas_index(unified.empty_table(), index).schema if index else unified


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast a table to a schema that `unify_schemas` made from its own and others."""
    import pyarrow as pa

    if table.schema.equals(schema, check_metadata=True):
        return table
    arrays: list[Any] = []
    for field in schema:
        if field.name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, field.type))
        else:
            arrays.append(_cast(table.column(field.name), field.type))
    return pa.table(arrays, schema=schema)


def _cast(array: Any, wanted: Any) -> Any:
    import pyarrow as pa

    if array.type == wanted:
        return array
    try:
        return array.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([_as_text(value) for value in array.to_pylist()], wanted)


def _unify_fields(one: pa.Field, other: pa.Field) -> pa.Field:
    import pyarrow as pa

    if one.type == other.type:
        return one
    try:
        schemas = [pa.schema([one]), pa.schema([other])]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.field(one.name, pa.string())


def _is_pandas(value: Any) -> bool:
    pandas = sys.modules.get("pandas")  # who has a DataFrame has imported pandas
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _pandas_note(schema: pa.Schema) -> dict[str, Any]:
    note = (schema.metadata or {}).get(_PANDAS)
    return cast("dict[str, Any]", json.loads(note)) if note else {}


def _as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else str(value)


def _pandas_type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "unicode"
    if pa.types.is_null(kind):
        return "empty"
    return _numpy_type(kind)


def _numpy_type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return str(kind.to_pandas_dtype().__name__).rstrip("_")
    if pa.types.is_timestamp(kind):
        return f"datetime64[{kind.unit}]"
    return "object"
