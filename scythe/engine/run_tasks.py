"""The Hatchet tasks of one run: cancels the open ones, and reads the ends of its leaf tasks.

The engine answers these queries from a copy of its tables, in which tasks and changes of their
states appear with a short delay.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from scythe.engine.client import client
from scythe.engine.running_node import end_of

_LONGEST_RUN = timedelta(days=30)  # queries go no further back
_CHUNK = 500  # ids per request
_PAGE = 500  # tasks per answer, which has their inputs and outputs
_CLOCKS = timedelta(seconds=60)  # allowed difference between the clocks of this host and the engine
_ASK_AGAIN_SECONDS = 5.0
_PAUSE_SECONDS = 0.7
_STUCK_SECONDS = 15.0  # without a change of the number of open tasks, until it gives up
_ASKERS = 8
_LATE_SECONDS = 10.0  # in which a task appears, also on a busy machine
_MOST_COUNTED = 5_000  # leaves whose tasks are counted: that takes a request for each 500
_LOOKS = 3  # queries without an open task, because new tasks appear with a delay
_OPEN = ("QUEUED", "RUNNING")


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """A leaf task of a run, as the engine shows it.

    Attributes:
        workflow_run_id: Hatchet's id of its run.
        rows: The first spec row of its leaves, and the row after the last.
        state: Hatchet's state: QUEUED, RUNNING, COMPLETED, FAILED or CANCELLED.
        output: Its output, or the text of its error.
        created: When Hatchet got it, in seconds since 1970.
        has_started: Whether a worker has started it.
        finished: When it ended, in seconds since 1970; 0 before.
    """

    workflow_run_id: str
    rows: tuple[int, int]
    state: str
    output: dict[str, Any] | str
    created: float
    has_started: bool
    finished: float


@dataclass(frozen=True, slots=True)
class RunTasks:
    """The Hatchet tasks of a run.

    Attributes:
        experiment_id: The run.
        since: When the run began, in seconds since 1970; 0 if unknown.
    """

    experiment_id: str
    since: float = 0.0

    def cancel_open(self, *, spare: str, n_leaves: int, grace: float = 0.0) -> bool:
        """Cancel all tasks, and wait until none is open or their number stops falling.

        Args:
            spare: The workflow run that is not cancelled.
            n_leaves: Number of leaves of the run: until the engine shows the tasks of all, it is
                given some time to show more.
            grace: Seconds for which running leaves may continue.

        Returns:
            Whether no task is open.
        """
        if grace > 0:
            self._let_run_out(time.monotonic() + grace)
        asked: dict[str, float] = {}
        looks_without = 0
        before = -1
        changed = time.monotonic()
        late = changed + _LATE_SECONDS
        while looks_without < _LOOKS and time.monotonic() < changed + _STUCK_SECONDS:
            found = [one for one in self._ids(_OPEN) if one != spare]
            looks_without = 0 if found else looks_without + 1
            if len(found) != before:
                before = len(found)
                changed = time.monotonic()
            _cancel_once(found, asked)
            time.sleep(_PAUSE_SECONDS)
            if looks_without == _LOOKS and time.monotonic() < late and not self._shows(n_leaves):
                looks_without -= 1
        return looks_without == _LOOKS

    def _shows(self, n_leaves: int) -> bool:
        """Return whether the engine shows the tasks of all leaves; false if they are too many."""
        if n_leaves > _MOST_COUNTED:
            return False
        states = (*_OPEN, "COMPLETED", "FAILED", "CANCELLED")
        pages = self.leaf_ends(states, payloads=False)
        rows = {row for page in pages for end in page for row in range(*end.rows)}
        return len(rows) >= n_leaves

    def _let_run_out(self, deadline: float) -> None:
        """Cancel the waiting leaves, and wait for the running ones."""
        asked: dict[str, float] = {}
        looks_without = 0
        while looks_without < _LOOKS and time.monotonic() < deadline:
            _cancel_once(self._ids(["QUEUED"], leaves=True), asked)
            looks_without = 0 if self._ids(_OPEN, leaves=True) else looks_without + 1
            time.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))

    def leaf_ends(self, states: Sequence[str], *, payloads: bool) -> Iterator[list[TaskEnd]]:
        """Yield pages of the leaf tasks in one of these states.

        Args:
            states: Hatchet's states.
            payloads: Whether to include outputs and errors.
        """
        offset = 0
        while True:
            rows = self._list(states, offset=offset, payloads=payloads)
            yield [end for row in rows if (end := _task_end(row)) is not None]
            if len(rows) < _PAGE:
                return
            offset += len(rows)

    def look_again(self, tasks: Sequence[TaskEnd]) -> list[TaskEnd]:
        """Query the engine's working tables for tasks that its copy may show in an old state."""
        with ThreadPoolExecutor(_ASKERS, "scythe-ask") as threads:
            return list(threads.map(_look_again, tasks))

    def _ids(self, states: Sequence[str], *, leaves: bool = False) -> list[str]:
        from hatchet_sdk.clients.rest.api.workflow_runs_api import WorkflowRunsApi

        key = LEAF_OF if leaves else "experiment_id"
        with client().runs.client() as api:
            found = WorkflowRunsApi(api).v1_workflow_run_external_ids_list(
                tenant=client().config.tenant_id,
                since=self._since,
                additional_metadata=[f"{key}:{self.experiment_id}"],
                statuses=_statuses(states),
            )
        return list(found or ())  # the engine returns null for no tasks

    def _list(self, states: Sequence[str], *, offset: int, payloads: bool) -> list[Any]:
        from hatchet_sdk.clients.rest.api.workflow_runs_api import WorkflowRunsApi

        with client().runs.client() as api:
            found = WorkflowRunsApi(api).v1_workflow_run_list(
                tenant=client().config.tenant_id,
                since=self._since,
                only_tasks=True,
                offset=offset,
                limit=_PAGE,
                statuses=_statuses(states),
                additional_metadata=[f"{LEAF_OF}:{self.experiment_id}"],
                include_payloads=payloads,
            )
        return list(found.rows or ())

    @property
    def _since(self) -> datetime:
        now = datetime.now(UTC)
        if not self.since:
            return now - _LONGEST_RUN
        return datetime.fromtimestamp(self.since, UTC) - _CLOCKS


