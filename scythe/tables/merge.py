"""Merge sorted tables, as large as they may be, into one Parquet file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from scythe.tables.arrow import parquet_options, parquet_schema
from scythe.tables.columns import Columns, Conform
from scythe.tables.combine import Resolution, combined, resolve
from scythe.tables.names import ORDER
from scythe.tables.packs import pack_tables

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_FILES = 200  # that are open at one time: systems often allow a process 1,024
_ROWS = 65_536  # in memory, of all files together
_GROUP_BYTES = 32 << 20  # of rows in memory, whatever their number

Warn = Callable[[str], object]


def _ignore(_: str) -> None:
    pass


def write_merged(
    tables: Sequence[pa.Table],
    target: Path,
    *,
    final: bool,
    name: str = "",
    warn: Warn = _ignore,
) -> int:
    """Write tables that are in memory, each sorted by `__order__`, as one sorted file.

    Args:
        tables: The tables; their columns may differ.
        target: The Parquet file.
        final: Whether `__order__` is dropped, and each column gets one type.
        name: The name of the table.
        warn: Is given a sentence for each column that became text.

    Returns:
        The number of rows.
    """
    import pyarrow.parquet as pq

    table, resolution = combined(tables, final=final)
    for warning in resolution.warnings(name):
        warn(warning)
    if len(tables) > 1:
        table = table.sort_by(ORDER)
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
    name: str = "",
    warn: Warn = _ignore,
) -> int:
    """Merge Parquet files, each sorted by `order`, into one sorted file.

    Memory holds some rows of each file, not the files. Many files are merged in groups first.

    Args:
        files: The files; their columns may differ.
        target: The Parquet file.
        final: Whether `__order__` is dropped, and each column gets one type.
        order: The column by which the files are sorted, of integers.
        group_rows: Rows of a row group of the new file; by default as many as memory may hold.
        name: The name of the table.
        warn: Is given a sentence for each column that became text.

    Returns:
        The number of rows.
    """
    if len(files) > _MOST_FILES:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            groups = [files[i : i + _MOST_FILES] for i in range(0, len(files), _MOST_FILES)]
            merged = [Path(folder) / f"{number}.pq" for number in range(len(groups))]
            for group, file in zip(groups, merged, strict=True):
                merge_files(group, file, final=False, order=order, name=name, warn=warn)
            return merge_files(
                merged,
                target,
                final=final,
                order=order,
                group_rows=group_rows,
                name=name,
                warn=warn,
            )
    columns = Columns()
    numbers = [columns.add(parquet_schema(file)) for file in files]

    def scan(wanted: Sequence[Sequence[str]]) -> Iterator[tuple[int, pa.Table]]:
        for number, file in zip(numbers, files, strict=True):
            for table in _batches(file, _ROWS, wanted[number]):
                yield number, table

    resolution = _resolved(columns, scan, final=final, name=name, warn=warn)
    conforms = [Conform(schema, resolution.schema) for schema in columns.schemas]
    batch = _ROWS // max(1, len(files))
    sources = [
        _Source(map(conforms[number], _batches(file, batch)), order)
        for number, file in zip(numbers, files, strict=True)
    ]
    with _Writer(resolution.schema, target, final=final, group_rows=group_rows) as writer:
        for window in _windows(sources, order):
            writer.write(window)
    return writer.n_rows


def join_packs(
    packs: Sequence[Path], folder: Path, *, final: bool, warn: Warn = _ignore
) -> dict[str, Path]:
    """Write the tables of packs, one after another, as one Parquet file for each name.

    Memory holds some rows of each table.

    Args:
        packs: Files of packs, in the order of their leaves.
        folder: Where the files are written.
        final: Whether `__order__` is dropped, and each column gets one type.
        warn: Is given a sentence for each column that became text.

    Returns:
        The file of each table, by its name.
    """
    columns: dict[str, Columns] = {}
    for name, table in _all_tables(packs):
        columns.setdefault(name, Columns()).add(table.schema)
    files: dict[str, Path] = {}
    with ExitStack() as stack:
        writers: dict[str, _Writer] = {}
        conforms: dict[str, list[Conform]] = {}
        for number, (name, own) in enumerate(columns.items()):
            files[name] = folder / f"joined-{number}.pq"
            scan = _pack_scan(packs, name, own)
            resolution = _resolved(own, scan, final=final, name=name, warn=warn)
            conforms[name] = [Conform(schema, resolution.schema) for schema in own.schemas]
            writers[name] = _Writer(resolution.schema, files[name], final=final)
            stack.enter_context(writers[name])
        for name, table in _all_tables(packs):
            conform = conforms[name][columns[name].add(table.schema)]
            writers[name].write(conform(table))
    return files


def _resolved(
    columns: Columns,
    scan: Callable[[Sequence[Sequence[str]]], Iterable[tuple[int, pa.Table]]],
    *,
    final: bool,
    name: str,
    warn: Warn,
) -> Resolution:
    resolution = resolve(columns, scan, final=final)
    for warning in resolution.warnings(name):
        warn(warning)
    return resolution


def _pack_scan(
    packs: Sequence[Path], name: str, columns: Columns
) -> Callable[[Sequence[Sequence[str]]], Iterator[tuple[int, pa.Table]]]:
    def scan(wanted: Sequence[Sequence[str]]) -> Iterator[tuple[int, pa.Table]]:
        for found, table in _all_tables(packs):
            if found == name:
                number = columns.add(table.schema)
                yield number, table.select(wanted[number])

    return scan


def _all_tables(packs: Sequence[Path]) -> Iterator[tuple[str, pa.Table]]:
    for pack in packs:
        with _mapped(pack) as data:
            yield from pack_tables(data)


@contextmanager
def _mapped(file: Path) -> Generator[pa.Buffer]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        yield source.read_buffer()


class _Writer:
    """Writes small tables as one Parquet file with large row groups."""

    def __init__(
        self, schema: pa.Schema, target: Path, *, final: bool, group_rows: int | None = None
    ) -> None:
        import pyarrow.parquet as pq

        self._drops = final and ORDER in schema.names
        self._group_rows = group_rows
        written = schema.remove(schema.get_field_index(ORDER)) if self._drops else schema
        self._file = pq.ParquetWriter(target, written, **parquet_options(written))
        self._tables: list[pa.Table] = []
        self._rows = self._bytes = 0
        self.n_rows = 0

    def write(self, table: pa.Table) -> None:
        """Add a table."""
        self._tables.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        self.n_rows += table.num_rows
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
            table = table.drop_columns([ORDER]) if self._drops else table
            self._file.write_table(table, row_group_size=self._group_rows)
        self._tables, self._rows, self._bytes = [], 0, 0


class _Source:
    """One sorted sequence of tables.

    Args:
        batches: The tables, none of them empty.
        order: The column by which they are sorted.
    """

    def __init__(self, batches: Iterator[pa.Table], order: str) -> None:
        self._order = order
        self._batches = batches
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


def _batches(file: Path, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(file)
    with pq.ParquetFile(file) as parquet:
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        for batch in parquet.iter_batches(rows, columns=columns):
            if batch.num_rows:
                table = pa.Table.from_batches([batch]).select(schema.names)
                yield table.replace_schema_metadata(schema.metadata)


def _windows(sources: list[_Source], order: str) -> Iterator[pa.Table]:
    import pyarrow as pa

    while True:
        live = [source for source in sources if source.head is not None]
        if not live:
            return
        bound = min(source.last for source in live)
        parts = [part for source in live for part in source.take(bound)]
        yield parts[0] if len(parts) == 1 else pa.concat_tables(parts).sort_by(order)
