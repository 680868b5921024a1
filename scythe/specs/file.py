"""The Parquet file of a run's specs: columns for readers, and the encoded spec for the leaf."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic_core import to_json

from scythe.errors import FetchError, SpecError
from scythe.outcomes import StoreConfig
from scythe.storage.fetch import cached_path, fetch_uri
from scythe.storage.files import join_s3_uri
from scythe.tables.arrow import table_from_rows
from scythe.tables.names import SORT_INDEX
from scythe.tables.pandas_index import index_names

if TYPE_CHECKING:
    import pyarrow as pa

SPEC_COLUMN = "__spec__"
_OPEN_ATTEMPTS = 5
_TEXTS = 1000  # texts in memory at one time as Python objects


def specs_table(rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> pa.Table:
    """Make the table of all specs.

    Args:
        rows: The scalar fields and computed features of each spec, by name.
        texts: Each spec as text, see `scythe.specs.codec`.

    Returns:
        A table with the columns of `rows` that hold scalars in every row, and `__spec__`.
    """
    import pyarrow as pa

    table = table_from_rows(rows)
    return table.append_column(SPEC_COLUMN, pa.array(texts, pa.large_string()))


def index_of(specs: pa.Table) -> pa.Table:
    """Return the index columns: all but the encoded specs."""
    if SPEC_COLUMN in specs.column_names:
        return specs.drop_columns([SPEC_COLUMN])
    specs = _fields_of(specs)
    return specs.select([field.name for field in specs.schema if not field.type.num_fields])


def _fields_of(specs: pa.Table) -> pa.Table:
    """Return the field columns of a table of specs that the user wrote."""
    fields = [name for name, _ in index_names(specs.schema)]
    specs = specs.drop_columns(fields).replace_schema_metadata(None)
    if SORT_INDEX not in specs.column_names:
        msg = f"the file of specs has no column {SORT_INDEX!r}: number the specs in it"
        raise SpecError(msg)
    return specs


def count_specs(store: StoreConfig, key: str) -> int:
    """Return the number of specs of a run."""
    import pyarrow.parquet as pq

    with _open_copy(store, key) as copy:
        return pq.read_metadata(copy).num_rows


def read_rows(store: StoreConfig, key: str, rows: Sequence[int]) -> pa.Table:
    """Read specs of a run by the numbers of their rows, ascending, with all columns.

    Memory holds these rows and one row group of the file.

    Raises:
        IndexError: The run has fewer specs.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _open_copy(store, key) as copy, pq.ParquetFile(copy) as file:
        if rows and rows[-1] >= file.metadata.num_rows:
            msg = f"{key} has {file.metadata.num_rows} specs, there is no row {rows[-1]}"
            raise IndexError(msg)
        parts: list[pa.Table] = [file.schema_arrow.empty_table()]
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            wanted = rows[bisect_left(rows, first) : bisect_left(rows, first + count)]
            if wanted:
                table = file.read_row_group(group)
                if wanted[-1] - wanted[0] + 1 == len(wanted):
                    parts.append(table.slice(wanted[0] - first, len(wanted)))
                else:
                    parts.append(table.take(pa.array([row - first for row in wanted])))
            first += count
    return pa.concat_tables(parts)


def row_of(store: StoreConfig, key: str, sort_index: int) -> int | None:
    """Return the number of the row of a leaf in the specs of a run; None where there is none."""
    import pyarrow.parquet as pq

    with _open_copy(store, key) as copy:
        numbers = pq.read_table(copy, columns=[SORT_INDEX]).column(0)
    row: int = numbers.index(sort_index).as_py()
    return None if row < 0 else row


def read_spec_text(store: StoreConfig, key: str, row: int) -> str:
    """Read one spec as text, by the number of its row."""
    return next(spec_texts(read_rows(store, key, range(row, row + 1))))


def spec_texts(specs: pa.Table) -> Iterator[str]:
    """Yield each spec as text, see `scythe.specs.codec`.

    Of a file that the user has written, as scripts of scythe-engine do for `scatter_gather`, it is
    the row.
    """
    if SPEC_COLUMN not in specs.column_names:
        fields = _fields_of(specs)
        for first in range(0, fields.num_rows, _TEXTS):
            rows = fields.slice(first, _TEXTS).to_pylist()
            yield from (to_json(row, inf_nan_mode="constants").decode() for row in rows)
        return
    for chunk in specs.column(SPEC_COLUMN).chunks:
        for first in range(0, len(chunk), _TEXTS):
            yield from chunk.slice(first, _TEXTS).to_pylist()


def sort_indices(specs: pa.Table) -> list[int]:
    """Return the sort index of each spec."""
    return specs.column(SORT_INDEX).to_pylist()


def _open_copy(store: StoreConfig, key: str) -> BinaryIO:
    """Open this machine's copy of the stored specs."""
    uri = join_s3_uri(store.bucket, key)
    path = cached_path(uri, store.endpoint_url or "")
    for _ in range(_OPEN_ATTEMPTS):
        with suppress(FileNotFoundError):  # another process has just made room in the cache
            return fetch_uri(uri, path, store=store).open("rb")
    raise FetchError(f"Cannot keep {uri} in the cache: raise SCYTHE_CACHE_MAX_BYTES.")
