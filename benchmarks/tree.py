"""A run of 10⁶ to 10⁸ leaves without running them: the tree, messages, merging, hours, cost.

    python -m benchmarks.tree [--leaves 1000000 10000000 100000000] [--batch-size 2000]
        [--engine-cores 2] [--leaf-seconds 1.0] [--slots 1000]

Splitting, naming, messages and merging are Scythe's own code. In place of leaf and engine stands
what they cost: 16 ms of a core for each task, as measured here, and the price of requests to S3.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.table import Table
from scythe.messages import LeafInput, LeafRecord
from scythe.outcomes import LeafResult, LeafStats, StoreConfig
from scythe.scatter.models import ScatterGatherInput
from scythe.scatter.tree import RecursionMap, plan_tree
from scythe.settings import ScytheStorageSettings
from scythe.storage.files import S3Url
from scythe.storage.store import Store
from scythe.tables.gather import LeafSlice, node_tables
from scythe.tables.merge import join_packs, merge_files, write_merged
from scythe.tables.names import ORDER
from scythe.tables.packs import write_pack
from scythe.tables.pandas_index import with_pandas_index

_TASK_SECONDS = 0.016  # of one core, PostgreSQL and the engine together
_PUT, _GET = 5e-6, 4e-7  # US dollars
_TABLES = 3  # scalars, errors and leaves of each node


def nodes_below(tree: RecursionMap, tasks: int) -> Iterator[tuple[RecursionMap, int]]:
    """Yield every node with the number of its tasks."""
    count = len(tree.share(tasks))
    yield tree, count
    for child in tree.children(count):
        yield from nodes_below(child, tasks)


def pack_of(first: int, rows: int) -> bytes:
    """Return what a batch of no-op leaves gives back."""
    order = np.arange(first, first + rows)
    ids = [f"6f0b4c4e-3d5c-4f0e-8a3f-0d7b3c2a1e55-{row}" for row in range(first, first + rows)]
    common = {"sort_index": order, "workflow_run_id": ids, ORDER: order}
    scalars = with_pandas_index(pa.table({**common, "y": order}), ["sort_index"])
    leaves = with_pandas_index(pa.table({**common, "seconds": order * 0.1}), ["sort_index"])
    return write_pack({"scalars": scalars, "leaves": leaves})


def gather_leaves(folder: Path, count: int) -> tuple[Path, float]:
    """Make the tables of a node that ran leaves; return one, and the seconds for each row."""
    stats = LeafStats("node", 1, 1.0, 2.0, 1)
    record = LeafRecord(LeafResult('{"y":1}', {}, {}, stats), 1, "6f0b4c4e-3d5c-4f0e-8a3f")
    index = pa.table({"sort_index": np.arange(count)})
    leaves = LeafSlice(range(count), index, [record] * count, 1.0)
    store = Store(StoreConfig("bucket"), client=object())
    begin = time.perf_counter()
    for name, table in node_tables(leaves, store).items():
        write_merged([table], folder / f"{name}.pq", final=False)
    return folder / "scalars.pq", (time.perf_counter() - begin) / count


def merge_cost(tasks: int, size: int, children: int) -> tuple[float, float, int]:
    """Join a node's packs, and merge the files of nodes.

    Returns:
        Seconds for each row at the node, seconds for each row at its parent, and the peak of the
        memory of both in bytes.
    """
    tasks, children = min(tasks, 1000 if size == 1 else 200), max(1, min(children, 8))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packs = [folder / f"{number}.arrow" for number in range(tasks)]
        for number, pack in enumerate(packs):
            pack.write_bytes(pack_of(number * size, size))
        pool = pa.default_memory_pool()
        tracemalloc.start()
        begin = time.perf_counter()
        joined = join_packs(packs, folder, final=False)["scalars"]
        join = (time.perf_counter() - begin) / (tasks * size)
        if size == 1:
            joined, join = gather_leaves(folder, tasks)
        begin = time.perf_counter()
        merge_files([joined] * children, folder / "merged.pq", final=False)
        merge = (time.perf_counter() - begin) / (children * tasks * size)
        peak = tracemalloc.get_traced_memory()[1] + pool.max_memory()
        tracemalloc.stop()
    return join, merge, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--batch-size", type=int, default=2000)
    parser.add_argument("--engine-cores", type=int, default=2)
    parser.add_argument("--leaf-seconds", type=float, default=1.0)
    parser.add_argument("--slots", type=int, default=1000)
    options = parser.parse_args()
    table = Table(
        *["leaves", "batch", "tasks", "nodes", "depth", "most children", "largest message [kB]"],
        *["requests", "requests [$]", "engine [h]", "leaves [h]", "gather [h]", "gather [MB]"],
    )
    storage = ScytheStorageSettings(BUCKET="bucket")
    for leaves in options.leaves:
        for size in (1, options.batch_size):
            tree, tasks = plan_tree(leaves, size), math.ceil(leaves / size)
            nodes = depth = most = message = merges = 0
            for node, count in nodes_below(tree, tasks):
                base = node.is_base_case(count)
                children = count if base else min(node.factor, count)
                nodes, depth, most = nodes + 1, max(depth, node.depth), max(most, children)
                merges += 0 if base else 1
                if nodes == 1 or node.depth == tree.max_depth:
                    payload = ScatterGatherInput(
                        experiment_id="e/v1.0.0/2026-01-01_00-00-00",
                        task_name="e",
                        specs_uri=S3Url("s3://bucket/e/specs.pq"),
                        storage_settings=storage,
                        recursion_map=node,
                        batch_size=size,
                    )
                    leaf = LeafInput(
                        spec="x" * 200, experiment_id=payload.experiment_id, rows=(leaves, leaves)
                    )
                    parts = (payload.model_dump_json(), leaf.model_dump_json())
                    message = max(message, *map(len, parts))
            puts = nodes * (_TABLES + 1) + (tasks if size > 1 else 0)
            gets = (nodes - 1) * _TABLES + (2 * tasks if size > 1 else 0)
            join, merge, peak = merge_cost(min(most, tasks), min(size, leaves), tree.factor)
            levels = 1 + depth
            table.row(
                *[leaves, size, tasks, nodes, depth, most, message / 1000, puts + gets],
                puts * _PUT + gets * _GET,
                (tasks + nodes) * _TASK_SECONDS / options.engine_cores / 3600,
                leaves * options.leaf_seconds / options.slots / 3600,
                leaves * (join + (levels - 1) * merge) / 3600,
                peak / 1e6,
            )


if __name__ == "__main__":
    main()
