"""Writes the output of a scatter node: tables for its parent, or the run's final tables."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.messages import LeafRecord
from scythe.outcomes import BatchResult, FailureKind, LeafFailure, StoreConfig
from scythe.scatter.models import NodeEnd, ScatterGatherInput, ScatterGatherResult
from scythe.scatter.tree import Rows
from scythe.settings import code_mismatch
from scythe.specs.file import count_specs, index_of, read_rows
from scythe.storage.files import S3Url, split_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store
from scythe.tables.gather import (
    CODE,
    ERRORS,
    LEAVES,
    LeafSlice,
    count_codes,
    node_tables,
    own_tables,
    user_tables,
)
from scythe.tables.merge import join_packs, merge_files, write_merged
from scythe.tables.packs import write_pack

_DOWNLOADS = 8  # parallel downloads

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """The destination of a node's tables.

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
    def is_final(self) -> bool:
        """Whether the tables are the final ones."""
        return self.payload.writes_final_tables

    def keep(self, result: ScatterGatherResult) -> None:
        """Store the result of a node below the root, in case another process finishes the run."""
        document = NodeEnd(payload=self.payload, result=result).model_dump_json()
        key = self.layout.node_result(self.payload.recursion_map.node)
        self.store.put_bytes(key, document.encode())

    def upload(self, name: str, file: Path) -> S3Url:
        """Upload a table under its key, which is the same in every attempt of the node."""
        node = self.payload.recursion_map.node
        final = self.layout.final_table(name)
        key = final if self.is_final else self.layout.node_table(node, name)
        return S3Url(self.store.put_file(key, file))

    def counted(self, codes: Mapping[str | None, int]) -> dict[str, Any]:
        """Return the fields of a node's result about the code of its leaves.

        Args:
            codes: Number of leaves by the fingerprint of their code; None stands for unknown code.
        """
        known = {code: count for code, count in codes.items() if code is not None}
        seen = self.payload.run_code
        if seen is None or not seen.fingerprint or code_mismatch(seen.on_mismatch) == "ignore":
            return {"codes": known}
        others = sum(known.values()) - known.get(seen.fingerprint, 0)
        return {"codes": known, "code_mismatches": others}


@dataclass(frozen=True, slots=True)
class NodeFailure:
    """A child node without a result.

    Attributes:
        payload: Its input.
        reason: Hatchet's error text.
    """

    payload: ScatterGatherInput
    reason: str


@dataclass(frozen=True, slots=True)
class LostBatch:
    """A batch without a result: all its leaves have failed.

    Attributes:
        rows: Its rows in the specs.
        record: The failure of each leaf.
        queued: When it was handed to Hatchet, in seconds since 1970.
    """

    rows: Rows
    record: LeafRecord
    queued: float

    @property
    def n_leaves(self) -> int:
        """The number of its leaves."""
        return len(self.rows)

    @property
    def n_failed(self) -> int:
        """The number of failed leaves, which is all of them."""
        return len(self.rows)

    @property
    def seconds(self) -> float:
        """The known run time of its leaves."""
        return 0.0


def write_base_node(output: NodeOutput, leaves: LeafSlice) -> ScatterGatherResult:
    """Write the tables of a node that ran leaves."""
    tables = own_tables(leaves, output.store)
    uris: dict[str, S3Url] = {}
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="scythe-node-") as folder:
        users = user_tables(leaves, output.store, tables, Path(folder))
        sources = {name: [table] for name, table in tables.items()} | users
        for name, source in sources.items():
            file = Path(folder) / "table.pq"
            write_merged(source, file, final=output.is_final, name=name, warn=warnings.append)
            uris[name] = output.upload(name, file)
    codes = Counter(tables[LEAVES].column(CODE).to_pylist())
    return ScatterGatherResult(
        uris=uris,
        n_leaves=len(leaves.records),
        n_failed=tables[ERRORS].num_rows,
        seconds=sum(record.outcome.stats.seconds for record in leaves.records),
        warnings=warnings,
        **output.counted(codes),
    )


def write_batch_node(
    output: NodeOutput, batches: Sequence[BatchResult | LostBatch]
) -> ScatterGatherResult:
    """Write the tables of a node that ran batches, by concatenating theirs."""
    with tempfile.TemporaryDirectory(prefix="scythe-node-") as name:
        folder = Path(name)
        packs = _fetch_packs(output, batches, folder)
        warnings = list[str]()
        tables = join_packs(packs, folder, final=output.is_final, warn=warnings.append)
        uris = {table: output.upload(table, file) for table, file in tables.items()}
        codes = count_codes(tables[LEAVES])
    return ScatterGatherResult(
        uris=uris,
        n_leaves=sum(batch.n_leaves for batch in batches),
        n_failed=sum(batch.n_failed for batch in batches),
        seconds=sum(batch.seconds for batch in batches),
        warnings=warnings,
        **output.counted(codes),
    )


