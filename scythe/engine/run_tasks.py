"""All Hatchet tasks of one run: cancel those that are open, and read how its leaf tasks ended.

What is asked here is answered from copies that the engine keeps for queries. A task appears in them
a moment after it was started, and a state a moment after it has changed.
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

_LONGEST_RUN = timedelta(days=30)  # further back Hatchet is not asked
_CHUNK = 500  # ids in one request
_PAGE = 500  # tasks in one answer, which holds their inputs and outputs
_CLOCKS = timedelta(seconds=60)  # by which the clocks of this host and the engine's may differ
_ASK_AGAIN_SECONDS = 5.0
_PAUSE_SECONDS = 0.7
_STUCK_SECONDS = 15.0  # for which the number of open tasks stays as it is
_ASKERS = 8
_LOOKS = 3  # without an open task: what was just started may not be shown yet
_OPEN = ("QUEUED", "RUNNING")


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """A leaf task of a run, as the engine shows it.

    Attributes:
        workflow_run_id: Hatchet's id of its run.
        rows: First row of its leaves in the specs, and the one after its last.
        state: Hatchet's state: QUEUED, RUNNING, COMPLETED, FAILED or CANCELLED.
        output: Its output, or the text of its error.
        created: When it was handed to Hatchet, in seconds since 1970.
        has_started: Whether a worker has begun it.
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
        since: When the run began, in seconds since 1970; 0 where it is not known.
    """

    experiment_id: str
    since: float = 0.0

    def cancel_open(self, *, spare: str, grace: float = 0.0) -> bool:
        """Cancel all tasks, and wait until none is open any more, as long as they become fewer.

        Args:
            spare: The workflow run that is left alone.
            grace: Seconds for which leaves that run already may go on.

        Returns:
            Whether none is open.
        """
        if grace > 0:
            self._let_run_out(time.monotonic() + grace)
        asked: dict[str, float] = {}
        looks_without = 0
        before = -1
        changed = time.monotonic()
        while looks_without < _LOOKS and time.monotonic() < changed + _STUCK_SECONDS:
            found = [one for one in self._ids(_OPEN) if one != spare]
            looks_without = 0 if found else looks_without + 1
            if len(found) != before:
                before = len(found)
                changed = time.monotonic()
            _cancel_once(found, asked)
            time.sleep(_PAUSE_SECONDS)
        return looks_without == _LOOKS

    def _let_run_out(self, deadline: float) -> None:
        """Cancel the leaves that wait, and wait for those that run."""
        asked: dict[str, float] = {}
        looks_without = 0
        while looks_without < _LOOKS and time.monotonic() < deadline:
            _cancel_once(self._ids(["QUEUED"], leaves=True), asked)
            looks_without = 0 if self._ids(_OPEN, leaves=True) else looks_without + 1
            time.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))

    def leaf_ends(self, states: Sequence[str], *, payloads: bool) -> Iterator[list[TaskEnd]]:
        """Yield the leaf tasks that are in one of these states, some at a time.

        Args:
            states: Hatchet's states.
            payloads: Whether outputs and errors are asked for.
        """
        offset = 0
        while True:
            rows = self._list(states, offset=offset, payloads=payloads)
            yield [end for row in rows if (end := _task_end(row)) is not None]
            if len(rows) < _PAGE:
                return
            offset += len(rows)

    def look_again(self, tasks: Sequence[TaskEnd]) -> list[TaskEnd]:
        """Ask for tasks that the copies show as open in the tables that the engine works with."""
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
        return list(found or ())  # the engine says null where there is none

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


# In the metadata of a leaf task: the run, and the rows of its specs. The engine finds what has one
# of several values, so one key says both that a task is a leaf and of which run.
LEAF_OF = "leaf_of"
ROWS = "rows"


def leaf_metadata(experiment_id: str, rows: tuple[int, int]) -> dict[str, Any]:
    """Return the metadata by which a leaf task is found again."""
    return {LEAF_OF: experiment_id, ROWS: f"{rows[0]}-{rows[1]}"}


def _look_again(task: TaskEnd) -> TaskEnd:
    found = end_of(client().runs.get_details(task.workflow_run_id))
    if isinstance(found, BaseException):
        return replace(task, state="FAILED", output=str(found))
    if found is None:
        return task
    return replace(task, state="COMPLETED" if found else "CANCELLED", output=found)


def _cancel_once(found: Sequence[str], asked: dict[str, float]) -> None:
    """Cancel runs, unless that was asked for a moment ago: they are shown as open for a while."""
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
    """Read a row of the engine's answer; None where it is not a leaf task of ours.

    What a task of the user's starts inherits its metadata, and is of another name.
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
