"""Runs a batch of leaves in this process, one after another, with a journal."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from scythe.errors import ScytheError, StorageError
from scythe.leaf.failure import failure_of
from scythe.leaf.journal import Journal, Part, read_lines
from scythe.leaf.log import LeafLog, shortened
from scythe.leaf.meter import LeafMeter
from scythe.leaf.run import LeafRunner, forget_begun
from scythe.leaf.state import ProcessState
from scythe.locate import find_experiment
from scythe.messages import LeafRecord
from scythe.outcomes import Batch, BatchResult, LeafCall, LeafFailure, LeafOutcome, LeafResult
from scythe.scatter.pause import is_paused
from scythe.specs.file import index_of, read_rows, sort_indices, spec_texts
from scythe.storage.fetch import end_leaf
from scythe.storage.layout import RunLayout
from scythe.storage.store import open_store
from scythe.tables.gather import ERRORS, LeafSlice, node_tables
from scythe.tables.packs import write_pack

if TYPE_CHECKING:
    import pyarrow as pa

_INLINE_BYTES = 32 * 1024  # of all tables of a batch; larger ones go to the bucket
_LEAF_BYTES = 1 << 20  # of a leaf's tables; larger ones go to the bucket at once
_PART_BYTES = 16 << 20  # of tables in memory, after which they are stored
_PART_LEAVES = 20_000
_LOOK_SECONDS = 1.0  # between two checks whether the run is paused
_LONGEST_LOOK_SECONDS = 30.0  # where the bucket does not answer
_LONG = 0.1  # seconds; a longer leaf gets a new deadline for the steps after it
_now = time.time  # a reference from before user code runs


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """The means of a process to run a batch.

    Attributes:
        journal: The file of the journal; it is removed at the end.
        folder: Parent of the leaves' `tempdir`s.
        log: Captures the output of the leaves; it is open.
        between: Restores the process after each attempt of a leaf; returns whether it can run a
            further leaf. Its argument is the seconds of the attempt; infinite forces a full check.
        state: The process state to compare with; None if user code cannot harm the next leaf.
    """

    journal: Path
    folder: str
    log: LeafLog
    between: Callable[[float], bool]
    state: ProcessState | None = None


def run_batch(call: LeafCall, batch: Batch, place: BatchPlace) -> BatchResult | LeafFailure:
    """Run the leaves of a batch that have not ended, or some of them if the process is damaged.

    Args:
        call: The settings of all leaves.
        batch: The leaves.
        place: The means of this process.

    Raises:
        BaseException: Something failed outside of the user's function, so the process is damaged.
            The journal has the leaves that ended before.
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
        end_leaf()
        meter.close()


@cache
def _spare_the_collector() -> None:
    """Exclude all present objects from garbage collection, once in a process.

    The collector would scan them every few thousand leaves and find nothing.
    """
    gc.collect()
    gc.freeze()


