"""Run a batch of leaves in this process, one after another, and keep a journal of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from scythe.errors import ScytheError
from scythe.leaf.failure import failure_of
from scythe.leaf.journal import Journal, Part, read_lines
from scythe.leaf.log import LeafLog, shortened
from scythe.leaf.meter import LeafMeter
from scythe.leaf.run import LeafRunner, forget_begun
from scythe.leaf.state import ProcessState
from scythe.locate import find_experiment
from scythe.messages import LeafRecord
from scythe.outcomes import Batch, BatchResult, LeafCall, LeafFailure, LeafOutcome, LeafResult
from scythe.specs.file import index_of, read_rows, sort_indices, spec_texts
from scythe.storage.layout import RunLayout
from scythe.storage.store import open_store
from scythe.tables.gather import ERRORS, LeafSlice, node_tables
from scythe.tables.packs import write_pack

if TYPE_CHECKING:
    import pyarrow as pa

_INLINE_BYTES = 32 * 1024  # of a whole batch; what is larger goes to the bucket
_LEAF_BYTES = 1 << 20  # of the tables of one leaf that are kept in memory
_PART_BYTES = 16 << 20  # of tables in memory until they are stored
_PART_LEAVES = 20_000
_LONG = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """The means of a process to run a batch.

    Attributes:
        journal: Where the journal is written; it is removed at the end.
        folder: Where the leaves' `tempdir`s are made.
        log: What takes what they print; it is open.
        between: Called after each try of a leaf with its seconds (infinite to look at the process
            in any case), to make the process as it was; returns whether it can run a further leaf.
        state: What it was made as; None where user code cannot harm the next leaf.
    """

    journal: Path
    folder: str
    log: LeafLog
    between: Callable[[float], bool]
    state: ProcessState | None = None


def run_batch(call: LeafCall, batch: Batch, place: BatchPlace) -> BatchResult | LeafFailure:
    """Run the leaves of a batch that are not over, or some of them.

    Args:
        call: What the leaves have in common.
        batch: The leaves.
        place: What the process has for them.

    Raises:
        BaseException: Something failed outside of the user's function: the process is not as it
            should be. The journal tells which leaves are over.
    """
    forget_begun()
    meter = LeafMeter()
    try:
        runner = LeafRunner(call, find_experiment(call.code), meter, place.folder, _LEAF_BYTES)
        with Journal(place.journal, batch.journal) as writer:
            run = _BatchRun(call, batch, writer, place)
            _spare_the_collector()
            return run.run(runner)
    except ScytheError as error:
        return failure_of(error, meter)
    finally:
        meter.close()


@cache
def _spare_the_collector() -> None:
    """Let Python's garbage collector pass over what is imported by now, once in a process.

    It would look through all of it every few thousand leaves, and find nothing.
    """
    gc.collect()
    gc.freeze()


class _BatchRun:
    """A batch and what came of its leaves so far."""

    def __init__(self, call: LeafCall, batch: Batch, journal: Journal, place: BatchPlace) -> None:
        self._call = call
        self._batch = batch
        self._journal = journal
        self._place = place
        self._specs = read_rows(call.store, batch.specs, range(*batch.rows))
        self._parts, self._records = read_lines(batch.journal)
        self._bytes = 0
        self._log = ""
        self._is_used_up = False
        self._is_sound = False
        # The leaves before this one, in the journal until there, ran in a process that was sound.
        self._sound = (self._stored + len(self._records), journal.end)

    def run(self, runner: LeafRunner) -> BatchResult:
        first = self._stored + len(self._records)
        for number, (text, sort_index) in enumerate(self._leaves(first), first):
            attempt = self._batch.attempt if number == first else 1
            record = self._run_tries(runner, text, (number, sort_index, attempt))
            if record is None:
                return self._result_of(*self._sound, closely=number + 1)
            self._journal.add(record)
            self._records.append(record)
            self._bytes += _size(record.outcome)
            if self._bytes > _PART_BYTES or len(self._records) >= _PART_LEAVES:
                self._store_part()
            is_enough = self._is_used_up or number + 1 == self._batch.until
            if is_enough and number + 1 < self._batch.n_leaves:
                return self._result_of(number + 1, self._journal.end, self._batch.closely)
            if self._is_sound:
                self._sound = (number + 1, self._journal.end)
        return self._result()

    def _result_of(self, over: int, end: int, closely: int) -> BatchResult:
        """Return what is known of the leaves that are over; the rest needs another process.

        Args:
            over: How many there are.
            end: Where they end in the journal.
            closely: Which leaves that process is to look at one by one, see `Batch.closely`.
        """
        journal = self._journal.text(end)
        state = self._place.state
        left = ", ".join(state.left if state is not None else ()) or "other settings"
        left = left if self._is_used_up else ""
        return BatchResult((), over, 0, 0.0, journal=journal, closely=closely, left=left)

    @property
    def _stored(self) -> int:
        return sum(part.n_leaves for part in self._parts)

    def _leaves(self, first: int) -> Iterator[tuple[str, int]]:
        rest = self._specs.slice(first)
        return zip(spec_texts(rest), sort_indices(rest), strict=True)

    def _run_tries(
        self, runner: LeafRunner, text: str, which: tuple[int, int, int]
    ) -> LeafRecord | None:
        """Run a leaf until a try ends well, or none can help any more.

        Returns:
            What came of it; None if one of the leaves since the process was last seen sound has
            damaged it, so that nobody knows what came of the others.
        """
        number, sort_index, attempt = which
        # Files of leaves are named after this id, so each leaf of a batch has its own.
        run_id = leaf_run_id(self._call, self._batch.rows[0] + number)
        leaf_id = f"{sort_index:08d}-{run_id}"
        journal = self._journal
        timeout = self._call.timeout
        log = self._place.log
        while True:
            journal.begin(timeout)
            outcome = runner.run(text, leaf_id, run_id)
            seconds = outcome.stats.finished - outcome.stats.started
            if seconds > _LONG:
                journal.begin()  # what follows is not the leaf's time
            if not self._look(number, outcome, seconds):
                return None
            log.renew()
            outcome = log.added_to(outcome)
            if isinstance(outcome, LeafResult):
                return LeafRecord(outcome, attempt, run_id)
            if outcome.kind.is_final or attempt >= self._batch.tries:
                return LeafRecord(outcome, attempt, run_id)
            attempt += 1

    def _look(self, number: int, outcome: LeafOutcome, seconds: float) -> bool:
        """Make the process ready for the next try; return whether the outcome is the leaf's own.

        What very short leaves do to the process is seen some leaves later, unless one fails.
        """
        place = self._place
        state = self._place.state
        if state is None:
            self._is_used_up = not place.between(seconds)
            self._is_sound = True
            return True
        if isinstance(outcome, LeafFailure):
            state.note(outcome)
            seconds = inf
        elif number < self._batch.closely:
            seconds = inf
        looks = state.looks
        self._is_used_up = not place.between(seconds)
        if state.looks == looks:
            self._is_sound = False
            return True
        # A leaf that failed may have met what another one left, put back by now.
        harmed = state.has_changed if isinstance(outcome, LeafFailure) else bool(state.damage)
        self._is_sound = not state.damage
        if self._is_sound:
            self._journal.keep()
        return not harmed or number == self._sound[0]

    def _store_part(self) -> None:
        """Store the results that are in memory."""
        pack, part = self._pack()
        self._put(pack, part)
        self._journal.add_part(part)
        self._parts.append(part)
        self._records = []
        self._bytes = 0

    def _put(self, pack: bytes, part: Part) -> str:
        open_store(self._call.store).put_bytes(part.key, pack)
        return part.key

    def _pack(self) -> tuple[bytes, Part]:
        """Return the results that are in memory as a pack, and what it holds."""
        self._journal.begin()  # it is not the time of the leaf that was last
        first = self._stored
        specs: pa.Table = self._specs.slice(first, len(self._records))
        start = self._batch.rows[0] + first
        rows = range(start, start + len(self._records))
        leaves = LeafSlice(
            rows=rows,
            index=index_of(specs),
            records=self._records,
            queued=self._batch.queued,
            root_workflow_run_id=self._call.root_workflow_run_id,
        )
        self._collect_logs(specs)
        tables = node_tables(leaves, open_store(self._call.store))
        failed = tables[ERRORS].num_rows
        seconds = sum(record.outcome.stats.seconds for record in self._records)
        return write_pack(tables), Part(self._key(start), len(rows), failed, seconds)

    def _collect_logs(self, specs: pa.Table) -> None:
        printed = [i for i, record in enumerate(self._records) if record.outcome.log]
        numbers = sort_indices(specs) if printed else []
        logs = [f"Leaf {numbers[i]}:\n{self._records[i].outcome.log}" for i in printed]
        self._log = shortened("\n".join([self._log, *logs] if self._log else logs))

    def _result(self) -> BatchResult:
        packs: list[bytes | str] = [part.key for part in self._parts]
        parts = list(self._parts)
        if self._records or not parts:
            pack, part = self._pack()
            parts.append(part)
            packs.append(self._put(pack, part) if len(pack) > _INLINE_BYTES else pack)
        return BatchResult(
            packs=tuple(packs),
            n_leaves=sum(part.n_leaves for part in parts),
            n_failed=sum(part.n_failed for part in parts),
            seconds=sum(part.seconds for part in parts),
            log=self._log,
        )

    def _key(self, first_row: int) -> str:
        layout = RunLayout(self._call.store.prefix, self._call.experiment_id)
        return layout.batch_pack(first_row, self._call.workflow_run_id or self._call.leaf_id)


def leaf_run_id(call: LeafCall, row: int) -> str:
    """Return the id of a leaf of a batch, in place of Hatchet's."""
    return f"{call.workflow_run_id}-{row}"


def _size(outcome: LeafResult | LeafFailure) -> int:
    """Return how much memory the tables of a leaf take; one in the bucket is a large one."""
    if not isinstance(outcome, LeafResult) or not outcome.tables:
        return 0
    tables = outcome.tables.values()
    return sum(_PART_BYTES + 1 if isinstance(data, str) else len(data) for data in tables)
