"""Tables of Scythe's own as Arrow: made from rows, and put together where their columns differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from scythe.tables.pandas_index import (
    Role,
    free_name,
    index_names,
    roles,
    shared_note,
    with_pandas_index,
)
from scythe.texts import printable

if TYPE_CHECKING:
    import pyarrow as pa

SORT_INDEX = "sort_index"
SUB_INDEX = "sort_subindex"
ORDER = "__order__"  # the leaf's row in the specs: tables are merged by it, then it is dropped


def to_ipc(table: pa.Table) -> bytes:
    """Write a table as one Arrow IPC stream."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    # The index of a leaf is the same in all rows of its table.
    options = pa.ipc.IpcWriteOptions(compression="lz4" if table.num_rows > 1 else None)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_ipc(data: bytes) -> pa.Table:
    """Read a table from an Arrow IPC stream; run-end encoded columns become plain ones."""
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        return _without_runs(reader.read_all())


def column(values: Sequence[Any]) -> pa.Array:
    """Make a column of the narrowest type that holds all values as they are.

    Numbers of mixed kinds become floats; dicts, lists with dicts, and values that have no type in
    common become text (JSON for dicts and lists).
    """
    import pyarrow as pa

    if any(issubclass(kind, dict) for kind in set(map(type, values))):
        return pa.array([_as_json(value) for value in values], pa.string())
    try:
        made = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([_as_text(value) for value in values], pa.string())
    except UnicodeEncodeError:  # half of a surrogate pair, which no UTF-8 text has
        texts = [_as_text(value) for value in values]
        return pa.array([t if t is None else printable(t) for t in texts], pa.string())
    if _has_struct(made.type):  # Parquet has no empty ones, and gives all the same keys
        return pa.array([_as_json(value) for value in values], pa.string())
    return made


def table_from_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make a table from one dict for each row; a key that a row lacks is null there."""
    import pyarrow as pa

    return pa.table({name: column(values) for name, values in values_by_name(rows).items()})


def values_by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turn rows into columns; a key that a row lacks is None there."""
    shapes = list(dict.fromkeys(map(tuple, rows)))
    if len(shapes) == 1:  # nearly always, and much quicker
        return {name: list(map(itemgetter(name), rows)) for name in shapes[0]}
    names = list(dict.fromkeys(name for shape in shapes for name in shape))
    return {name: [row.get(name) for row in rows] for name in names}


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Return how Parquet files of ours are written.

    Dictionaries make most columns of ours larger, and twice as slow to write; only what is one
    already (a category, with the order of its values) is kept as such.
    """
    has_categories = any("dictionary<" in str(field.type) for field in schema)
    return {"compression": "zstd", "use_dictionary": has_categories}


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
    fields: dict[Role, pa.Field] = {}
    for schema in distinct:
        for role, name in roles(schema).items():
            field, known = schema.field(name), fields.get(role)
            fields[role] = field if known is None else _unify_fields(known, field)
    taken = {name for kind, name, _ in fields if kind == "data"}
    index: list[tuple[str, str | None]] = []
    unified: list[pa.Field] = []
    unnamed = {field for schema in distinct for field, name in index_names(schema) if name is None}
    for (kind, name, _), field in sorted(fields.items(), key=lambda item: item[0][0] == "data"):
        column = name
        if kind == "level":
            column = free_name(name, taken)
            taken.add(column)
            index.append((column, None if name in unnamed else name))
        unified.append(field.with_name(column).with_nullable(True))
    made = pa.schema(unified)
    made = made.with_metadata(shared_note(distinct, made))
    return with_pandas_index(made.empty_table(), index).schema if index else made


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast a table to a schema that `unify_schemas` made from its own and others."""
    import pyarrow as pa

    if table.schema.equals(schema, check_metadata=True):
        return table
    own = roles(table.schema)
    wanted = {name: role for role, name in roles(schema).items()}
    arrays: list[Any] = []
    for field in schema:
        source = own.get(wanted[field.name])
        if source is None:
            arrays.append(pa.nulls(table.num_rows, field.type))
        else:
            arrays.append(_cast(table.column(source), field.type))
    return pa.table(arrays, schema=schema)


def _without_runs(table: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    for number, field in enumerate(table.schema):
        if pa.types.is_run_end_encoded(field.type):
            plain = pc.call_function("run_end_decode", [table.column(number)])
            table = table.set_column(number, field.with_type(plain.type), plain)
    return table


def _cast(array: Any, wanted: Any) -> Any:
    import pyarrow as pa

    if array.type == wanted:
        return array
    if pa.types.is_floating(wanted):
        return array.cast(wanted, safe=False)  # integers above 2**53 are rounded
    is_text = pa.types.is_string(wanted) or pa.types.is_large_string(wanted)
    try:
        if not (is_text and pa.types.is_floating(array.type)):  # it would lose the `.0`
            return array.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    return pa.array([_as_text(value) for value in array.to_pylist()], wanted)


def _unify_fields(one: pa.Field, other: pa.Field) -> pa.Field:
    import pyarrow as pa

    first, second = one.type, other.type
    if first == second:
        return one
    if pa.types.is_dictionary(first) != pa.types.is_dictionary(second):
        plain = [
            kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (first, second)
        ]
        return _unify_fields(one.with_type(plain[0]), other.with_type(plain[1]))
    if pa.uint64() in (first, second) and (
        pa.types.is_signed_integer(first) or pa.types.is_signed_integer(second)
    ):
        return one.with_type(pa.float64())  # no integer type holds both
    try:
        schemas = [pa.schema([one]), pa.schema([other.with_name(one.name)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.field(one.name, pa.string())


def _has_struct(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return _has_struct(kind.value_type)
    return pa.types.is_struct(kind)


def _as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, default=str)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return _as_json(value) if isinstance(value, (list, dict, bool)) else str(value)