class _BatchRun:
    """A running batch, with the outcomes so far."""

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
        self._look_at = _now() + _LOOK_SECONDS  # whether the run is paused
        self._is_sound = False
        # The last leaf and journal position at which the process was seen to be undamaged.
        self._sound = (self._stored + len(self._records), journal.end)

    def run(self, runner: LeafRunner) -> BatchResult:
        first = self._stored + len(self._records)
        n_leaves = self._batch.n_leaves
        last = (self._batch.until or n_leaves) - 1
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
            finished = record.outcome.stats.finished
            if finished >= self._look_at and number + 1 < n_leaves and self._is_paused(finished):
                return self._result()  # of the leaves so far: the scatter node starts the others
            if (self._is_used_up or number == last) and number + 1 < n_leaves:
                return self._result_of(number + 1, self._journal.end, self._batch.closely)
            if self._is_sound:
                self._sound = (number + 1, self._journal.end)
        return self._result()

    def _result_of(self, over: int, end: int, closely: int) -> BatchResult:
        """Return the outcomes so far; another process must run the rest.

        Args:
            over: Number of leaves that have ended.
            end: End of their lines in the journal.
            closely: Leaves after which that process checks itself, see `Batch.closely`.
        """
        journal = self._journal.text(end)
        state = self._place.state
        left = ", ".join(state.left if state is not None else ()) or "other settings"
        left = left if self._is_used_up else ""
        return BatchResult((), over, 0, 0.0, journal=journal, closely=closely, left=left)

    def _is_paused(self, now: float) -> bool:
        """Ask the bucket whether the run is paused.

        Args:
            now: The time, in seconds since 1970.
        """
        self._look_at = now + _LOOK_SECONDS
        if self._call.root_workflow_run_id is None:
            return False
        self._journal.begin()  # the last leaf's time limit does not cover this step
        store = open_store(self._call.store).with_patience(0)
        try:
            return is_paused(store, RunLayout(store.config.prefix, self._call.experiment_id))
        except StorageError:  # then the batch goes on
            self._look_at = now + _LONGEST_LOOK_SECONDS
            return False

    @property
    def _stored(self) -> int:
        return sum(part.n_leaves for part in self._parts)

    def _leaves(self, first: int) -> Iterator[tuple[str, int]]:
        rest = self._specs.slice(first)
        return zip(spec_texts(rest), sort_indices(rest), strict=True)

    def _run_tries(
        self, runner: LeafRunner, text: str, which: tuple[int, int, int]
    ) -> LeafRecord | None:
        """Run a leaf until an attempt succeeds or no further one is allowed.

        Returns:
            Its outcome; None if a leaf since the last check has damaged the process, so that the
            outcomes since then cannot be trusted.
        """
        number, sort_index, attempt = which
        batch = self._batch
        # Names of files contain this id, so each leaf of a batch needs its own.
        run_id = leaf_run_id(self._call, batch.rows[0] + number)
        leaf_id = f"{sort_index:08d}-{run_id}"
        journal = self._journal
        timeout = self._call.timeout
        log = self._place.log
        state = self._place.state
        while True:
            journal.begin(timeout)
            outcome = runner.run(text, leaf_id, run_id)
            seconds = outcome.stats.finished - outcome.stats.started
            if seconds > _LONG:
                journal.begin()  # the leaf's time limit does not cover the next steps
            # After very short leaves, the process is not checked each time.
            closely = number < batch.closely or isinstance(outcome, LeafFailure)
            if state and not closely and not state.is_due(seconds):
                self._is_sound = False
            elif not self._look(number, outcome, seconds):
                return None
            log.renew()
            outcome = log.added_to(outcome)
            if isinstance(outcome, LeafResult):
                return LeafRecord(outcome, attempt, run_id)
            if outcome.kind.is_final or attempt >= batch.tries:
                return LeafRecord(outcome, attempt, run_id)
            attempt += 1

    def _look(self, number: int, outcome: LeafOutcome, seconds: float) -> bool:
        """Prepare the process for the next attempt; return whether the outcome can be trusted."""
        place = self._place
        state = place.state
        if state is None:
            self._is_used_up = not place.between(seconds)
            return True  # and `_sound` is not needed
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
        # A failed leaf may have met damage of another one that has been repaired by now.
        harmed = state.has_changed if isinstance(outcome, LeafFailure) else bool(state.damage)
        self._is_sound = not state.damage
        if self._is_sound:
            self._journal.keep()
        return not harmed or number == self._sound[0]

    def _store_part(self) -> None:
        """Store the results in memory as one part."""
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
        """Return the results in memory as a pack, and its description."""
        self._journal.begin()  # the last leaf's time limit does not cover this step
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
    """Return the id of a leaf in a batch, which has no Hatchet run of its own."""
    return f"{call.workflow_run_id}-{row}"


def _size(outcome: LeafResult | LeafFailure) -> int:
    """Return the memory of a leaf's tables; one in the bucket counts as large."""
    if not isinstance(outcome, LeafResult) or not outcome.tables:
        return 0
    tables = outcome.tables.values()
    return sum(_PART_BYTES + 1 if isinstance(data, str) else len(data) for data in tables)