def _fetch_packs(
    output: NodeOutput, batches: Sequence[BatchResult | LostBatch], folder: Path
) -> list[Path]:
    """Download the packs of the batches into a folder, in order."""
    files: list[Path] = []
    wanted: list[tuple[str, Path]] = []
    for batch in batches:
        lost = isinstance(batch, LostBatch)
        for pack in (_lost_pack(output, batch),) if lost else batch.packs:
            files.append(folder / f"{len(files)}.arrow")
            if isinstance(pack, bytes):
                files[-1].write_bytes(pack)
            else:
                wanted.append((pack, files[-1]))
    with ThreadPoolExecutor(_DOWNLOADS, "scythe-packs") as threads:
        list(threads.map(lambda item: output.store.download_small(*item), wanted))
    return files


def _lost_pack(output: NodeOutput, batch: LostBatch) -> bytes:
    rows = range(batch.rows.start, batch.rows.stop)
    return write_pack(failed_tables(output, rows, batch.record, batch.queued))


def write_inner_node(
    output: NodeOutput, children: Sequence[ScatterGatherResult | NodeFailure]
) -> ScatterGatherResult:
    """Merge the tables of the child nodes into those of this node.

    The leaves of a child without a result count as failed, each with a row in `errors`.
    """
    with tempfile.TemporaryDirectory(prefix="scythe-node-") as name:
        folder = Path(name)
        sources, n_lost = _collect(output, children, folder)
        results = [one for one in children if isinstance(one, ScatterGatherResult)]
        warnings = [warning for one in results for warning in one.warnings]
        codes = Counter[str | None]()
        for one in results:
            codes.update(one.codes)
        uris: dict[str, S3Url] = {}
        for table, files in sources.items():
            merged = folder / "merged.pq"
            merge_files(files, merged, final=output.is_final, name=table, warn=warnings.append)
            uris[table] = output.upload(table, merged)
    return ScatterGatherResult(
        uris=uris,
        n_leaves=n_lost + sum(one.n_leaves for one in results),
        n_failed=n_lost + sum(one.n_failed for one in results),
        n_lost=n_lost + sum(one.n_lost for one in results),
        seconds=sum(one.seconds for one in results),
        warnings=list(dict.fromkeys(warnings)),
        **output.counted(codes),
    )


def _collect(
    output: NodeOutput, children: Sequence[ScatterGatherResult | NodeFailure], folder: Path
) -> tuple[dict[str, list[Path]], int]:
    """Return the tables of the child nodes, and the number of leaves of those without a result."""
    sources: dict[str, list[Path]] = {}
    n_lost = 0
    for number, child in enumerate(children):
        if isinstance(child, NodeFailure):
            for part, tables in enumerate(_lost_tables(output, child)):
                n_lost += tables[ERRORS].num_rows
                for name, table in tables.items():
                    file = folder / f"{number}-{part}-{name}.pq"
                    write_merged([table], file, final=False)
                    sources.setdefault(name, []).append(file)
            continue
        for name, uri in child.uris.items():
            file = folder / f"{number}-{name}.pq"
            output.store.download(split_s3_uri(str(uri))[1], file)
            sources.setdefault(name, []).append(file)
    return sources, n_lost


def _lost_tables(output: NodeOutput, child: NodeFailure) -> Iterator[dict[str, pa.Table]]:
    """Make the tables of a node without a result: all its leaves have failed."""
    payload = child.payload
    tasks = payload.tasks(payload.n_specs or count_specs(output.config, payload.specs_key))
    failure = LeafFailure(
        kind=FailureKind.RESULT_LOST,
        type="NodeFailed",
        message=f"the scatter node {payload.recursion_map.node} of this leaf failed, so the leaf's "
        f"result is unknown: {child.reason}"[:2000],
    )
    record = LeafRecord(failure, 0, None)
    if tasks.cut.size == 1:
        yield failed_tables(output, tasks.single_rows(), record, 0.0)
        return
    for rows in tasks.parts:
        yield failed_tables(output, range(rows.start, rows.stop), record, 0.0)


def failed_tables(
    output: NodeOutput, rows: Sequence[int], record: LeafRecord, queued: float
) -> dict[str, pa.Table]:
    """Make the tables of leaves that all have the same failure."""
    index = index_of(read_rows(output.config, output.payload.specs_key, rows))
    records = [record] * len(rows)
    leaves = LeafSlice(rows, index, records, queued, output.root_workflow_run_id)
    return node_tables(leaves, output.store)
