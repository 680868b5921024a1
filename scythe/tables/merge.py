"""Merges sorted tables of any size into one Parquet file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from scythe.tables.arrow import parquet_options, parquet_schema
from scythe.tables.columns import Columns, Conform
from scythe.tables.combine import Resolution, resolve
from scythe.tables.gather import LeafTables
from scythe.tables.names import ORDER
from scythe.tables.packs import pack_tables
from scythe.tables.pandas_index import LargeIntegers, with_nullable_integers

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_FILES = 200  # open at one time; many systems allow a process 1,024
_ROWS = 65_536  # in memory at one time, over all files
_GROUP_ROWS = 1 << 20
_GROUP_BYTES = 32 << 20  # of rows in memory, whatever their number

Warn = Callable[[str], object]


def _ignore(_: str) -> None:
    pass


def write_merged(
    tables: Sequence[pa.Table] | LeafTables,
    target: Path,
    *,
    final: bool,
    name: str = "",
    warn: Warn = _ignore,
) -> int:
    """Concatenate tables, sorted by `__order__`, into one file.

    Args:
        tables: The tables, in their order; their columns may differ.
        target: The Parquet file.
        final: Whether `__order__` is dropped, and each column gets one type.
        name: The name of the table.
        warn: Called with a sentence for each column that became text.

    Returns:
        The number of rows.
    """
    columns = Columns()
    for table in tables.heads() if isinstance(tables, LeafTables) else tables:
        columns.add(table.schema)

    def scan(wanted: Sequence[Sequence[str]]) -> Iterator[tuple[int, pa.Table]]:
        for table in tables:
            number = columns.add(table.schema)
            yield number, table.select(wanted[number])

    resolution = _resolved(columns, scan, final=final, name=name, warn=warn)
    conforms = [Conform(schema, resolution.schema) for schema in columns.schemas]
    with _Writer(resolution.schema, target, final=final) as writer:
        for table in tables:
            writer.write(conforms[columns.add(table.schema)](table))
    return writer.n_rows


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
        warn: Called with a sentence for each column that became text.

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
    batch = _batch_rows(files)
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
        warn: Called with a sentence for each column that became text.

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
        yield from pack_tables(pack)


class _Writer:
    """Writes small tables as one Parquet file with large row groups."""

    def __init__(
        self, schema: pa.Schema, target: Path, *, final: bool, group_rows: int | None = None
    ) -> None:
        import pyarrow.parquet as pq

        self._drops = final and ORDER in schema.names
        self._group_rows = group_rows
        self._target = target
        written = schema.remove(schema.get_field_index(ORDER)) if self._drops else schema
        self._integers = LargeIntegers(written) if final else None
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
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._file.close()
        names = self._integers.rounded_by_pandas if self._integers and kind is None else []
        if names:
            _write_again(self._target, names)

    def _flush(self) -> None:
        import pyarrow as pa

        if self._tables:
            table = pa.concat_tables(self._tables)
            table = table.drop_columns([ORDER]) if self._drops else table
            if self._integers:
                self._integers.look(table)
            self._file.write_table(table, row_group_size=self._group_rows)
        self._tables = []
        self._rows = 0
        self._bytes = 0


def _write_again(file: Path, names: Sequence[str]) -> None:
    """Rewrite a file with these columns marked as nullable integers for pandas."""
    import pyarrow.parquet as pq

    old = file.with_name(f"{file.name}.old")
    file.replace(old)
    schema = with_nullable_integers(parquet_schema(old), names)
    with pq.ParquetFile(old) as source:
        groups = map(source.read_row_group, range(source.num_row_groups))
        with pq.ParquetWriter(file, schema, **parquet_options(schema)) as writer:
            for table in groups:
                writer.write_table(table.replace_schema_metadata(schema.metadata))
    old.unlink()


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
        """The largest order in `head`."""
        return -1 if self.head is None else self.head.column(self._order)[-1].as_py()

    def below(self, bound: int) -> Iterator[pa.Table]:
        """Take the rows below `bound`, which is not above `last`."""
        if self.head is not None and (count := self._count(bound, "left")):
            yield self.head.slice(0, count)
            self.head = self.head.slice(count)

    def at(self, bound: int) -> Iterator[pa.Table]:
        """Take the rows at `bound`, also those of later batches, where none is below it."""
        while self.head is not None and (count := self._count(bound, "right")):
            yield self.head.slice(0, count)
            is_more = count == self.head.num_rows
            self.head = next(self._batches, None) if is_more else self.head.slice(count)

    def _count(self, bound: int, side: Literal["left", "right"]) -> int:
        import numpy as np

        assert self.head is not None
        return int(np.searchsorted(self.head.column(self._order).to_numpy(), bound, side))


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


def _batch_rows(files: Sequence[Path]) -> int:
    """Return the number of rows of each file that may be in memory at one time."""
    import pyarrow.parquet as pq

    row_bytes = 1
    for file in files:
        found = pq.read_metadata(file)
        size = sum(
            found.row_group(number).total_byte_size for number in range(found.num_row_groups)
        )
        row_bytes = max(row_bytes, size // max(1, found.num_rows))
    count = max(1, len(files))
    return max(1, min(_ROWS // count, 2 * _GROUP_BYTES // (count * row_bytes)))


def _windows(sources: list[_Source], order: str) -> Iterator[pa.Table]:
    import pyarrow as pa

    while True:
        live = [source for source in sources if source.head is not None]
        if not live:
            return
        bound = min(source.last for source in live)
        parts = [part for source in live for part in source.below(bound)]
        if parts:
            yield parts[0] if len(parts) == 1 else pa.concat_tables(parts).sort_by(order)
        for source in live:  # a leaf may have more rows than memory
            yield from source.at(bound)
