"""Finishes a run before all of its leaves have run: gather known outcomes, write final tables."""

from __future__ import annotations

import logging
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scythe.engine.client import cancel_run
from scythe.engine.run_tasks import RunTasks, TaskEnd
from scythe.scatter.known_leaves import KnownLeaves, RunPlace
from scythe.scatter.notifying import notify_end
from scythe.scatter.stop import StopRequest, ending_right, put_stop
from scythe.status import RunStatus
from scythe.tables.gather import ERRORS, LEAVES, count_codes

_CUT_SECONDS = 12.0  # a worker takes this long to store what a cancelled batch or node has
_LOST_ASKED = 2_000  # most tasks that are looked up again because the engine may show them as open
_PAUSE = 0.5
logger = logging.getLogger(__name__)


def finish_run(run: RunPlace, stop: StopRequest, *, spare: str = "") -> RunStatus:
    """Cancel the open tasks of a run, gather the known outcomes, and write the final tables.

    Leaves that have not ended become rows of `errors` with the kind and message of the request.
    Safe to repeat, and to call from several processes at a time: only one of them writes.

    Args:
        run: The run.
        stop: Why it ends.
        spare: The workflow run that is not cancelled: the root, if the root is the caller.

    Returns:
        The final status.
    """
    with ending_right(run.store, run.layout, run.is_over) as is_ours:
        status = _finish(run, stop, spare) if is_ours else run.status()
    assert status is not None
    return status


def _finish(run: RunPlace, stop: StopRequest, spare: str) -> RunStatus:
    put_stop(run.store, run.layout, stop)  # a node whose children are cancelled looks for it
    before = run.status()
    started = before.started if before else 0.0
    tasks = RunTasks(run.layout.experiment_id, started)
    if run.root_id and run.root_id != spare:
        cancel_run(run.root_id)
    is_settled = tasks.cancel_open(spare=spare, n_leaves=run.count(), grace=stop.grace)
    with tempfile.TemporaryDirectory(prefix="scythe-finish-") as folder:
        leaves = KnownLeaves(run, Path(folder))
        leaves.add_nodes()
        _add_tasks(leaves, tasks, is_settled=is_settled)
        _add_node_ends(leaves, before)
        _add_cut_batches(run, leaves, tasks, stop)
        leaves.add_rest(stop.record)
        written = _write_tables(run, leaves, Path(folder))
    known_codes = {code: count for code, count in written.codes.items() if code is not None}
    n_failed = written.rows[ERRORS]
    status = RunStatus(
        experiment_id=run.layout.experiment_id,
        workflow_run_id=run.root_id,
        state=stop.state,
        total=written.rows[LEAVES],
        done=written.rows[LEAVES] - n_failed,
        failed=n_failed,
        started=started,
        message=stop.message,
        warnings=list(dict.fromkeys(leaves.warnings)),
        code_mismatches=run.write_codes(known_codes),
        reused=written.rows[LEAVES] - leaves.n_leaves,
    )
    end_in_bucket(run, status)
    logger.info("%s", status)
    return status


def end_in_bucket(run: RunPlace, status: RunStatus) -> None:
    """Store the final status of a run, post it, then delete the run's intermediate objects."""
    run.store.put_bytes(run.layout.status, status.model_dump_json(indent=1).encode())
    notify_end(status)
    run.store.delete_all(run.layout.intermediate)


def _add_tasks(leaves: KnownLeaves, tasks: RunTasks, *, is_settled: bool) -> None:
    for state in ("COMPLETED", "FAILED"):  # a leaf that failed on other code may have been repeated
        for page in tasks.leaf_ends((state,), payloads=True):
            leaves.add_ends(page)
    # The engine may show a task that ended just before its cancellation as cancelled, even as one
    # that never started, and a task that was in a killed engine as open for ever.
    states = ("CANCELLED",) if is_settled else ("CANCELLED", "QUEUED", "RUNNING")
    left = [end for page in tasks.leaf_ends(states, payloads=False) for end in page]
    left.sort(key=lambda end: end.state == "CANCELLED" and not end.has_started)
    ends = tasks.look_again(left[:_LOST_ASKED])
    leaves.add_ends([end for end in ends if end.state in ("COMPLETED", "FAILED")])


def _add_cut_batches(
    run: RunPlace, leaves: KnownLeaves, tasks: RunTasks, stop: StopRequest
) -> None:
    """Add the leaves that had ended in batches that were cancelled while they ran."""
    pages = tasks.leaf_ends(("CANCELLED",), payloads=False)
    cancelled = [
        end
        for page in pages
        for end in page
        if end.rows[1] - end.rows[0] > 1 and not leaves.knows(end.rows[0])
    ]
    folder = run.layout.batch_journals
    store = run.store
    running = {one.workflow_run_id for one in cancelled if _was_cut(one, stop)}
    deadline = time.monotonic() + _CUT_SECONDS
    while True:
        there = {key.removeprefix(folder) for key in list(store.list_keys(folder))}
        if not running - there or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    for end in cancelled:
        if end.workflow_run_id in there:
            key = run.layout.batch_journal(end.workflow_run_id)
            leaves.add_cut_batch(end, store.get_bytes(key))


def _add_node_ends(leaves: KnownLeaves, before: RunStatus | None) -> None:
    """Add what cut scatter nodes knew; wait for it while the status has shown more ended leaves."""
    shown = before.done + before.failed - before.reused if before else 0
    deadline = time.monotonic() + _CUT_SECONDS
    while True:
        leaves.add_node_ends()
        if leaves.n_known >= shown or time.monotonic() > deadline:
            return
        time.sleep(_PAUSE)


def _was_cut(end: TaskEnd, stop: StopRequest) -> bool:
    """Return whether a worker may still store the journal of a cancelled batch."""
    return end.has_started and (not end.finished or end.finished >= stop.at - _CUT_SECONDS)


@dataclass(frozen=True, slots=True)
class _Written:
    """The final tables of a run: rows of each table, and leaves by the code that they ran."""

    rows: dict[str, int]
    codes: Counter[str | None]


def _write_tables(run: RunPlace, leaves: KnownLeaves, folder: Path) -> _Written:
    """Write the final tables, `errors` and `leaves` first."""
    written = _Written({}, Counter())
    for name in sorted(leaves.names, key=lambda name: name not in (ERRORS, LEAVES)):
        file = folder / "final.pq"
        written.rows[name] = leaves.write(name, file)
        if name == LEAVES:
            written.codes.update(count_codes(file))
        run.store.put_file(run.layout.final_table(name), file)
    return written
