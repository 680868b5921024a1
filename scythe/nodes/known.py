"""Gather what is known of the leaves of a run, whether or not its root still lives.

What nodes and batches have stored is in the bucket; the outputs of the other leaf tasks are in the
engine.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scythe.engine.run_tasks import TaskEnd
from scythe.errors import StorageError
from scythe.messages import LeafRecord, decode_cut_batch
from scythe.nodes.leaf_outcomes import batch_of, record_of
from scythe.nodes.models import NodeEnd, ScatterGatherResult
from scythe.nodes.tree import Rows
from scythe.outcomes import BatchResult, LeafFailure, StoreConfig
from scythe.settings import code_mismatch
from scythe.specs.file import count_specs, index_of, read_rows
from scythe.status import RunStatus
from scythe.storage.files import split_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.manifest import from_yaml, to_yaml
from scythe.storage.store import Store
from scythe.tables.gather import LeafSlice, node_tables
from scythe.tables.merge import join_packs, merge_files, write_merged

logger = logging.getLogger(__name__)
_ROWS = 10_000  # whose records are in memory at one time


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A run in the bucket, and its root in the engine.

    Attributes:
        store: The bucket.
        config: The bucket, as other processes open it.
        layout: The keys of the run.
        specs_key: The key of its specs.
        root_id: Hatchet's id of the root.
    """

    store: Store
    config: StoreConfig
    layout: RunLayout
    specs_key: str
    root_id: str | None

    def status(self) -> RunStatus | None:
        """Return the status of the run that is in the bucket, or None."""
        data = self.store.find_bytes(self.layout.status)
        return RunStatus.model_validate_json(data) if data else None

    def is_over(self) -> bool:
        """Return whether the final tables of the run are there."""
        status = self.status()
        return status is not None and status.is_over and status.workflow_run_id == self.root_id

    def write_codes(self, codes: Mapping[str, int], mismatches: int | None = None) -> int:
        """Write into the manifest of a run that is over which code its leaves ran.

        Args:
            codes: How many leaves ran with which fingerprint.
            mismatches: How many of them ran with other code than `allocate` saw; None to count.

        Returns:
            That number.
        """
        try:
            document = self.store.find_bytes(self.layout.manifest)
            manifest = dict(from_yaml(document)) if document else {}
        except Exception as error:  # noqa: BLE001 - a run does not fail for want of its manifest
            logger.warning("The manifest %s cannot be read: %s", self.layout.manifest, error)
            manifest = {}
        if mismatches is None:
            seen = (manifest.get("code") or {}).get("fingerprint")
            counts = seen and code_mismatch() != "ignore"
            mismatches = sum(codes.values()) - codes.get(seen, 0) if seen and counts else 0
        if manifest:  # a tree may be started without a run
            known = {"workflow_run_id": self.root_id, "codes": dict(codes)}
            over = {**manifest, **known, "code_mismatches": mismatches}
            self.store.put_bytes(self.layout.manifest, to_yaml(over))
        return mismatches

    def count(self) -> int:
        """Return the number of its leaves."""
        return count_specs(self.config, self.specs_key)


