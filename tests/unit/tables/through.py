"""Takes tables the way that they go from leaves to the final table, in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from scythe.messages import LeafRecord
from scythe.outcomes import LeafResult, LeafStats, StoreConfig
from scythe.specs.file import index_of, specs_table
from scythe.storage.store import Store
from scythe.tables.arrow import to_ipc
from scythe.tables.gather import LeafSlice, node_tables
from scythe.tables.merge import join_packs, merge_files, write_merged
from scythe.tables.packs import write_pack
from scythe.tables.user_tables import storable, with_leaf_index

Way = Literal["one node", "batches", "tree"]
WAYS: tuple[Way, ...] = ("one node", "batches", "tree")
NO_BUCKET = Store(StoreConfig(bucket="never-asked", region="eu-central-1"), client=object())


def index_of_leaf(row: int) -> dict[str, Any]:
    """The index of a spec."""
    return {"experiment_id": "e", "sort_index": row, "workflow_run_id": None, "x": row / 2}


def record(row: int, tables: Mapping[str, Any], scalars: Mapping[str, Any]) -> LeafRecord:
    """Record of a leaf that returns these tables and outputs."""
    data = {
        name: to_ipc(with_leaf_index(storable(name, table), index_of_leaf(row)))
        for name, table in tables.items()
    }
    return LeafRecord(LeafResult(json.dumps(scalars), {}, data, LeafStats()), 1, f"run-{row}")


def final_table(
    folder: Path, records: Sequence[LeafRecord], way: Way = "one node", name: str = "t"
) -> tuple[Path, list[str]]:
    """Return the file of a final table, and the warnings."""
    warnings: list[str] = []
    target = folder / "final.pq"
    if way == "one node":
        table = _tables(records, range(len(records)), name)[name]
        write_merged([table], target, final=True, name=name, warn=warnings.append)
        return target, warnings
    step = 2 if way == "tree" else 1
    parts: list[Path] = []
    for first in range(step):
        own = folder / f"node-{first}"
        own.mkdir()
        packs: list[Path] = []
        rows = range(first, len(records), step)
        for place in range(0, len(rows), 2):  # batches of two leaves
            packs.append(own / f"{place}.arrow")
            packs[-1].write_bytes(write_pack(_tables(records, rows[place : place + 2], name)))
        joined = join_packs(packs, own, final=way == "batches", warn=warnings.append)
        parts += joined.values()
    if way == "batches":
        return parts[0], warnings
    merge_files(parts, target, final=True, name=name, warn=warnings.append)
    return target, warnings


def _tables(records: Sequence[LeafRecord], rows: range, name: str) -> dict[str, Any]:
    index = index_of(specs_table([index_of_leaf(row) for row in rows], ["{}"] * len(rows)))
    leaves = LeafSlice(rows, index, [records[row] for row in rows], 0.0)
    return {
        found: table for found, table in node_tables(leaves, NO_BUCKET).items() if found == name
    }