# Metadata keys of a leaf task: its run, and the rows of its specs. The engine matches tasks by any
# of several values, so one key marks a task both as a leaf and as one of this run.
LEAF_OF = "leaf_of"
ROWS = "rows"


def leaf_metadata(experiment_id: str, rows: tuple[int, int]) -> dict[str, Any]:
    """Return the metadata by which queries find a leaf task."""
    return {LEAF_OF: experiment_id, ROWS: f"{rows[0]}-{rows[1]}"}


def _look_again(task: TaskEnd) -> TaskEnd:
    found = end_of(client().runs.get_details(task.workflow_run_id))
    if isinstance(found, BaseException):
        return replace(task, state="FAILED", output=str(found))
    if found is None:
        return task
    return replace(task, state="COMPLETED" if found else "CANCELLED", output=found)


def _cancel_once(found: Sequence[str], asked: dict[str, float]) -> None:
    """Cancel runs, except those cancelled a moment ago, which the copy still shows as open."""
    from hatchet_sdk.features.runs import BulkCancelReplayOpts

    now = time.monotonic()
    ids = [one for one in found if one not in asked or asked[one] < now - _ASK_AGAIN_SECONDS]
    asked.update(dict.fromkeys(ids, now))
    for first in range(0, len(ids), _CHUNK):
        client().runs.bulk_cancel(BulkCancelReplayOpts(ids=ids[first : first + _CHUNK]))


def _statuses(states: Sequence[str]) -> list[Any]:
    from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus

    return [V1TaskStatus(state) for state in states]


def _task_end(row: Any) -> TaskEnd | None:
    """Read a row of the engine's answer; None if it is not a leaf task.

    Tasks that the user's code starts inherit the metadata, but have other names.
    """
    metadata = row.additional_metadata or {}
    name = client().config.apply_namespace(str(metadata.get("experiment_name", "")))
    first, _, stop = str(metadata.get(ROWS, "")).partition("-")
    if not (first.isdigit() and stop.isdigit()) or row.workflow_name not in (None, name):
        return None
    state = str(row.status.value)
    return TaskEnd(
        workflow_run_id=row.workflow_run_external_id,
        rows=(int(first), int(stop)),
        state=state,
        output=(row.error_message or "") if state == "FAILED" else dict(row.output or {}),
        created=row.created_at.timestamp(),
        has_started=row.started_at is not None,
        finished=row.finished_at.timestamp() if row.finished_at else 0.0,
    )
