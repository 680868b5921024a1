"""From outcomes to tables: order, failures as rows, and names that clash."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.messages import LeafRecord
from scythe.outcomes import FailureKind, LeafFailure, LeafResult, LeafStats, StoreConfig
from scythe.provenance.identity import CodeIdentity
from scythe.specs.file import index_of, specs_table
from scythe.storage.store import Store
from scythe.tables.arrow import to_ipc
from scythe.tables.combine import concat
from scythe.tables.gather import LeafSlice, count_codes, node_tables, read_scalars
from scythe.tables.names import ORDER
from scythe.tables.user_tables import to_arrow, with_leaf_index

STATS = LeafStats(node="n1", pid=42, started=100.25, finished=101.75, peak_rss=2**40)
BUCKET = Store(StoreConfig(bucket="never-asked", region="eu-central-1"), client=object())


def leaf_index(row: int) -> dict[str, Any]:
    return {
        "experiment_id": "e",
        "sort_index": row,
        "workflow_run_id": None,
        "root_workflow_run_id": None,
        "x": row / 2,
    }


def done(row: int, scalars: dict[str, Any], **tables: Any) -> LeafRecord:
    data = {
        name: to_ipc(with_leaf_index(to_arrow(table), leaf_index(row)))
        for name, table in tables.items()
    }
    return LeafRecord(LeafResult(json.dumps(scalars), {}, data, STATS), 1, f"run-{row}")


def with_files(row: int, **files: str) -> LeafRecord:
    return LeafRecord(LeafResult("{}", files, {}, STATS), 1, f"run-{row}")


def failed(row: int, message: str = "no", **more: Any) -> LeafRecord:
    failure = LeafFailure(FailureKind.APPLICATION, "ValueError", message, "Traceback …", **more)
    return LeafRecord(failure, 3, f"run-{row}")


def gather(*records: LeafRecord, rows: range | None = None) -> dict[str, pd.DataFrame]:
    """The tables of a node, as pandas reads them from Parquet."""
    rows = rows or range(len(records))
    index = index_of(specs_table([leaf_index(row) for row in rows], ["{}"] * len(records)))
    leaves = LeafSlice(rows, index, list(records), 50.0, "root-1")
    frames: dict[str, pd.DataFrame] = {}
    for name, table in node_tables(leaves, BUCKET).items():
        assert table.column(ORDER).to_pylist() == sorted(table.column(ORDER).to_pylist())
        buffer = io.BytesIO()
        pq.write_table(concat([table], final=True).drop_columns([ORDER]), buffer)
        frames[name] = pd.read_parquet(buffer)
    return frames


def test_scalars_stand_beside_the_index_of_their_leaf() -> None:
    frames = gather(done(0, {"y": 0}), done(1, {"y": 1.5}), done(2, {"y": None}))
    scalars = frames["scalars"]
    assert scalars.index.names == list(leaf_index(0))
    assert scalars.index.get_level_values("x").tolist() == [0.0, 0.5, 1.0]
    assert scalars.index.get_level_values("workflow_run_id").tolist() == ["run-0", "run-1", "run-2"]
    assert set(scalars.index.get_level_values("root_workflow_run_id")) == {"root-1"}
    assert scalars["y"].fillna(-1).tolist() == [0.0, 1.5, -1.0]
    assert set(frames) == {"scalars", "errors", "leaves"}
    assert len(frames["errors"]) == 0


def test_an_output_with_the_name_of_a_field() -> None:
    scalars = gather(done(0, {"x": 9, "index.x": 8}))["scalars"]
    assert scalars.index.get_level_values("x").tolist() == [0.0]
    assert scalars[["x", "index.x"]].to_numpy().tolist() == [[9, 8]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5], [1.0, 2.5]),
        ([2**70, 1], [str(2**70), "1"]),
        ([True, None], [True, None]),
        ([{"a": 1}, {}], ['{"a": 1}', "{}"]),
        ([[1], []], [[1], []]),
        (["a\x00\ud800", None], ["a\x00\\ud800", None]),
    ],
    ids=repr,
)
def test_scalars_of_all_kinds(values: list[Any], expected: list[Any]) -> None:
    column = gather(*[done(i, {"y": v}) for i, v in enumerate(values)])["scalars"]["y"]
    found = [list(v) if isinstance(v, (list, tuple)) or hasattr(v, "tolist") else v for v in column]
    assert [None if v is None or v != v else v for v in found] == expected


def test_failed_leaves_are_rows_of_errors_and_nowhere_else() -> None:
    frames = gather(done(0, {"y": 1}), failed(1, "bad \x00 ü"), done(2, {"y": 3}))
    assert frames["scalars"].index.get_level_values("sort_index").tolist() == [0, 2]
    errors = frames["errors"]
    assert errors.index.get_level_values("x").tolist() == [0.5]
    assert errors.index.get_level_values("workflow_run_id").tolist() == ["run-1"]
    row = errors.iloc[0].to_dict()
    assert row.pop("pid") == 0
    assert row == {
        "kind": "application_error",
        "type": "ValueError",
        "message": "bad \x00 ü",
        "traceback": "Traceback …",
        "attempts": 3,
        "node": "",
    }


def test_leaves_say_which_code_they_ran(tmp_path: Path) -> None:
    known = replace(STATS, code=CodeIdentity("f" * 16, "1.0", "abc-dirty").text)
    other = replace(known, code="e" * 16)
    table = gather(failed(0, stats=known), failed(1, stats=other), failed(2))["leaves"]
    assert table["code"].fillna("").tolist() == ["f" * 16, "e" * 16, ""]
    assert table["code_version"].fillna("").tolist() == ["1.0", "", ""]
    assert table["code_commit"].fillna("").tolist() == ["abc-dirty", "", ""]
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "leaves.pq")
    assert count_codes(tmp_path / "leaves.pq") == {"f" * 16: 1, "e" * 16: 1, None: 1}


def test_every_leaf_is_a_row_of_leaves() -> None:
    leaves = gather(done(0, {"y": 1}), failed(1, stats=STATS), failed(2))["leaves"]
    assert leaves["state"].tolist() == ["done", "failed", "failed"]
    assert leaves["attempts"].tolist() == [1, 3, 3]
    assert leaves["seconds"].tolist() == [1.5, 1.5, 0.0]
    assert leaves["peak_rss"].tolist() == [2**40, 2**40, 0]
    assert leaves["node"].tolist() == ["n1", "n1", ""]
    assert leaves["started"].iloc[0] == pd.Timestamp(100.25, unit="s", tz="UTC")
    assert leaves["queued"].iloc[0] == pd.Timestamp(50, unit="s", tz="UTC")
    assert pd.isna(leaves["started"].iloc[2])
    assert leaves.index.names == ["experiment_id", "sort_index", "workflow_run_id"]


def test_all_failed() -> None:
    frames = gather(failed(0), failed(1))
    assert len(frames["scalars"]) == 0
    assert frames["scalars"].index.names == list(leaf_index(0))
    assert len(frames["errors"]) == len(frames["leaves"]) == 2


def test_no_leaf_has_scalars() -> None:
    frames = gather(done(0, {}, loads=pd.DataFrame({"a": [1]})), done(1, {}))
    assert set(frames) == {"loads", "errors", "leaves"}


def test_only_some_leaves_have_scalars_files_or_tables() -> None:
    frames = gather(
        done(0, {}),
        done(1, {"y": 1}, loads=pd.DataFrame({"a": [1, 2]})),
        with_files(2, report="s3://b/r.html"),
        failed(3),
    )
    assert frames["scalars"].index.get_level_values("sort_index").tolist() == [0, 1, 2]
    assert frames["scalars"]["y"].isna().tolist() == [True, False, True]
    assert frames["result_file_refs"]["report"].tolist() == ["s3://b/r.html"]
    assert frames["result_file_refs"].index.get_level_values("sort_index").tolist() == [2]
    assert frames["loads"].index.get_level_values("sort_index").tolist() == [1, 1]


def test_user_tables_whose_columns_differ() -> None:
    frames = gather(
        done(0, {}, t=pd.DataFrame({"a": [1]})),
        done(1, {}, t=pd.DataFrame({"a": [0.5], "b": ["q"]})),
        done(2, {}, t=pd.DataFrame({"x": [7]})),
        done(3, {}, t=pd.DataFrame({"a": []})),
    )
    table = frames["t"]
    assert table.index.get_level_values("x").tolist() == [0.0, 0.5, 1.0]  # the field of the spec
    assert table["a"].fillna(-1).tolist() == [1.0, 0.5, -1.0]
    assert table["x"].fillna(-1).tolist() == [-1, -1, 7]


def test_user_tables_with_the_names_of_ours_are_all_kept() -> None:
    names = ["errors", "user_errors", "leaves", "my_errors", "error", "user_user_errors"]
    tables = {name: pd.DataFrame({"a": [number]}) for number, name in enumerate(names)}
    frames = gather(done(0, {"y": 1}, **tables), failed(1))
    kept = {name: frame["a"].tolist() for name, frame in frames.items() if "a" in frame}
    assert kept == {
        "user_errors": [0],
        "user_user_errors": [1],
        "user_leaves": [2],
        "my_errors": [3],
        "error": [4],
        "user_user_user_errors": [5],
    }
    assert frames["errors"]["kind"].tolist() == ["application_error"]
    assert len(frames["leaves"]) == 2


def test_a_node_deep_in_the_tree_keeps_the_rows_of_the_run() -> None:
    rows = range(3, 12, 4)
    index = index_of(specs_table([leaf_index(row) for row in rows], ["{}"] * 3))
    records = [done(row, {"y": row}) for row in rows]
    tables = node_tables(LeafSlice(rows, index, records, 0.0, None), BUCKET)
    assert tables["scalars"].column(ORDER).to_pylist() == [3, 7, 11]
    assert tables["leaves"].column("queued").null_count == 3


def test_given_run_ids_stay_where_hatchet_has_none() -> None:
    index = pa.table({"sort_index": [0], "workflow_run_id": ["given"]})
    record = LeafRecord(LeafResult('{"y": 1}', {}, {}, STATS), 1, None)
    tables = node_tables(LeafSlice(range(1), index, [record], 0.0), BUCKET)
    assert tables["scalars"].column("workflow_run_id").to_pylist() == ["given"]


def test_large_scalars_are_read_from_the_bucket() -> None:
    result = LeafResult("{}", {}, {}, STATS, scalars_key="a/scalars.json")
    assert read_scalars(result, {"a/scalars.json": b'{"y": [1]}'}.__getitem__) == {"y": [1]}
