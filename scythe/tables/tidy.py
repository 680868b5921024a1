"""Tables as most tools want them: plain columns, without an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scythe.errors import ResultNotFoundError
from scythe.tables.pandas_index import index_names

if TYPE_CHECKING:
    import pyarrow as pa

# Levels that are the same in all rows, or ids of Hatchet.
_LEFT_OUT = ("experiment_id", "workflow_run_id", "root_workflow_run_id")


def tidy_columns(schema: pa.Schema, wanted: Sequence[str] | None = None) -> dict[str, str]:
    """Return the columns of a tidy table: the name of each in the stored one, and its new name.

    The fields of the specs come first, then the data. Ids that Scythe adds are left out.

    Args:
        schema: The schema of the stored table.
        wanted: The columns to take, by their new names, in this order; ids may be among them.

    Raises:
        ResultNotFoundError: There is no such column.
    """
    levels = dict(index_names(schema))
    data = [name for name in schema.names if name not in levels]
    named: dict[str, str] = {}
    for column, name in levels.items():
        is_free = name and name not in data and name not in named.values()
        named[column] = name if name and is_free else column
    named |= {name: name for name in data}
    if wanted is None:
        dropped = [column for column, name in levels.items() if (name or column) in _LEFT_OUT]
        return {column: name for column, name in named.items() if column not in dropped}
    columns = {name: column for column, name in named.items()}
    unknown = [name for name in wanted if name not in columns]
    if unknown:
        raise ResultNotFoundError(
            f"The table has no column {unknown[0]!r}. It has: {', '.join(columns)}."
        )
    return {columns[name]: name for name in wanted}


def tidy_table(table: pa.Table, wanted: Sequence[str] | None = None) -> pa.Table:
    """Return a table without an index; see `tidy_columns`."""
    columns = tidy_columns(table.schema, wanted)
    picked = table.select([*columns]).rename_columns([*columns.values()])
    return picked.replace_schema_metadata(None)
