"""The stored specs: columns for readers, the whole spec as text for the leaf."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.outcomes import StoreConfig
from scythe.specs.file import (
    SPEC_COLUMN,
    count_specs,
    index_of,
    read_rows,
    read_spec_text,
    sort_indices,
    spec_texts,
    specs_table,
)
from scythe.storage.fetch import cached_path
from scythe.storage.files import join_s3_uri

STORE = StoreConfig("bucket", endpoint_url="http://127.0.0.1:1")  # nothing answers there


def kept_here(table: pa.Table, key: str, row_group_size: int | None = None) -> None:
    """Put a file where the copy of the bucket's would be."""
    path = cached_path(join_s3_uri(STORE.bucket, key), STORE.endpoint_url or "")
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, row_group_size=row_group_size)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))


def test_columns_and_text() -> None:
    rows = [{"sort_index": 0, "x": 1, "s": "a"}, {"sort_index": 2, "x": 0.5, "s": None}]
    table = specs_table(rows, ["{}", '{"a": 1}'])
    assert table.column_names == ["sort_index", "x", "s", SPEC_COLUMN]
    assert table.column("x").to_pylist() == [1.0, 0.5]
    assert table.column(SPEC_COLUMN).to_pylist() == ["{}", '{"a": 1}']
    assert index_of(table).column_names == ["sort_index", "x", "s"]
    assert sort_indices(table) == [0, 2]


@pytest.mark.parametrize("row_group_size", [None, 1, 3])
def test_one_spec_by_its_row(row_group_size: int | None) -> None:
    texts = [f'{{"x": {i}}}' for i in range(7)]
    table = specs_table([{"sort_index": 2 * i} for i in range(7)], texts)
    kept_here(table, "p/run/specs.pq", row_group_size)
    assert [read_spec_text(STORE, "p/run/specs.pq", row) for row in range(7)] == texts
    assert count_specs(STORE, "p/run/specs.pq") == 7
    assert read_rows(STORE, "p/run/specs.pq", range(7)).equals(table)
    with pytest.raises(IndexError, match=r"p/run/specs.pq has 7 specs, there is no row 7"):
        read_spec_text(STORE, "p/run/specs.pq", 7)


def test_specs_of_many_megabytes() -> None:
    texts = ['"' + "x" * 6_000_000 + '"', "{}"]
    kept_here(specs_table([{"sort_index": 0}, {"sort_index": 1}], texts), "specs.pq")
    assert read_spec_text(STORE, "specs.pq", 0) == texts[0]


@pytest.mark.parametrize("row_group_size", [1, 4, 30])
@pytest.mark.parametrize("start", [0, 1, 5, 29])
@pytest.mark.parametrize("stop", [0, 1, 8, 30])
@pytest.mark.parametrize("step", [1, 2, 7, 40])
def test_any_rows(row_group_size: int, start: int, stop: int, step: int) -> None:
    texts = [f"{i}" for i in range(30)]
    table = specs_table([{"sort_index": 2 * i} for i in range(30)], texts)
    kept_here(table, "specs.pq", row_group_size)
    rows = range(start, stop, step)
    found = read_rows(STORE, "specs.pq", rows)
    assert list(spec_texts(found)) == texts[start:stop:step]
    assert sort_indices(found) == [2 * row for row in rows]
    assert found.schema == table.schema
