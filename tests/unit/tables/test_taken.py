"""Leaves that a run takes from another: their rows become those of leaves of the new run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.messages import LeafRecord
from scythe.outcomes import FailureKind, LeafFailure, LeafResult, LeafStats, StoreConfig
from scythe.runs.reuse import with_experiment_id
from scythe.scatter.reused import ReusedLeaves
from scythe.specs.file import SPEC_COLUMN, index_of, specs_table
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store
from scythe.tables.arrow import to_ipc
from scythe.tables.gather import LEAVES, LeafSlice, node_tables
from scythe.tables.merge import merge_files, write_merged
from scythe.tables.taken import LeafMap, take_rows
from scythe.tables.user_tables import to_arrow, with_leaf_index

BUCKET = Store(StoreConfig(bucket="never-asked", region="eu-central-1"), client=object())
LAYOUT = RunLayout("p", "e/v1.0.0/new")


def index(run: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
    names = ("workflow_run_id", "root_workflow_run_id")
    return [
        {"experiment_id": run, "sort_index": n, **dict.fromkeys(names), "x": n / 2} for n in numbers
    ]


def record(row: dict[str, Any], *, fails: bool) -> LeafRecord:
    number = row["sort_index"]
    if fails:
        failure = LeafFailure(FailureKind.APPLICATION, "ValueError", "no", "Traceback …")
        return LeafRecord(failure, 3, f"run-{number}")
    frame = pd.DataFrame(
        {
            "when": pd.date_range("2026-01-01", periods=2, tz="Europe/Zurich"),
            "large": pd.array([2**60 + number, None], "Int64"),
            "kind": pd.Categorical(["a", "b"]),
        }
    )
    tables = {"hours": to_ipc(with_leaf_index(to_arrow(frame), row))}
    result = LeafResult(json.dumps({"y": 2 * number, "x": "a"}), {"plot": "s3://b/k"}, tables,
                        LeafStats(node="n", pid=1, code=f"abc{number}"))  # fmt: skip
    return LeafRecord(result, 1, f"run-{number}")


def final_tables(
    folder: Path, run: str, numbers: Sequence[int], failed: Sequence[int] = (), *, final: bool
) -> dict[str, Path]:
    rows = index(run, numbers)
    specs = index_of(specs_table(rows, ["{}"] * len(rows)))
    records = [record(row, fails=row["sort_index"] in failed) for row in rows]
    made = node_tables(LeafSlice(range(len(rows)), specs, records, 1.0, "root"), BUCKET)
    folder.mkdir()
    for name, table in made.items():
        write_merged([table], folder / f"{name}.pq", final=final)
    return {name: folder / f"{name}.pq" for name in made}


class Bucket:
    """A bucket that is a dict of local files."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    def list_keys(self, prefix: str) -> list[str]:
        return [key for key in self.files if key.startswith(prefix)]

    def download(self, key: str, path: Path) -> None:
        path.write_bytes(self.files[key].read_bytes())


def merged(
    folder: Path, source: dict[str, Path], leaves: LeafMap, others: dict[str, Path], n_others: int
) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name, file in source.items():
        taken = take_rows(file, folder, leaves, is_by_leaf=name == LEAVES)
        files |= {LAYOUT.reused_table(name, number): one for number, one in enumerate(taken)}
    store: Any = Bucket(files)
    reused = ReusedLeaves(store, LAYOUT, folder, n_others)
    made: dict[str, Path] = {}
    for name in dict.fromkeys([*others, *reused.names]):
        made[name] = folder / f"{name}-made.pq"
        given = [others[name]] if name in others else []
        reused.merge(name, given, made[name], pytest.fail)
    return made


def ids(run: str, numbers: Sequence[int]) -> pa.Table:
    return pa.table({"experiment_id": [run] * len(numbers), "sort_index": numbers})


@pytest.mark.parametrize("again", [[1, 4, 5], [0], [11], list(range(12)), list(range(11))])
def test_failed_leaves_run_again_beside_those_that_are_taken(
    tmp_path: Path, again: list[int]
) -> None:
    numbers = list(range(12))
    source = final_tables(tmp_path / "old", "old", numbers, again, final=True)
    others = final_tables(tmp_path / "others", "new", again, final=False)
    rows = np.where(np.isin(numbers, again), -1, numbers)
    leaves = LeafMap(rows, np.array(numbers), ids("new", numbers))
    made = merged(tmp_path, source, leaves, others, len(again))
    expected = final_tables(tmp_path / "all", "new", numbers, final=True)
    assert set(made) == set(expected)
    for name, file in expected.items():
        pd.testing.assert_frame_equal(pd.read_parquet(made[name]), pd.read_parquet(file))


