"""Scatter nodes write their tables, also for nodes below them that gave no result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.messages import LeafRecord
from scythe.outcomes import FailureKind, LeafFailure, LeafResult, LeafStats
from scythe.scatter.models import ScatterGatherInput, ScatterGatherResult
from scythe.scatter.output import NodeFailure, NodeOutput, write_base_node, write_inner_node
from scythe.scatter.tree import RecursionMap
from scythe.settings import ScytheStorageSettings
from scythe.specs.file import index_of, specs_table
from scythe.storage.files import S3Url, split_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store
from scythe.tables.arrow import to_ipc
from scythe.tables.gather import LeafSlice
from scythe.tables.user_tables import to_arrow, with_leaf_index

COUNT = 10


class Tree:
    """A run of ten specs in a tree of two nodes, without any engine."""

    def __init__(self, store: Store, folder: str, file: Path) -> None:
        self.store = store
        self.layout = RunLayout(store.config.prefix, f"{folder}/v1.0.0/d")
        rows = [
            {"sort_index": i, "x": i / 2, "workflow_run_id": None, "root_workflow_run_id": None}
            for i in range(COUNT)
        ]
        self.specs = specs_table(rows, ["{}"] * COUNT)
        pq.write_table(self.specs, file)
        store.put_file(self.layout.specs, file)
        self.root = RecursionMap(factor=2, max_depth=1)

    def payload(self, tree: RecursionMap) -> ScatterGatherInput:
        return ScatterGatherInput(
            experiment_id=self.layout.experiment_id,
            task_name="t",
            specs_uri=S3Url(self.store.uri(self.layout.specs)),
            recursion_map=tree,
            storage_settings=ScytheStorageSettings(BUCKET=self.store.bucket),
            root_workflow_run_id="root",
        )

    def output(self, tree: RecursionMap) -> NodeOutput:
        return NodeOutput(self.store, self.store.config, self.layout, self.payload(tree), "root")

    def run_leaves(self, offset: int, *, failing: tuple[int, ...] = ()) -> ScatterGatherResult:
        """Write what a node of leaves writes: each has a scalar and a table of two rows."""
        tree = self.root.child(offset)
        rows = tree.share(COUNT)
        records = [self.record(row, failing) for row in rows]
        index = index_of(self.specs.take(pa.array(list(rows))))
        return write_base_node(self.output(tree), LeafSlice(rows, index, records, 1.0, "root"))

    def record(self, row: int, failing: tuple[int, ...]) -> LeafRecord:
        if row in failing:
            failure = LeafFailure(FailureKind.APPLICATION, "ValueError", f"no {row}")
            return LeafRecord(failure, 3, f"run-{row}")
        table = to_arrow(pd.DataFrame({"v": [row, row + 0.5]}))
        data: bytes | str = to_ipc(with_leaf_index(table, {"sort_index": row, "x": row / 2}))
        if row % 3 == 0:  # too large to travel
            key = self.layout.leaf_table(f"{row}", "loads")
            self.store.put_bytes(key, data if isinstance(data, bytes) else b"")
            data = key
        result = LeafResult(json.dumps({"y": row}), {}, {"loads": data}, LeafStats())
        return LeafRecord(result, 1, f"run-{row}")

    def final(self, name: str, tmp_path: Path) -> pd.DataFrame:
        self.store.download(self.layout.final_table(name), tmp_path / "table.pq")
        return pd.read_parquet(tmp_path / "table.pq")


@pytest.fixture
def tree(store: Store, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
    return Tree(store, folder, tmp_path / "specs.pq")


def level(frame: pd.DataFrame, name: str) -> list[Any]:
    return frame.index.get_level_values(name).tolist()


def test_nodes_are_merged_in_the_order_of_the_specs(tree: Tree, tmp_path: Path) -> None:
    children = [tree.run_leaves(0, failing=(4,)), tree.run_leaves(1)]
    result = write_inner_node(tree.output(tree.root), children)
    assert (result.n_leaves, result.n_failed) == (10, 1)
    assert set(result.uris) == {"scalars", "errors", "leaves", "loads"}
    assert split_s3_uri(str(result.uris["scalars"]))[1] == tree.layout.final_table("scalars")
    rows = [i for i in range(COUNT) if i != 4]
    scalars = tree.final("scalars", tmp_path)
    assert level(scalars, "sort_index") == scalars["y"].tolist() == rows
    assert level(scalars, "workflow_run_id") == [f"run-{i}" for i in rows]
    loads = tree.final("loads", tmp_path)
    assert loads["v"].tolist() == [v for i in rows for v in (i, i + 0.5)]
    assert level(tree.final("errors", tmp_path), "sort_index") == [4]
    assert tree.final("leaves", tmp_path)["state"].tolist().count("failed") == 1


def test_a_node_may_be_run_again(tree: Tree, store: Store) -> None:
    first = tree.run_leaves(0)
    keys = list(store.list_keys(tree.layout.prefix))
    assert tree.run_leaves(0) == first
    assert list(store.list_keys(tree.layout.prefix)) == keys


def test_the_leaves_of_a_lost_node_are_rows_of_errors(tree: Tree, tmp_path: Path) -> None:
    lost = NodeFailure(tree.payload(tree.root.child(1)), "the worker is gone \x00")
    result = write_inner_node(tree.output(tree.root), [tree.run_leaves(0, failing=(2,)), lost])
    assert (result.n_leaves, result.n_failed, result.n_lost) == (10, 6, 5)
    assert level(tree.final("scalars", tmp_path), "sort_index") == [0, 4, 6, 8]
    errors = tree.final("errors", tmp_path)
    assert level(errors, "sort_index") == [1, 2, 3, 5, 7, 9]
    assert level(errors, "x") == [0.5, 1.0, 1.5, 2.5, 3.5, 4.5]
    assert errors["kind"].tolist().count("result_lost") == 5
    assert "the scatter node 1 of this leaf failed" in errors["message"].iloc[0]
    assert "the worker is gone" in errors["message"].iloc[0]
    assert len(tree.final("leaves", tmp_path)) == 10


def test_all_nodes_are_lost(tree: Tree, tmp_path: Path) -> None:
    lost = [NodeFailure(tree.payload(tree.root.child(i)), "gone") for i in range(2)]
    result = write_inner_node(tree.output(tree.root), lost)
    assert (result.n_leaves, result.n_failed, result.n_lost) == (10, 10, 10)
    assert len(tree.final("errors", tmp_path)) == 10
    assert len(tree.final("scalars", tmp_path)) == 0


def test_a_node_that_is_the_root_writes_the_final_tables(tree: Tree, tmp_path: Path) -> None:
    alone = RecursionMap(factor=10, max_depth=0)
    records = [tree.record(row, ()) for row in range(COUNT)]
    leaves = LeafSlice(range(COUNT), index_of(tree.specs), records, 1.0, "root")
    result = write_base_node(tree.output(alone), leaves)
    assert result.summary == "10 leaves, 10 done, 0 failed"
    assert tree.final("scalars", tmp_path)["y"].tolist() == list(range(COUNT))
    assert "__order__" not in tree.final("loads", tmp_path).columns
