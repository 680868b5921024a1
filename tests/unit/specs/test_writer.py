"""The file of all specs, whatever the chunks are like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from scythe.base import ExperimentInputSpec
from scythe.errors import SpecError
from scythe.outcomes import StoreConfig
from scythe.specs.file import SPEC_COLUMN, sort_indices
from scythe.specs.writer import SpecChecker, SpecRules, SpecsWriter, chunks_of
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store

STORE = Store(StoreConfig("b", endpoint_url="http://127.0.0.1:1", region="x"), client=object())


class Sized(ExperimentInputSpec):
    size: float | str | None = None


def checker(*, number: bool = True) -> SpecChecker:
    rules = SpecRules(Sized, False, number, True)
    return SpecChecker(rules, RunLayout("p", "e/v1.0.0/d"), STORE)


def written(folder: Path, chunks: list[list[Any]], *, number: bool = True) -> Any:
    checks, writer = checker(number=number), SpecsWriter(folder)
    for given in chunks:
        chunk = checks.chunk(given)
        assert chunk is not None
        writer.add(chunk.table)
    file = writer.finish()
    assert writer.n_specs == sum(map(len, chunks))
    return pq.read_table(file)


def test_chunks_that_are_alike_are_written_as_they_come(tmp_path: Path) -> None:
    table = written(tmp_path, [[{"size": 1.0}, {"size": 2.0}], [{"size": 3.0}]])
    assert table.column("size").to_pylist() == [1.0, 2.0, 3.0]
    assert sort_indices(table) == [0, 1, 2]
    assert set(table.column("experiment_id").to_pylist()) == {"e/v1.0.0/d"}
    assert len(list(tmp_path.iterdir())) == 1


def test_chunks_whose_columns_differ(tmp_path: Path) -> None:
    chunks = [[{"size": 1.0}], [{"size": None}], [{"size": "wide", "extra": 7}], [{"size": 4.0}]]
    table = written(tmp_path, chunks)
    assert table.column("size").to_pylist() == ["1.0", None, "wide", "4.0"]
    assert table.column("extra").to_pylist() == [None, None, 7, None]
    texts = table.column(SPEC_COLUMN).to_pylist()
    assert [Sized.model_validate_json(text).size for text in texts] == [1.0, None, "wide", 4.0]


def test_numbers_of_the_users_own_are_sorted_over_all_chunks(tmp_path: Path) -> None:
    orders = [[5, 1], [9, 9], [0], [7, 3]]
    chunks = [[{"sort_index": i, "size": float(i)} for i in chunk] for chunk in orders]
    table = written(tmp_path, chunks, number=False)
    assert sort_indices(table) == [0, 1, 3, 5, 7, 9, 9]
    assert table.column("size").to_pylist() == [0.0, 1.0, 3.0, 5.0, 7.0, 9.0, 9.0]


def test_a_wrong_spec_is_named_by_its_number_among_all() -> None:
    checks = checker()
    checks.chunk([{"size": 1.0}] * 3)
    with pytest.raises(SpecError, match=r"Spec 4: field 'size\.float'"):
        checks.chunk([{"size": 2.0}, {"size": [1]}])


def test_chunks_of_an_iterator() -> None:
    sizes = [len(chunk) for chunk in chunks_of(iter(range(25_000)))]
    assert sizes == [10_000, 10_000, 5_000]
    assert checker().chunk([]) is None
