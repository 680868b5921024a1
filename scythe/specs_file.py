"""The specs of a run as one Parquet file: columns for readers, the whole spec for the leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.fetch import cached_path, fetch_uri
from scythe.files import join_s3_uri
from scythe.outcomes import StoreConfig
from scythe.tables import SORT_INDEX, table_from_rows

if TYPE_CHECKING:
    import pyarrow as pa

SPEC_COLUMN = "__spec__"


def specs_table(rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> pa.Table:
    """Make the table of all specs.

    Args:
        rows: The scalar fields and computed features of each spec, by name.
        texts: Each spec as text, see `scythe.codec`.

    Returns:
        A table with the columns of `rows` that hold scalars in every row, and `__spec__`.
    """
    import pyarrow as pa

    table = table_from_rows(rows)
    return table.append_column(SPEC_COLUMN, pa.array(texts, pa.large_string()))


def index_of(specs: pa.Table) -> pa.Table:
    """Return the columns of the index: all but the specs themselves."""
    return specs.drop_columns([SPEC_COLUMN])


def read_specs(store: StoreConfig, key: str) -> pa.Table:
    """Read all specs of a run, in sort order, from the local copy of the file."""
    import pyarrow.parquet as pq

    return pq.read_table(_local_copy(store, key), memory_map=True)


def read_spec_text(store: StoreConfig, key: str, row: int) -> str:
    """Read one spec as text, by the number of its row."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(_local_copy(store, key)) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < first + count:
                column = file.read_row_group(group, columns=[SPEC_COLUMN]).column(0)
                return column[row - first].as_py()
            first += count
    msg = f"{key} has {first} specs, there is no row {row}"
    raise IndexError(msg)


@lru_cache(maxsize=1)
def _spec_column(file: Path) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=[SPEC_COLUMN, SORT_INDEX])
    return table.column(SPEC_COLUMN), table.column(SORT_INDEX)


def read_spec_texts(store: StoreConfig, key: str, rows: range) -> list[tuple[str, int]]:
    """Read the specs of a batch: each as text, with its sort index."""
    texts, order = _spec_column(_local_copy(store, key))
    return [(texts[row].as_py(), order[row].as_py()) for row in rows]


def sort_indices(specs: pa.Table) -> list[int]:
    """Return the sort index of each spec."""
    return specs.column(SORT_INDEX).to_pylist()


def _local_copy(store: StoreConfig, key: str) -> Path:
    uri = join_s3_uri(store.bucket, key)
    return fetch_uri(uri, cached_path(uri, store.endpoint_url or ""), store=store)
