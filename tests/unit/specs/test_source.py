"""Specs come in many forms, and mean the same in each."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.base import ExperimentInputSpec
from scythe.errors import SpecError
from scythe.outcomes import StoreConfig
from scythe.specs.source import is_single, iterate_specs
from scythe.storage.store import Store

STORE = Store(StoreConfig("b", endpoint_url="http://127.0.0.1:1", region="x"), client=object())
ROWS = [{"x": 1.5, "name": "a"}, {"x": 2.0, "name": None}, {"x": -1.0, "name": "c"}]


class Wall(ExperimentInputSpec):
    x: float
    name: str | None = None
    floors: int | None = None
    height: float | None = None


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
    found = [dict(row) for row in iterate_specs(make(tmp_path), STORE, Wall)]
    assert [{**row, "name": row["name"] or None} for row in found] == ROWS


def test_one_spec() -> None:
    assert is_single({"x": 1})
    assert not is_single([{"x": 1}])
    assert list(iterate_specs({"x": 1}, STORE, Wall)) == [{"x": 1}]


@pytest.mark.parametrize("given", ["text", "/no/such/file.parquet", Path("none.pq")])
def test_what_cannot_be_read_says_so(given: Any) -> None:
    with pytest.raises(SpecError, match=r"path or URI of a Parquet file"):
        list(iterate_specs(given, STORE, Wall))


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.pq").write_text("no")
    with pytest.raises(SpecError, match=r"The specs cannot be read from .*x\.pq"):
        list(iterate_specs(tmp_path / "x.pq", STORE, Wall))


def test_what_pandas_has_as_nan_is_none_where_the_field_takes_no_nan() -> None:
    frame = pd.DataFrame(
        {
            "x": [1.0, float("nan")],
            "name": ["a", None],
            "floors": [3, None],  # floats, by pandas
            "height": pd.array([2.5, None], "Float64"),
        }
    )
    first, second = iterate_specs(frame, STORE, Wall)
    assert first == {"x": 1.0, "name": "a", "floors": 3, "height": 2.5}
    assert math.isnan(second.pop("x"))
    assert second == {"name": None, "floors": None, "height": None}
    assert Wall(experiment_id="x", sort_index=0, **first).floors == 3


def test_a_table_whose_columns_have_one_name() -> None:
    frame = pd.DataFrame([[1.0, 2.0]], columns=["x", "x"])
    with pytest.raises(SpecError, match="two columns 'x'"):
        list(iterate_specs(frame, STORE, Wall))


@pytest.mark.parametrize(
    "given", [pl.Series([1.5]), pa.chunked_array([[1.5]])], ids=["polars", "pyarrow"]
)
def test_a_column_is_no_table(given: Any) -> None:
    with pytest.raises(SpecError, match="is no table of specs"):
        list(iterate_specs(given, STORE, Wall))
