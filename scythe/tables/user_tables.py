"""Tables as users return them, from pandas, polars or alike: as Arrow, with the leaf's index."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scythe.errors import OutputError
from scythe.tables.arrow import ORDER, SORT_INDEX, SUB_INDEX, column
from scythe.tables.pandas_index import free_name, index_names, with_pandas_index

if TYPE_CHECKING:
    import pyarrow as pa

_MANY_ROWS = 1000  # from which on a level's value is worth keeping once


def is_table(value: Any) -> bool:
    """Return whether a value is a table of pandas, polars, Arrow or alike."""
    return hasattr(value, "__arrow_c_stream__") or _is_pandas(value)


def to_arrow(value: Any) -> pa.Table:
    """Turn a table of pandas, polars, Arrow or alike into an Arrow table, its index included."""
    import pyarrow as pa

    if _is_pandas(value):
        table = pa.Table.from_pandas(value, preserve_index=not _has_default_index(value) or None)
    else:
        table = value if isinstance(value, pa.Table) else pa.table(value)
    types = [_without_views(field.type) for field in table.schema]
    if types == table.schema.types:
        return table
    columns = [column.cast(kind) for column, kind in zip(table.itercolumns(), types, strict=True)]
    fields = [field.with_type(kind) for field, kind in zip(table.schema, types, strict=True)]
    return pa.table(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def storable(name: str, value: Any) -> pa.Table:
    """Turn a user's table into an Arrow table that can be put together with those of other leaves.

    Raises:
        OutputError: It cannot: the message names the table and says why.
    """
    import pyarrow as pa

    try:
        table = to_arrow(value)
        _try_to_store(table)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise OutputError(
            f"Table {name!r} cannot be stored as Parquet ({error}): change its columns."
        ) from error
    twice = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
    if twice or ORDER in table.column_names:
        what = f"has several columns called {twice[0]!r}" if twice else f"has a column {ORDER!r}"
        raise OutputError(f"Table {name!r} {what}: rename it.")
    return table


def _try_to_store(table: pa.Table) -> None:
    """Raise where a type of the table is one that Parquet has not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not all(_is_simple(kind) for kind in table.schema.types):
        sample = table.slice(0, 1)
        rows = pa.array(range(sample.num_rows), pa.int64())
        pq.write_table(pa.concat_tables([sample, sample]).take(rows), pa.BufferOutputStream())


def with_leaf_index(table: pa.Table, index: Mapping[str, Any]) -> pa.Table:
    """Put the index of a leaf's spec before a table's own index.

    A table that has it already (it was made with `make_multiindex`) is given back unchanged. One
    without any index gets the level `sort_subindex`, the number of the row in its leaf. A level
    with the name of a column is kept in a column `index.<name>`.

    Args:
        table: A table of n rows.
        index: The value of each level for this leaf.

    Returns:
        A table of n rows whose first columns are the levels; in a large one they are run-end
        encoded, which `from_ipc` undoes.
    """
    import numpy as np
    import pyarrow as pa

    own = index_names(table.schema)
    if any(name == SORT_INDEX for _, name in own):
        return table
    data = [name for name in table.column_names if name not in {field for field, _ in own}]
    levels: list[tuple[str, str | None]] = []
    arrays: list[Any] = []
    for name, value in index.items():
        levels.append((free_name(name, table.column_names), name))
        arrays.append(_repeated(column([value]), table.num_rows))
    if own:
        levels += own
        arrays += [table.column(field) for field, _ in own]
    elif SUB_INDEX not in table.column_names:
        levels.append((SUB_INDEX, SUB_INDEX))
        arrays.append(pa.array(np.arange(table.num_rows, dtype=np.int64)))
    fields = [field for field, _ in levels]
    made = pa.table(dict(zip(fields, arrays, strict=True)), metadata=table.schema.metadata)
    for name in data:
        made = made.append_column(table.schema.field(name), table.column(name))
    return with_pandas_index(made, levels)


def _repeated(value: pa.Array, count: int) -> pa.Array:
    """Return a column with one value in all rows; of many rows it holds the value only once."""
    import pyarrow as pa

    if count < _MANY_ROWS:
        return pa.repeat(value[0], count)
    return pa.RunEndEncodedArray.from_arrays(pa.array([count], pa.int64()), value)


def _is_pandas(value: Any) -> bool:
    pandas = sys.modules.get("pandas")  # who has a DataFrame has imported pandas
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _has_default_index(frame: Any) -> bool:
    index = frame.index
    return (
        isinstance(index, sys.modules["pandas"].RangeIndex)
        and index.name is None
        and (index.start, index.step) == (0, 1)
    )


def _without_views(kind: Any) -> Any:
    """Return a type as Arrow can sort and write it: polars sends text as `string_view`."""
    import pyarrow as pa

    if kind in (pa.string_view(), pa.binary_view()):
        return pa.large_string() if kind == pa.string_view() else pa.large_binary()
    if pa.types.is_dictionary(kind):
        # Not every Arrow can give pandas a dictionary with unsigned indices, as polars makes it.
        unsigned = pa.types.is_unsigned_integer(kind.index_type)
        index_type = pa.int32() if unsigned else kind.index_type
        return pa.dictionary(index_type, _without_views(kind.value_type), kind.ordered)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_views(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_views(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_views(field.type)) for field in kind])
    return kind


def _is_simple(kind: Any) -> bool:
    import pyarrow as pa

    is_one = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)
    return any(check(kind) for check in (*is_one, pa.types.is_large_string, pa.types.is_timestamp))
