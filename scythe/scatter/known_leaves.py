"""Gathers the known outcomes of a run's leaves, whether or not its root is alive.

The bucket has the tables of nodes and batches that have ended; the engine has the outputs of all
other leaf tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scythe.engine.run_tasks import TaskEnd
from scythe.errors import StorageError
from scythe.messages import LeafRecord, decode_cut_batch, is_handed_back
from scythe.outcomes import BatchResult, LeafFailure, StoreConfig
from scythe.scatter.leaf_outcomes import batch_of, decode_ends, record_of
from scythe.scatter.models import NodeEnd, ScatterGatherResult
from scythe.scatter.reused import ReusedLeaves
from scythe.scatter.tree import Rows
from scythe.settings import code_mismatch
from scythe.specs.file import count_specs, index_of, read_rows
from scythe.status import RunStatus
from scythe.storage.files import split_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.manifest import from_yaml, to_yaml
from scythe.storage.store import Store
from scythe.tables.gather import LeafSlice, node_tables
from scythe.tables.merge import join_packs, write_merged

logger = logging.getLogger(__name__)
_ROWS = 10_000  # most leaves whose records are in memory at one time


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
        """Return the status of the run as the bucket has it, or None."""
        data = self.store.find_bytes(self.layout.status)
        return RunStatus.model_validate_json(data) if data else None

    def is_over(self) -> bool:
        """Return whether the final tables of the run exist."""
        status = self.status()
        if status is None or not status.is_over:
            return False
        # The id of a run is unknown while it starts, and if allocate was killed meanwhile.
        return self.root_id is None or status.workflow_run_id in (None, self.root_id)

    def write_codes(self, codes: Mapping[str, int], mismatches: int | None = None) -> int:
        """Add the code that the leaves ran to the manifest of a run that has ended.

        Args:
            codes: Number of leaves by the fingerprint of their code.
            mismatches: Number of leaves that ran other code than `allocate` saw; None to count.

        Returns:
            The number of mismatches.
        """
        try:
            document = self.store.find_bytes(self.layout.manifest)
            manifest = dict(from_yaml(document)) if document else {}
        except Exception as error:  # noqa: BLE001 - a run does not fail because of its manifest
            logger.warning(
                "Cannot read the manifest %s, writing the codes without it: %s",
                self.layout.manifest,
                error,
            )
            manifest = {}
        if mismatches is None:
            seen = (manifest.get("code") or {}).get("fingerprint")
            counts = seen and code_mismatch() != "ignore"
            mismatches = sum(codes.values()) - codes.get(seen, 0) if seen and counts else 0
        if manifest:  # a tree that was started without `allocate` has none
            root_id = self.root_id or manifest.get("workflow_run_id")
            known = {"workflow_run_id": root_id, "codes": dict(codes)}
            over = {**manifest, **known, "code_mismatches": mismatches}
            self.store.put_bytes(self.layout.manifest, to_yaml(over))
        return mismatches

    def count(self) -> int:
        """Return the number of leaves of the run."""
        return count_specs(self.config, self.specs_key)


class KnownLeaves:
    """The tables of the leaves whose outcomes are known.

    Args:
        run: The run.
        folder: Folder for temporary files.

    Attributes:
        warnings: A sentence for each column of the tables that became text.
    """

    def __init__(self, run: RunPlace, folder: Path) -> None:
        self._run = run
        self._folder = folder
        self._known = bytearray(run.count())
        self._reused = ReusedLeaves(run.store, run.layout, folder, len(self._known))
        self._files: dict[str, list[Path]] = {}
        self._packs: list[tuple[int, int, Path]] = []
        self._n_files = 0
        self._given_back: dict[int, LeafRecord] = {}
        self.warnings: list[str] = []

    @property
    def n_leaves(self) -> int:
        """The number of the leaves that the run does not take from another."""
        return len(self._known)

    @property
    def n_known(self) -> int:
        """The number of those whose outcomes are known."""
        return self._known.count(1)

    @property
    def names(self) -> list[str]:
        """The names of the tables."""
        self._join_packs()
        return list(dict.fromkeys([*self._files, *self._reused.names]))

    def knows(self, row: int) -> bool:
        """Return whether the outcome of the leaf with this spec row is known."""
        return bool(self._known[row])

    def add_nodes(self) -> None:
        """Add the tables of the scatter nodes that have ended."""
        store = self._run.store
        found = [
            NodeEnd.model_validate_json(data)
            for key in list(store.list_keys(self._run.layout.node_results))
            if (data := store.find_bytes(key))
        ]
        for end in sorted(found, key=lambda one: one.payload.recursion_map.depth):
            rows = end.payload.rows(self.n_leaves)
            if not rows or self._known[rows[0]]:
                continue  # the tables of a node above include it
            try:
                files = self._fetch_tables(end.result)
            except (StorageError, OSError, ValueError) as error:
                node = end.payload.recursion_map.node
                logger.warning(
                    "Cannot read the tables of scatter node %s, using its leaf tasks instead: %s",
                    node,
                    error,
                )
                continue  # the engine has the outcomes of its leaves
            for name, file in files.items():
                self._files.setdefault(name, []).append(file)
            self._note(rows)

    def add_node_ends(self) -> None:
        """Add the ended tasks that scatter nodes knew when they were cut."""
        store = self._run.store
        for key in list(store.list_keys(self._run.layout.node_ends)):
            if data := store.find_bytes(key):
                self.add_ends(decode_ends(data))

    def add_ends(self, ends: Sequence[TaskEnd]) -> None:
        """Add leaf tasks that have completed or failed."""
        singles: dict[int, LeafRecord] = {}
        for end in ends:
            start, stop = end.rows
            if self._known[start]:
                continue
            output = end.output if isinstance(end.output, dict) else RuntimeError(end.output)
            if is_handed_back(output):
                continue  # its node has started it again, or was about to
            batch = batch_of(output)
            if batch is not None:
                self._add_batch(Rows(start, stop), batch)
                continue
            record = record_of(output)
            if isinstance(record.outcome, LeafFailure) and record.outcome.kind.is_mismatch:
                # Its node has started it again, or was about to.
                self._given_back |= dict.fromkeys(range(start, stop), record)
            else:
                singles |= dict.fromkeys(range(start, stop), record)
        if singles:
            rows = sorted(singles)
            queued = min(end.created for end in ends)
            self._add_records(rows, [singles[row] for row in rows], queued)

    def add_cut_batch(self, end: TaskEnd, data: bytes) -> None:
        """Add the leaves that had ended in a batch when it was cancelled."""
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
        """Add every other leaf with this outcome.

        A leaf that a worker with other code has given back fails with that mismatch instead.
        """
        rest = [row for row, known in enumerate(self._known) if not known]
        for first in range(0, len(rest), _ROWS):
            rows = rest[first : first + _ROWS]
            self._add_records(rows, [self._given_back.get(row, record) for row in rows], 0.0)

    def add_none(self) -> None:
        """Add the tables that every run has, empty."""
        self._add_records([], [], 0.0)

    def write(self, name: str, target: Path) -> int:
        """Write a final table, and return the number of its rows."""
        self._join_packs()
        files = self._files.get(name, [])
        return self._reused.merge(name, files, target, self.warnings.append)

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
        self._note(range(rows.start, rows.start + batch.n_leaves))

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
        """Record that the outcomes of these leaves are known."""
        for row in rows:
            self._known[row] = 1

    def _join_packs(self) -> None:
        """Join the tables in all packs to one file per table."""
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
