"""Specs come in many forms, and mean the same in each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.errors import SpecError
from scythe.outcomes import StoreConfig
from scythe.specs.source import is_single, iterate_specs
from scythe.storage.store import Store

STORE = Store(StoreConfig("b", endpoint_url="http://127.0.0.1:1", region="x"), client=object())
ROWS = [{"x": 1.5, "name": "a"}, {"x": 2.0, "name": None}, {"x": -1.0, "name": "c"}]


def parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "specs.parquet")
    return folder / "specs.parquet"


@pytest.mark.parametrize(
    "make",
    [
        lambda _: ROWS,
        lambda _: (row for row in ROWS),
        lambda _: pa.Table.from_pylist(ROWS),
        lambda _: pa.Table.from_pylist(ROWS).to_reader(max_chunksize=2),
        lambda _: pd.DataFrame(ROWS),
        lambda _: pd.DataFrame(ROWS).set_index("name"),
        lambda _: pl.DataFrame(ROWS),
        parquet,
        lambda folder: str(parquet(folder)),
        lambda folder: parquet(folder).as_uri(),
    ],
    ids=[
        "list",
        "generator",
        "arrow",
        "reader",
        "pandas",
        "index",
        "polars",
        "path",
        "text",
        "uri",
    ],
)
def test_all_forms_give_the_same(
    make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
    found = [dict(row) for row in iterate_specs(make(tmp_path), STORE)]
    assert [{**row, "name": row["name"] or None} for row in found] == ROWS


def test_one_spec() -> None:
    assert is_single({"x": 1})
    assert not is_single([{"x": 1}])
    assert list(iterate_specs({"x": 1}, STORE)) == [{"x": 1}]


@pytest.mark.parametrize("given", ["text", "/no/such/file.parquet", Path("none.pq")])
def test_what_cannot_be_read_says_so(given: Any) -> None:
    with pytest.raises(SpecError, match=r"path or URI of a Parquet file"):
        list(iterate_specs(given, STORE))


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.pq").write_text("no")
    with pytest.raises(SpecError, match=r"The specs cannot be read from .*x\.pq"):
        list(iterate_specs(tmp_path / "x.pq", STORE))
