"""Tables of leaves that a run takes from another: the rows, and whose leaf each is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.errors import SpecError
from scythe.tables.arrow import parquet_options, parquet_schema
from scythe.tables.names import ORDER, SORT_INDEX
from scythe.tables.pandas_index import index_names

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class LeafMap:
    """Which leaves of a finished run another run takes, and as which of its own.

    Attributes:
        rows: The row in the specs of the other run that each leaf becomes; -1 for one not taken.
        numbers: The sort index of each leaf, ascending.
        ids: Columns of the other run's specs that differ: `experiment_id`, `sort_index`, files.
    """

    rows: Any
    numbers: Any
    ids: pa.Table

    def take(self, table: pa.Table, first_leaf: int | None = None) -> pa.Table:
        """Return the rows of the leaves that are taken, in the order of the other run.

        Args:
            table: Some rows of a final table.
            first_leaf: The leaf of the first row, in the table that has a row for each leaf.
        """
        import numpy as np
        import pyarrow as pa

        levels = {name: field for field, name in index_names(table.schema)}
        if SORT_INDEX not in levels:
            msg = "A table has no level 'sort_index', so that its leaves are not known."
            raise SpecError(msg)
        if first_leaf is None:
            numbers = table.column(levels[SORT_INDEX]).cast(pa.int64()).to_numpy()
            leaves = np.searchsorted(self.numbers, numbers)
        else:
            leaves = np.arange(first_leaf, first_leaf + table.num_rows)
        rows = self.rows[leaves]
        order = np.argsort(rows, kind="stable")
        order = order[np.searchsorted(rows[order], 0) :]
        taken = table.take(pa.array(order))
        rows = rows[order]
        for name in self.ids.column_names:
            place = taken.schema.get_field_index(levels.get(name, ""))
            if place >= 0 and not pa.types.is_null((one := taken.schema.field(place)).type):
                values = self.ids.column(name).take(pa.array(rows)).cast(one.type)
                taken = taken.set_column(place, one, values)
        return taken.append_column(ORDER, pa.array(rows, pa.int64()))


def take_rows(file: Path, folder: Path, leaves: LeafMap, *, is_by_leaf: bool) -> list[Path]:
    """Write the rows of the leaves that are taken as files that are sorted by `__order__`.

    Args:
        file: A final table.
        folder: Where they are written.
        leaves: The leaves.
        is_by_leaf: Whether the table has a row for each leaf.
    """
    import pyarrow.parquet as pq

    files: list[Path] = []
    first = 0
    for table in _groups(file):
        taken = leaves.take(table, first if is_by_leaf else None)
        first += table.num_rows
        if taken.num_rows:
            files.append(folder / f"{file.stem}-{len(files)}.taken")
            pq.write_table(taken, files[-1], **parquet_options(taken.schema))
    return files


def place_rows(file: Path, target: Path, rows: Any) -> None:
    """Write a file with another `__order__`: that of leaf n is `rows[n]`, which ascend."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(file)
    place = schema.get_field_index(ORDER)
    with pq.ParquetWriter(target, schema, **parquet_options(schema)) as writer:
        for table in _groups(file):
            order = pa.array(rows[table.column(ORDER).to_numpy()], pa.int64())
            writer.write_table(table.set_column(place, schema.field(place), order))


def rows_left(files: Sequence[Path], n_left: int) -> Any:
    """Return the rows of the leaves that are not in files of `leaves`, of which there are n."""
    import numpy as np
    import pyarrow.parquet as pq

    taken = [pq.read_table(file, columns=[ORDER]).column(0).to_numpy() for file in files]
    is_left = np.ones(n_left + sum(map(len, taken)), bool)
    for rows in taken:
        is_left[rows] = False
    return np.flatnonzero(is_left)


def _groups(file: Path) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    schema = parquet_schema(file)
    with pq.ParquetFile(file) as source:
        for number in range(source.num_row_groups):
            yield source.read_row_group(number).replace_schema_metadata(schema.metadata)
