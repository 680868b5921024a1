"""Queries about runs without news; each one returns or fails within seconds."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from scythe.engine.client import client
from scythe.engine.sdk_logs import is_refusal
from scythe.environment import refused_token
from scythe.errors import EngineError
from scythe.labels import CODE_LABEL, read_codes

_ANSWER_SECONDS = 5.0
_BEFORE = timedelta(hours=1)  # allowed difference between the clocks of this host and the engine
_LOG_TASKS = 50  # in one request
_LOG_LINES = 1000  # in one answer


@dataclass(frozen=True, slots=True)
class ConnectedWorker:
    """A connected Hatchet worker.

    Attributes:
        name: Its name.
        tasks: The tasks and workflows that it serves, in lower case and without the namespace.
        labels: Its labels.
        is_paused: Whether it takes no tasks for now.
        slots: Leaves that it runs at one time.
        free_slots: Number of these slots that are free.
        codes: The fingerprints of the experiments that it serves, by name.
        id: Its id in Hatchet.
    """

    name: str
    tasks: frozenset[str]
    labels: Mapping[str, str]
    is_paused: bool = False
    slots: int = 0
    free_slots: int = 0
    codes: Mapping[str, str] = field(default_factory=dict[str, str])
    id: str = ""


def connected_workers() -> list[ConnectedWorker]:
    """Return the connected workers.

    Raises:
        EngineError: The engine does not answer, or refuses the token.
    """
    hatchet = client()  # first: without a token the import of the SDK is of no use
    from hatchet_sdk.clients.rest.api.worker_api import WorkerApi
    from hatchet_sdk.clients.rest.models.worker_status import WorkerStatus

    with answered(), hatchet.workers.client() as api:
        found = WorkerApi(api).worker_list(
            hatchet.config.tenant_id,
            statuses=[WorkerStatus.ACTIVE, WorkerStatus.PAUSED],
            _request_timeout=_ANSWER_SECONDS,
        )
    return [_worker(row, hatchet.config.namespace) for row in found.rows or []]


def set_paused(worker_id: str, *, paused: bool) -> None:
    """Set whether a connected worker is given no further tasks.

    Raises:
        EngineError: The engine does not answer, or refuses it.
    """
    workers = client().workers
    with answered():
        (workers.pause if paused else workers.unpause)(worker_id)


def find_run(experiment_id: str, since: datetime) -> str | None:
    """Return Hatchet's id of any task of a run, or None if nothing was started.

    Args:
        experiment_id: The run.
        since: The earliest time at which it can have started.

    Raises:
        EngineError: The engine does not answer, or refuses the token.
    """
    from hatchet_sdk.clients.rest.api.workflow_runs_api import WorkflowRunsApi

    hatchet = client()
    with answered(), hatchet.runs.client() as api:
        found = WorkflowRunsApi(api).v1_workflow_run_list(
            hatchet.config.tenant_id,
            since=since - _BEFORE,
            until=datetime.now(UTC) + _BEFORE,
            only_tasks=False,
            limit=1,
            additional_metadata=[f"experiment_id:{experiment_id}"],
            include_payloads=False,
            _request_timeout=_ANSWER_SECONDS,
        )
    return next((str(row.workflow_run_external_id) for row in found.rows or []), None)


def read_logs(tasks: Sequence[str]) -> Iterator[tuple[str, float, str]]:
    """Yield what tasks printed: the task, the time in seconds since 1970, and the text.

    Args:
        tasks: Hatchet's ids of their runs.

    Raises:
        EngineError: The engine does not answer, or refuses the token.
    """
    for first in range(0, len(tasks), _LOG_TASKS):
        yield from _read_logs(tasks[first : first + _LOG_TASKS])


def _read_logs(tasks: Sequence[str]) -> Iterator[tuple[str, float, str]]:
    from hatchet_sdk.clients.rest.api.log_api import LogApi
    from hatchet_sdk.clients.rest.models.v1_log_line_order_by_direction import (
        V1LogLineOrderByDirection,
    )

    hatchet = client()
    since: datetime | None = None
    seen: set[tuple[str | None, str]] = set()  # of the moment at which the last page ended
    while True:
        with answered(), hatchet.logs.client() as api:
            found = LogApi(api).v1_tenant_log_line_list(
                hatchet.config.tenant_id,
                limit=_LOG_LINES,
                since=since,
                order_by_direction=V1LogLineOrderByDirection.ASC,
                task_external_ids=[*tasks],
                _request_timeout=_ANSWER_SECONDS,
            )
        lines = found.rows or []
        for line in lines:
            if (line.task_external_id, line.message) not in seen:
                yield str(line.task_external_id), line.created_at.timestamp(), line.message
        if len(lines) < _LOG_LINES or lines[-1].created_at == since:
            return
        since = lines[-1].created_at
        seen = {(line.task_external_id, line.message) for line in lines if line.created_at == since}


@contextmanager
def answered() -> Generator[None]:
    """Convert failed requests to `EngineError`."""
    from hatchet_sdk.clients.rest.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ApiException, HTTPError) as error:
        if is_refusal(error):
            raise EngineError(refused_token(client().config.server_url)) from error
        reason = str(getattr(error, "reason", None) or error).splitlines()[0]
        raise EngineError(
            f"The Hatchet engine at {client().config.server_url} does not answer ({reason}). Check "
            "that it runs, and HATCHET_CLIENT_SERVER_URL."
        ) from error


def _worker(row: Any, namespace: str) -> ConnectedWorker:
    tasks = (action.partition(":")[0].lower() for action in row.actions or [])
    slots = (row.slot_config or {}).get("default")
    labels = {label.key: str(label.value) for label in row.labels or []}
    codes = read_codes(labels.pop(CODE_LABEL, ""))
    return ConnectedWorker(
        name=row.name,
        tasks=frozenset(task.removeprefix(namespace) for task in tasks),
        labels=labels,
        is_paused=row.status is not None and row.status.value == "PAUSED",
        slots=slots.limit if slots else 0,
        free_slots=slots.available or 0 if slots else 0,
        codes=codes,
        id=str(row.metadata.id),
    )
