"""Tables as users return them, from pandas, polars or alike: as Arrow, with the leaf's index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scythe.errors import OutputError
from scythe.tables.arrow import column
from scythe.tables.frames import from_pandas, from_polars, is_pandas, is_polars
from scythe.tables.names import ORDER, SORT_INDEX, SUB_INDEX
from scythe.tables.pandas_index import free_name, index_names, with_pandas_index
from scythe.tables.storable import storable_type, stored_column, stored_field

if TYPE_CHECKING:
    import pyarrow as pa

_MANY_ROWS = 1000  # from which on a level's value is worth keeping once


def is_table(value: Any) -> bool:
    """Return whether a value is a table of pandas, polars, Arrow or alike."""
    return is_pandas(value) or (hasattr(value, "__arrow_c_stream__") and not _is_series(value))


def not_a_table(name: str, value: Any) -> OutputError:
    """Return the error that a table is none, with what to do."""
    fix = "give a table of pandas, polars or Arrow, or anything with the Arrow PyCapsule interface"
    if _is_series(value):
        fix = "give a table, with .to_frame()"
    if hasattr(value, "collect_schema"):
        fix = "give a table, with .collect()"
    return OutputError(f"dataframes[{name!r}] is a {type(value).__name__}: {fix}.")


def to_arrow(value: Any) -> pa.Table:
    """Turn a table of pandas, polars, Arrow or alike into an Arrow table, its index included."""
    import pyarrow as pa

    if is_pandas(value):
        table = from_pandas(value)
    elif is_polars(value):
        table = from_polars(value)
    else:
        table = value if isinstance(value, pa.Table) else pa.table(value)
    known = {kind: storable_type(kind) for kind in set(table.schema.types)}
    places = [
        place
        for place, kind in enumerate(table.schema.types)
        if known[kind] != kind or _is_ordered(kind)
    ]
    if not places:
        return table
    columns = table.columns
    fields = list(table.schema)
    for place in places:
        columns[place] = stored_column(columns[place], known[fields[place].type])
        fields[place] = stored_field(fields[place], columns[place])
    return pa.table(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def storable(name: str, value: Any) -> pa.Table:
    """Turn a user's table into an Arrow table that can be put together with those of other leaves.

    Raises:
        OutputError: It cannot: the message names the table and says why.
    """
    import pyarrow as pa

    if not is_table(value):
        raise not_a_table(name, value)
    try:
        table = to_arrow(value)
    except OutputError as error:
        raise OutputError(f"Table {name!r}: {error}.") from error
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise OutputError(
            f"Table {name!r} cannot be stored as Parquet ({error}): change its columns."
        ) from error
    twice = [column for column, count in Counter(table.column_names).items() if count > 1]
    if twice or ORDER in table.column_names:
        what = f"has several columns called {twice[0]!r}" if twice else f"has a column {ORDER!r}"
        raise OutputError(f"Table {name!r} {what}: rename it.")
    return table


def with_leaf_index(table: pa.Table, index: Mapping[str, Any]) -> pa.Table:
    """Put the index of a leaf's spec before a table's own index.

    A table that has it already (it was made with `make_multiindex`) is given back unchanged. One
    without any index, or with one of integers that has no name, gets the level `sort_subindex`, the
    number of the row in its leaf. A level with the name of a column is kept in a column
    `index.<name>`.

    Args:
        table: A table of n rows.
        index: The value of each level for this leaf.

    Returns:
        A table of n rows whose first columns are the levels; in a large one they are run-end
        encoded, which `from_ipc` undoes.
    """
    import pyarrow as pa

    own = index_names(table.schema)
    if any(name == SORT_INDEX for _, name in own):
        return table
    held = {field for field, _ in own}
    columns: list[tuple[pa.Field, Any]] = []
    levels: list[tuple[str, str | None]] = []
    taken = set(table.column_names)
    for name, value in index.items():
        levels.append((free_name(name, taken), name))
        values = _repeated(column([value]), table.num_rows)
        columns.append((pa.field(levels[-1][0], values.type), values))
    numbers = _row_numbers(table, own)
    if numbers is not None:
        name = free_name(SUB_INDEX, taken | set(index))
        levels.append((name, name))
        columns.append((pa.field(name, pa.int64()), numbers))
    else:
        levels += own
        columns += [(table.schema.field(field), table.column(field)) for field, _ in own]
    columns += [
        (field, values)
        for field, values in zip(table.schema, table.columns, strict=True)
        if field.name not in held
    ]
    schema = pa.schema([field for field, _ in columns], metadata=table.schema.metadata)
    return with_pandas_index(pa.table([values for _, values in columns], schema=schema), levels)


def _row_numbers(table: pa.Table, own: list[tuple[str, str | None]]) -> Any:
    """Return the level `sort_subindex`; None for a table with an index of its own.

    An index of integers without a name is the numbers of rows, some of which may be gone.
    """
    import numpy as np
    import pyarrow as pa

    if not own and SUB_INDEX in table.column_names:
        return None
    if not own:
        return pa.array(np.arange(table.num_rows, dtype=np.int64))
    (field, name), *others = own
    is_number = pa.types.is_integer(table.schema.field(field).type)
    return (
        table.column(field).cast(pa.int64()) if is_number and name is None and not others else None
    )


def _repeated(value: pa.Array, count: int) -> pa.Array:
    """Return a column with one value in all rows; of many rows it holds the value only once."""
    import pyarrow as pa

    if count < _MANY_ROWS:
        return pa.repeat(value[0], count)
    return pa.RunEndEncodedArray.from_arrays(pa.array([count], pa.int64()), value)


def _is_series(value: Any) -> bool:
    return type(value).__name__ in ("Series", "ChunkedArray")


def _is_ordered(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_dictionary(kind) and kind.ordered
