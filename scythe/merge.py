"""Merge sorted tables, as large as they may be, into one Parquet file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scythe.tables import ORDER, concat, conform, unify_schemas

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_FILES = 200  # that are open at one time: systems often allow a process 1,024
_ROWS = 65_536  # in memory, of all files together


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
    pq.write_table(table, target, compression="zstd")
    return table.num_rows


def merge_files(files: Sequence[Path], target: Path, *, final: bool) -> int:
    """Merge Parquet files, each sorted by `__order__`, into one sorted file.

    Memory holds some rows of each file, not the files. Many files are merged in groups first.

    Args:
        files: The files; their columns may differ.
        target: The Parquet file.
        final: Whether `__order__` is dropped.

    Returns:
        The number of rows.
    """
    import pyarrow.parquet as pq

    if len(files) > _MOST_FILES:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            groups = [files[i : i + _MOST_FILES] for i in range(0, len(files), _MOST_FILES)]
            merged = [Path(folder) / f"{number}.pq" for number in range(len(groups))]
            for group, file in zip(groups, merged, strict=True):
                merge_files(group, file, final=False)
            return merge_files(merged, target, final=final)
    schema = unify_schemas([pq.read_schema(file) for file in files])
    written = schema.remove(schema.get_field_index(ORDER)) if final else schema
    rows = 0
    with pq.ParquetWriter(target, written, compression="zstd") as writer:
        batch = _ROWS // max(1, len(files))
        for window in _windows([_Source(file, schema, batch) for file in files]):
            table = window.drop_columns([ORDER]) if final else window
            writer.write_table(table)
            rows += table.num_rows
    return rows


class _Source:
    """One sorted file, read batch by batch."""

    def __init__(self, file: Path, schema: pa.Schema, batch_rows: int) -> None:
        self._batches = _batches(file, schema, batch_rows)
        self.head: pa.Table | None = next(self._batches, None)

    @property
    def last(self) -> int:
        """The largest order that is known to be complete in `head`."""
        return -1 if self.head is None else self.head.column(ORDER)[-1].as_py()

    def take(self, bound: int) -> list[pa.Table]:
        """Take all rows up to `bound` (those of later batches with the same order too)."""
        import numpy as np

        taken: list[pa.Table] = []
        while self.head is not None:
            count = int(np.searchsorted(self.head.column(ORDER).to_numpy(), bound, side="right"))
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


def _windows(sources: list[_Source]) -> Iterator[pa.Table]:
    import pyarrow as pa

    while True:
        live = [source for source in sources if source.head is not None]
        if not live:
            return
        bound = min(source.last for source in live)
        parts = [part for source in live for part in source.take(bound)]
        yield pa.concat_tables(parts).sort_by(ORDER)