class KnownLeaves:
    """The tables of those leaves of a run of which the outcome is known.

    Args:
        run: The run.
        folder: Where files are kept meanwhile.

    Attributes:
        warnings: A sentence for each column of the tables that became text.
    """

    def __init__(self, run: RunPlace, folder: Path) -> None:
        self._run = run
        self._folder = folder
        self._known = bytearray(run.count())
        self._files: dict[str, list[Path]] = {}
        self._packs: list[tuple[int, int, Path]] = []
        self._n_files = 0
        self._given_back: dict[int, LeafRecord] = {}
        self.warnings: list[str] = []

    @property
    def n_leaves(self) -> int:
        """The number of all leaves of the run."""
        return len(self._known)

    @property
    def names(self) -> list[str]:
        """The names of the tables."""
        self._join_packs()
        return list(self._files)

    def add_nodes(self) -> None:
        """Add the tables of the nodes that are over."""
        store = self._run.store
        found = [
            NodeEnd.model_validate_json(data)
            for key in list(store.list_keys(self._run.layout.node_results))
            if (data := store.find_bytes(key))
        ]
        for end in sorted(found, key=lambda one: one.payload.recursion_map.depth):
            rows = end.payload.rows(self.n_leaves)
            if not rows or self._known[rows[0]]:
                continue  # a node above it is over
            try:
                files = self._fetch_tables(end.result)
            except (StorageError, OSError, ValueError) as error:
                node = end.payload.recursion_map.node
                logger.warning("The tables of the node %s cannot be read: %s", node, error)
                continue  # its leaves are known from elsewhere
            for name, file in files.items():
                self._files.setdefault(name, []).append(file)
            self._note(rows)

    def add_ends(self, ends: Sequence[TaskEnd]) -> None:
        """Add leaf tasks that are completed or failed."""
        singles: dict[int, LeafRecord] = {}
        for end in ends:
            start, stop = end.rows
            if self._known[start]:
                continue
            output = end.output if isinstance(end.output, dict) else RuntimeError(end.output)
            batch = batch_of(output)
            if batch is not None:
                self._add_batch(Rows(start, stop), batch)
                continue
            record = record_of(output)
            if isinstance(record.outcome, LeafFailure) and record.outcome.kind.is_mismatch:
                # Its node has started it again, or had no time to.
                self._given_back |= dict.fromkeys(range(start, stop), record)
            else:
                singles |= dict.fromkeys(range(start, stop), record)
        if singles:
            rows = sorted(singles)
            queued = min(end.created for end in ends)
            self._add_records(rows, [singles[row] for row in rows], queued)

    def add_cut_batch(self, end: TaskEnd, data: bytes) -> None:
        """Add the leaves of a batch that were over when it was cancelled."""
        start = end.rows[0]
        if self._known[start]:
            return
        packs, records = decode_cut_batch(data)
        stored = sum(count for _, count in packs)
        if packs:
            keys = tuple(key for key, _ in packs)
            self._add_batch(Rows(start, start + stored), BatchResult(keys, stored, 0, 0.0))
        if records:
            rows = range(start + stored, start + stored + len(records))
            self._add_records(rows, records, end.created)

    def add_rest(self, record: LeafRecord) -> None:
        """Add all leaves of which nothing is known, with this outcome.

        Those that a worker with other code has given back have that one.
        """
        rest = [row for row, known in enumerate(self._known) if not known]
        for first in range(0, len(rest), _ROWS):
            rows = rest[first : first + _ROWS]
            self._add_records(rows, [self._given_back.get(row, record) for row in rows], 0.0)

    def add_none(self) -> None:
        """Add the tables that every run has, without rows."""
        self._add_records([], [], 0.0)

    def write(self, name: str, target: Path) -> int:
        """Write one of the tables as a final one; return the number of its rows."""
        self._join_packs()
        warn = self.warnings.append
        return merge_files(self._files[name], target, final=True, name=name, warn=warn)

    def _fetch_tables(self, result: ScatterGatherResult) -> dict[str, Path]:
        import pyarrow.parquet as pq

        files: dict[str, Path] = {}
        for name, uri in result.uris.items():
            files[name] = self._new_file()
            self._run.store.download(split_s3_uri(str(uri))[1], files[name])
            pq.read_schema(files[name])
        return files

    def _add_batch(self, rows: Rows, batch: BatchResult) -> None:
        for number, pack in enumerate(batch.packs):
            file = self._new_file()
            if isinstance(pack, bytes):
                file.write_bytes(pack)
            else:
                self._run.store.download_small(pack, file)
            self._packs.append((rows.start, number, file))
        self._note(range(rows.start, rows.stop))

    def _add_records(
        self, rows: Sequence[int], records: Sequence[LeafRecord], queued: float
    ) -> None:
        index = index_of(read_rows(self._run.config, self._run.specs_key, rows))
        leaves = LeafSlice(rows, index, records, queued, self._run.root_id)
        for name, table in node_tables(leaves, self._run.store).items():
            file = self._new_file()
            write_merged([table], file, final=False)
            self._files.setdefault(name, []).append(file)
        self._note(rows)

    def _note(self, rows: Sequence[int]) -> None:
        """Keep in mind that the outcome of these leaves is known."""
        for row in rows:
            self._known[row] = 1

    def _join_packs(self) -> None:
        """Make one file for each table of all packs."""
        packs = [file for _, _, file in sorted(self._packs)]
        self._packs.clear()
        if packs:
            self._n_files += 1
            folder = self._folder / f"joined-{self._n_files}"
            folder.mkdir()
            for name, file in join_packs(packs, folder, final=False).items():
                self._files.setdefault(name, []).append(file)

    def _new_file(self) -> Path:
        self._n_files += 1
        return self._folder / f"{self._n_files}"
