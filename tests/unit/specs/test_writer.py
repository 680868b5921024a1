"""The file of all specs, whatever the chunks are like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from scythe.base import ExperimentInputSpec
from scythe.errors import SpecError
from scythe.outcomes import StoreConfig
from scythe.specs.file import SPEC_COLUMN, sort_indices
from scythe.specs.writer import SpecChecker, SpecRules, SpecsWriter
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


@pytest.mark.parametrize("place", [0, 1, 2500])
def test_a_spec_that_cannot_travel_is_named_by_its_number_among_all(place: int) -> None:
    specs: list[Any] = [{"size": 1.0}] * 3000
    specs[place] = {"size": 1.0, "extra": object()}
    checks = checker()
    checks.chunk([{"size": 1.0}] * 7)
    with pytest.raises(SpecError, match=rf"^Spec {place + 7}: Field 'extra' .* Nothing was"):
        checks.chunk(specs)


def test_a_wrong_id_is_named_by_the_number_of_its_spec() -> None:
    rules = SpecRules(Sized, False, True, False)
    checks = SpecChecker(rules, RunLayout("p", "e/v1.0.0/d"), STORE)
    specs = [{"experiment_id": "e/v1.0.0/d"}, {"experiment_id": "../up"}]
    with pytest.raises(SpecError, match=r"^Spec 1: .*experiment_id"):
        checks.chunk(specs)


def test_columns_that_only_some_specs_of_a_chunk_have() -> None:
    specs: list[Any] = [{"size": None}] * 1000 + [{"size": 2.0, "extra": "x"}] * 1000
    chunk = checker().chunk([*specs, {"size": "wide", "nested": [1]}])
    assert chunk is not None
    assert chunk.table.column("size").to_pylist() == [None] * 1000 + ["2.0"] * 1000 + ["wide"]
    assert chunk.table.column("extra").to_pylist() == [None] * 1000 + ["x"] * 1000 + [None]
    assert "nested" not in chunk.table.column_names
    assert sort_indices(chunk.table) == list(range(2001))


def test_the_given_specs_are_not_changed() -> None:
    given = Sized(experiment_id="mine", sort_index=9, size=1.0)
    chunk = checker().chunk([given, given])
    assert chunk is not None
    assert (given.experiment_id, given.sort_index) == ("mine", 9)
    assert (chunk.first.experiment_id, chunk.first.sort_index) == ("e/v1.0.0/d", 0)


def test_the_first_spec_is_the_first_of_those_with_the_lowest_number() -> None:
    numbers = [3, 1, *[5] * 2000, 1, 2]
    specs = [{"sort_index": n, "size": float(i)} for i, n in enumerate(numbers)]
    chunk = checker(number=False).chunk(specs)
    assert chunk is not None
    assert (chunk.first.sort_index, getattr(chunk.first, "size", None)) == (1, 1.0)


def test_no_specs_are_no_chunk() -> None:
    assert checker().chunk(iter([])) is None


class Roof(ExperimentInputSpec):
    r_value: float = 1.0


def roof_checker(cls: type[ExperimentInputSpec] = Roof, *, strict: bool = False) -> SpecChecker:
    rules = SpecRules(cls, False, True, True, strict)
    return SpecChecker(rules, RunLayout("p", "e/v1.0.0/d"), STORE)


def test_unknown_fields_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    checks = roof_checker()
    for _ in range(2):
        checks.chunk([{"r_vlaue": 9.0}] * 50)
    checks.chunk([{"colour": "red", "r_value": 2.0}])
    checks.warn_of_unknown_fields()
    assert [record.getMessage() for record in caplog.records] == [
        "unknown field 'r_vlaue' in 100 specs; did you mean 'r_value'?",
        "unknown field 'colour' in 1 spec",
    ]


def test_unknown_fields_are_refused_where_that_is_asked() -> None:
    checks = roof_checker(strict=True)
    checks.chunk([{"r_value": 1.0}])
    message = "Spec 2: unknown field 'r_vlaue'; did you mean 'r_value'?. Nothing was uploaded"
    with pytest.raises(SpecError, match=re.escape(message.replace("?.", "?"))):
        checks.chunk([{"r_value": 1.0}, {"r_vlaue": 1.0}])


def test_a_class_that_declares_its_extras_means_to_take_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Open(Roof):
        __pydantic_extra__: dict[str, Any]

    checks = roof_checker(Open, strict=True)
    checks.chunk([{"anything": 1}])
    checks.warn_of_unknown_fields()
    assert caplog.records == []
