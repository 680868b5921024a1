"""The metadata in an Arrow schema with pandas' index columns and dtypes.

pandas stores an index in a Parquet file as ordinary columns plus this metadata. It is written here
without pandas, which is therefore not needed to make a table with a MultiIndex.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import pyarrow as pa

_PANDAS = b"pandas"
_EXACT = 2**53  # up to which all integers are floats

Role = tuple[str, str, int]  # what a column is, whatever it is called; see `roles`


def index_names(schema: pa.Schema) -> list[tuple[str, str | None]]:
    """Return the index of a table: the column that holds each level, and the level's name."""
    note = _note(schema)
    names = {column["field_name"]: column["name"] for column in note.get("columns", [])}
    levels = [level for level in note.get("index_columns", []) if isinstance(level, str)]
    held = set(schema.names)
    return [(level, names.get(level, level)) for level in levels if level in held]


def roles(schema: pa.Schema) -> dict[Role, str]:
    """Return the columns of a table by what they are: levels of the index first, then data.

    A level is known by its name, not by its column, which has another name where a data column has
    the level's.
    """
    found: dict[Role, str] = {}
    levels = index_names(schema)
    for field, name in levels:
        known = name or field
        count = sum(1 for role in found if role[1] == known)
        found["level", known, count] = field
    held = {field for field, _ in levels}
    return found | {("data", name, 0): name for name in schema.names if name not in held}


def free_name(name: str, taken: Sequence[str] | set[str]) -> str:
    """Return `name`, or `index.<name>` where a data column has it, for the column of a level."""
    while name in taken:
        name = f"index.{name}"
    return name


def with_pandas_index(table: pa.Table, levels: Sequence[tuple[str, str | None] | str]) -> pa.Table:
    """Return the table with a note that makes pandas read `levels` as its index.

    What an older note of the table says of the dtypes of columns is kept.

    Args:
        table: The table; the levels are columns of it.
        levels: The columns of the levels, each with the level's name where that differs.
    """
    pairs = [(level, level) if isinstance(level, str) else level for level in levels]
    names = dict(pairs)
    old = _note(table.schema)
    known = {column["field_name"]: column for column in old.get("columns", [])}
    columns = [
        (known.get(name) or _column_note(name, kind))
        | ({"name": names[name]} if name in names else {})
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
    ]
    note = {
        "index_columns": [field for field, _ in pairs],
        "column_indexes": old.get("column_indexes", []),
        "columns": columns,
        "creator": {"library": "scythe", "version": "1"},
        "pandas_version": "2.2.0",
    }
    kept = dict(table.schema.metadata or {})
    return table.replace_schema_metadata({**kept, _PANDAS: json.dumps(note).encode()})


def shared_note(schemas: Sequence[pa.Schema], unified: pa.Schema) -> dict[bytes, bytes]:
    """Return a note with what all schemas say alike of the columns of `unified`."""
    notes = [_note(schema) for schema in schemas]
    said: dict[str, list[Any]] = {}
    types: dict[str, set[Any]] = {}
    for note, schema in zip(notes, schemas, strict=True):
        own = {column["field_name"]: column for column in note.get("columns", [])}
        for name, kind in zip(schema.names, schema.types, strict=True):
            said.setdefault(name, []).append(own.get(name))
            types.setdefault(name, set()).add(kind)
    columns: list[dict[str, Any]] = []
    for field in unified:
        first, *others = said.get(field.name, [None])
        if (
            first is not None
            and types[field.name] == {field.type}
            and all(one == first for one in others)
        ):
            columns.append(first)
    headers = [note.get("column_indexes", []) for note in notes]
    alike = headers[0] if all(header == headers[0] for header in headers) else []
    return {_PANDAS: json.dumps({"columns": columns, "column_indexes": alike}).encode()}


class LargeIntegers:
    """Finds the columns of integers that pandas would read as floats that differ from them.

    pandas reads integers beside null as floats, which are exact up to 2**53.

    Args:
        schema: The schema of the tables that are looked at.
    """

    def __init__(self, schema: pa.Schema) -> None:
        levels = {level for level, _ in index_names(schema)}
        kinds = dict(zip(schema.names, schema.types, strict=True))
        wide = [name for name, kind in kinds.items() if str(kind) in ("int64", "uint64")]
        self._names = [name for name in wide if name not in levels]
        self._with_null: set[str] = set()
        self._large: set[str] = set()

    def look(self, table: pa.Table) -> None:
        """Look at some rows."""
        import pyarrow.compute as pc

        for name in self._names:
            column = table.column(name)
            if column.null_count:
                self._with_null.add(name)
            if name not in self._large:
                found = pc.call_function("min_max", [column]).as_py()
                if max(abs(found["min"] or 0), abs(found["max"] or 0)) > _EXACT:
                    self._large.add(name)

    @property
    def rounded_by_pandas(self) -> list[str]:
        """The columns that have null and an integer beyond 2**53."""
        return [name for name in self._names if name in self._with_null & self._large]


def with_nullable_integers(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """Return a schema that makes pandas read columns as nullable integers, not as floats."""
    note = _note(schema)
    known = {column["field_name"]: column for column in note.get("columns", [])}
    for name in names:
        kind = str(schema.field(name).type).replace("uint", "UInt").replace("int", "Int")
        own = known.setdefault(name, {"name": name, "field_name": name, "metadata": None})
        own |= {"pandas_type": str(schema.field(name).type), "numpy_type": kind}
    note = {"index_columns": [], "column_indexes": [], **note, "columns": list(known.values())}
    metadata = {**(schema.metadata or {}), _PANDAS: json.dumps(note).encode()}
    return schema.with_metadata(metadata)


def _note(schema: pa.Schema) -> dict[str, Any]:
    note = (schema.metadata or {}).get(_PANDAS)
    return cast("dict[str, Any]", json.loads(note)) if note else {}


def _column_note(name: str, kind: pa.DataType) -> dict[str, Any]:
    pandas_type, numpy_type = _types(_value_type(kind))
    types = {"pandas_type": pandas_type, "numpy_type": numpy_type}
    return {"name": name, "field_name": name, **types, "metadata": None}


def _value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values, which a run-end encoded one holds once for each run."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_run_end_encoded(kind) else kind


@lru_cache
def _types(kind: pa.DataType) -> tuple[str, str]:
    """Return the names of pandas' type and of numpy's."""
    import pyarrow as pa

    numpy_type = _numpy_type(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "unicode", numpy_type
    return "empty" if pa.types.is_null(kind) else numpy_type, numpy_type


def _numpy_type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return str(kind.to_pandas_dtype().__name__).rstrip("_")
    if pa.types.is_timestamp(kind):
        return f"datetime64[{kind.unit}]"
    return "object"
