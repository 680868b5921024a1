"""What a scatter node writes: tables for its parent, or the final tables of the run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scythe.files import S3Url, split_s3_uri
from scythe.gather import ERRORS, LeafSlice, node_tables
from scythe.layout import RunLayout
from scythe.merge import merge_files, write_merged
from scythe.messages import LeafRecord
from scythe.node_models import ScatterGatherInput, ScatterGatherResult
from scythe.outcomes import FailureKind, LeafFailure, StoreConfig
from scythe.specs_file import index_of, read_specs
from scythe.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """Where a node writes.

    Attributes:
        store: The bucket.
        config: The bucket, as other processes open it.
        layout: The keys of the run.
        payload: The node's input.
        root_workflow_run_id: Hatchet's id of the run.
    """

    store: Store
    config: StoreConfig
    layout: RunLayout
    payload: ScatterGatherInput
    root_workflow_run_id: str

    @property
    def is_root(self) -> bool:
        """Whether the tables are the final ones."""
        return self.payload.recursion_map.is_root

    def upload(self, name: str, file: Path) -> S3Url:
        """Upload a table under its key, which is the same on every try of the node."""
        node = self.payload.recursion_map.node
        final = self.layout.final_table(name)
        key = final if self.is_root else self.layout.node_table(node, name)
        return S3Url(self.store.put_file(key, file))


@dataclass(frozen=True, slots=True)
class NodeFailure:
    """A node below this one that gave no result.

    Attributes:
        payload: Its input.
        reason: Why, as Hatchet says it.
    """

    payload: ScatterGatherInput
    reason: str


def write_base_node(output: NodeOutput, leaves: LeafSlice) -> ScatterGatherResult:
    """Write the tables of a node that ran leaves."""
    tables = node_tables(leaves, output.store)
    uris: dict[str, S3Url] = {}
    with tempfile.TemporaryDirectory(prefix="scythe-node-") as folder:
        for name, table in tables.items():
            file = Path(folder) / "table.pq"
            write_merged([table], file, final=output.is_root)
            uris[name] = output.upload(name, file)
    n_failed = tables[ERRORS].num_rows
    return ScatterGatherResult(uris=uris, n_leaves=len(leaves.records), n_failed=n_failed)


def write_inner_node(
    output: NodeOutput, children: Sequence[ScatterGatherResult | NodeFailure]
) -> ScatterGatherResult:
    """Merge the tables of the nodes below into those of this node.

    The leaves of a node that gave no result count as failed, each with a row in `errors`.
    """
    with tempfile.TemporaryDirectory(prefix="scythe-node-") as name:
        folder = Path(name)
        sources, counts = _collect(output, children, folder)
        uris: dict[str, S3Url] = {}
        for table, files in sources.items():
            merged = folder / "merged.pq"
            merge_files(files, merged, final=output.is_root)
            uris[table] = output.upload(table, merged)
    return ScatterGatherResult(uris=uris, n_leaves=counts[0], n_failed=counts[1])


def _collect(
    output: NodeOutput, children: Sequence[ScatterGatherResult | NodeFailure], folder: Path
) -> tuple[dict[str, list[Path]], tuple[int, int]]:
    sources: dict[str, list[Path]] = {}
    total = failed = 0
    for number, child in enumerate(children):
        if isinstance(child, NodeFailure):
            tables = _lost_tables(output, child)
            lost = tables[ERRORS].num_rows
            total, failed = total + lost, failed + lost
            for name, table in tables.items():
                file = folder / f"{number}-{len(sources)}-{name}.pq"
                write_merged([table], file, final=False)
                sources.setdefault(name, []).append(file)
            continue
        total, failed = total + child.n_leaves, failed + child.n_failed
        for name, uri in child.uris.items():
            file = folder / f"{number}-{name}.pq"
            output.store.download(split_s3_uri(str(uri))[1], file)
            sources.setdefault(name, []).append(file)
    return sources, (total, failed)


def _lost_tables(output: NodeOutput, child: NodeFailure) -> dict[str, pa.Table]:
    """Make the tables of a node that gave no result: all its leaves have failed."""
    import pyarrow as pa

    _, key = split_s3_uri(str(child.payload.specs_uri))
    specs = read_specs(output.config, key)
    rows = child.payload.recursion_map.rows(specs.num_rows)
    failure = LeafFailure(
        kind=FailureKind.RESULT_LOST,
        type="NodeFailed",
        message=f"the scatter node {child.payload.recursion_map.node} of this leaf failed, so that "
        f"its result is not known: {child.reason}"[:2000],
    )
    leaves = LeafSlice(
        rows=rows,
        index=index_of(specs.take(pa.array(list(rows), pa.int64()))),
        records=[LeafRecord(failure, 0, None)] * len(rows),
        queued=0.0,
        root_workflow_run_id=output.root_workflow_run_id,
    )
    return node_tables(leaves, output.store)