def test_leaves_are_taken_in_another_order_and_beside_new_ones(tmp_path: Path) -> None:
    # The new run has the leaves 3, 0 and 2 of the old one as 0, 2 and 3, and runs the leaf 1.
    source = final_tables(tmp_path / "old", "old", [0, 10, 20, 30], [10], final=True)
    others = final_tables(tmp_path / "others", "new", [1], final=False)
    rows = np.array([2, -1, 3, 0])
    leaves = LeafMap(rows, np.array([0, 10, 20, 30]), ids("new", range(4)))
    made = {name: pd.read_parquet(file) for name, file in
            merged(tmp_path, source, leaves, others, 1).items()}  # fmt: skip
    for name, count in [("scalars", 1), ("hours", 2), ("result_file_refs", 1), ("leaves", 1)]:
        numbers = made[name].index.get_level_values("sort_index")
        assert numbers.tolist() == [n for n in range(4) for _ in range(count)]
        assert set(made[name].index.get_level_values("experiment_id")) == {"new"}
    assert made["scalars"]["y"].tolist() == [60, 2, 0, 40]
    assert made["leaves"]["code"].tolist() == ["abc30", "abc1", "abc0", "abc20"]
    assert made["hours"]["large"].tolist()[::2] == [2**60 + n for n in (30, 1, 0, 20)]
    assert len(made["errors"]) == 0


def test_nothing_is_run_and_all_is_taken(tmp_path: Path) -> None:
    source = final_tables(tmp_path / "old", "old", range(3), final=True)
    leaves = LeafMap(np.arange(3), np.arange(3), ids("new", range(3)))
    made = merged(tmp_path, source, leaves, {}, 0)
    expected = final_tables(tmp_path / "all", "new", range(3), final=True)
    for name, file in expected.items():
        if name != "errors":  # has no rows to take: a run has it from the leaves that it runs
            pd.testing.assert_frame_equal(pd.read_parquet(made[name]), pd.read_parquet(file))


def test_files_without_reused_leaves_are_merged_as_ever(tmp_path: Path) -> None:
    others = final_tables(tmp_path / "others", "new", range(3), final=False)
    store: Any = SimpleNamespace(list_keys=lambda _: [])
    reused = ReusedLeaves(store, LAYOUT, tmp_path, 3)
    assert reused.names == []
    reused.merge("scalars", [others["scalars"]], tmp_path / "one.pq", pytest.fail)
    merge_files([others["scalars"]], tmp_path / "two.pq", final=True)
    assert pq.read_table(tmp_path / "one.pq").equals(pq.read_table(tmp_path / "two.pq"))


@pytest.mark.parametrize("before", ["e/v1.0.0/2026-01-01_00-00-00", 'dä "x"/v1.0.0/a.b+c'])
def test_the_id_of_a_run_is_replaced_in_every_form_of_a_spec(tmp_path: Path, before: str) -> None:
    after = "e/v1.0.0/2026-02-02_00-00-00"
    plain = {"experiment_id": before, "text": f'"experiment_id":"{before}"'}
    texts = [
        json.dumps(plain, separators=(",", ":"), ensure_ascii=False),
        "tagged:" + json.dumps(plain),
        "private:" + json.dumps([{"_p": 1}, "tagged:" + json.dumps(plain)]),
        json.dumps({"experiment_id": "mine"}),
    ]
    names = [before, before, before, "mine"]
    rows = [{"experiment_id": name, "sort_index": n} for n, name in enumerate(names)]
    pq.write_table(specs_table(rows, texts), tmp_path / "old.pq")
    with_experiment_id(tmp_path / "old.pq", tmp_path / "new.pq", before, after)
    table = pq.read_table(tmp_path / "new.pq")
    assert table.column("experiment_id").to_pylist() == [after, after, after, "mine"]
    first, tagged, private, mine = table.column(SPEC_COLUMN).to_pylist()
    expected = {**plain, "experiment_id": after}
    assert json.loads(first) == expected
    assert json.loads(tagged.removeprefix("tagged:")) == expected
    inner = json.loads(private.removeprefix("private:"))[1]
    assert json.loads(inner.removeprefix("tagged:")) == expected
    assert mine == texts[3]
