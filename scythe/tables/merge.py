"""Merge sorted tables, as large as they may be, into one Parquet file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from scythe.tables.arrow import ORDER, concat, conform, parquet_options, unify_schemas
from scythe.tables.packs import read_pack

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_FILES = 200  # that are open at one time: systems often allow a process 1,024
_ROWS = 65_536  # in memory, of all files together
_GROUP_BYTES = 32 << 20  # of rows in memory, whatever their number


def write_merged(tables: Sequence[pa.Table], target: Path, *, final: bool) -> int:
    """Write tables that are in memory, each sorted by `__order__`, as one sorted file.

    Args:
        tables: The tables; their columns may differ.
        target: The Parquet file.
        final: Whether `__order__` is dropped.

    Returns:
        The number of rows.
    """
    import pyarrow.parquet as pq

    table = concat(tables).sort_by(ORDER)
    if final:
        table = table.drop_columns([ORDER])
    pq.write_table(table, target, **parquet_options(table.schema))
    return table.num_rows


def merge_files(
    files: Sequence[Path],
    target: Path,
    *,
    final: bool,
    order: str = ORDER,
    group_rows: int | None = None,
) -> int:
    """Merge Parquet files, each sorted by `order`, into one sorted file.

    Memory holds some rows of each file, not the files. Many files are merged in groups first.

    Args:
        files: The files; their columns may differ.
        target: The Parquet file.
        final: Whether the column `order` is dropped.
        order: The column by which the files are sorted, of integers.
        group_rows: Rows of a row group of the new file; by default those in memory at one time.

    Returns:
        The number of rows.
    """
    import pyarrow.parquet as pq

    if len(files) > _MOST_FILES:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            groups = [files[i : i + _MOST_FILES] for i in range(0, len(files), _MOST_FILES)]
            merged = [Path(folder) / f"{number}.pq" for number in range(len(groups))]
            for group, file in zip(groups, merged, strict=True):
                merge_files(group, file, final=False, order=order)
            return merge_files(merged, target, final=final, order=order, group_rows=group_rows)
    schema = unify_schemas([pq.read_schema(file) for file in files])
    written = schema.remove(schema.get_field_index(order)) if final else schema
    rows = 0
    with pq.ParquetWriter(target, written, **parquet_options(written)) as writer:
        batch = _ROWS // max(1, len(files))
        for window in _windows([_Source(file, schema, batch, order) for file in files], order):
            table = window.drop_columns([order]) if final else window
            writer.write_table(table, row_group_size=group_rows)
            rows += table.num_rows
    return rows


def join_packs(packs: Sequence[Path], folder: Path, *, final: bool) -> dict[str, Path]:
    """Write the tables of packs, one after another, as one Parquet file for each name.

    Memory holds one pack, and some rows of each table.

    Args:
        packs: Files of packs, in the order of their leaves.
        folder: Where the files are written.
        final: Whether `__order__` is dropped.

    Returns:
        The file of each table, by its name.
    """
    schemas: dict[str, list[pa.Schema]] = {}
    for pack in packs:
        for name, table in read_pack(_mapped(pack)):
            schemas.setdefault(name, []).append(table.schema)
    files: dict[str, Path] = {}
    with ExitStack() as stack:
        writers: dict[str, _Writer] = {}
        for number, (name, given) in enumerate(schemas.items()):
            files[name] = folder / f"joined-{number}.pq"
            writers[name] = _Writer(unify_schemas(given), files[name], final=final)
            stack.enter_context(writers[name])
        for pack in packs:
            for name, table in read_pack(_mapped(pack)):
                writers[name].write(table)
    return files


def _mapped(file: Path) -> pa.Buffer:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        return source.read_buffer()


class _Writer:
    """Writes small tables as one Parquet file with large row groups."""

    def __init__(self, schema: pa.Schema, target: Path, *, final: bool) -> None:
        import pyarrow.parquet as pq

        self._schema, self._final = schema, final
        written = schema.remove(schema.get_field_index(ORDER)) if final else schema
        self._file = pq.ParquetWriter(target, written, **parquet_options(written))
        self._tables: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Add a table."""
        self._tables.append(conform(table, self._schema))
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= _ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._tables:
            table = pa.concat_tables(self._tables)
            self._file.write_table(table.drop_columns([ORDER]) if self._final else table)
        self._tables, self._rows, self._bytes = [], 0, 0


class _Source:
    """One sorted file, read batch by batch."""

    def __init__(self, file: Path, schema: pa.Schema, batch_rows: int, order: str) -> None:
        self._order = order
        self._batches = _batches(file, schema, batch_rows)
        self.head: pa.Table | None = next(self._batches, None)

    @property
    def last(self) -> int:
        """The largest order that is known to be complete in `head`."""
        return -1 if self.head is None else self.head.column(self._order)[-1].as_py()

    def take(self, bound: int) -> list[pa.Table]:
        """Take all rows up to `bound` (those of later batches with the same order too)."""
        import numpy as np

        taken: list[pa.Table] = []
        while self.head is not None:
            count = int(
                np.searchsorted(self.head.column(self._order).to_numpy(), bound, side="right")
            )
            if count:
                taken.append(self.head.slice(0, count))
            if count < self.head.num_rows:
                self.head = self.head.slice(count)
                break
            self.head = next(self._batches, None)
        return taken


def _batches(file: Path, schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        own = parquet.schema_arrow
        for batch in parquet.iter_batches(rows):
            table = pa.Table.from_batches([batch], own)
            if table.num_rows:
                yield conform(table, schema)


def _windows(sources: list[_Source], order: str) -> Iterator[pa.Table]:
    import pyarrow as pa

    while True:
        live = [source for source in sources if source.head is not None]
        if not live:
            return
        bound = min(source.last for source in live)
        parts = [part for source in live for part in source.take(bound)]
        yield pa.concat_tables(parts).sort_by(order)
