"""Read a run in the bucket: its tables, its status, and wait for its end."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from scythe.errors import (
    BaseNotFoundError,
    EngineError,
    ExperimentRunNotFoundError,
    FetchError,
    ResultNotFoundError,
    RunFailedError,
    StorageError,
)
from scythe.processes.blocking import call_within, start_call
from scythe.runs.advice import retry_advice
from scythe.runs.explain import LeafTask, explain_wait, paused_note
from scythe.runs.progress_bar import ProgressView
from scythe.runs.rate import RecentRate
from scythe.runs.waiting import wait_for_run
from scythe.scatter.pause import is_paused
from scythe.status import RunStatus
from scythe.storage.files import S3Url
from scythe.storage.layout import RunLayout
from scythe.storage.manifest import ExperimentRunManifest, from_yaml
from scythe.storage.store import Store
from scythe.tables.arrow import know_types_of_pandas
from scythe.tables.gather import ERRORS, REPORTS, error_schema
from scythe.tables.names import SORT_INDEX
from scythe.tables.pandas_index import free_name

if TYPE_CHECKING:
    import pyarrow as pa

_LEAF = "leaf"
_ENGINE_PAUSE = 5.0  # seconds without news after which Hatchet is asked whether the run still lives
_START_SECONDS = 15.0  # between the manifest of a run and its start, which are one request apart
_LONGEST_RUN = 30 * 86400.0  # seconds; queries go no further back
_STATUS_SECONDS = 30.0
_PROBE_AFTER = 10.0  # seconds without news after which it is tried whether the bucket has room
_LONGEST_PROBE_PAUSE = 60.0
_NO_MANIFEST = (
    "It has no manifest: allocate or the deletion of the run is at work, or was interrupted."
)
_ENDS = "The tables of {0} are being written, as its root is gone. Wait for them: scythe watch {0}"
_NOT_STARTED = "allocate ended before it started the run. Allocate it again."


def read_table(store: Store, key: str) -> pa.Table | None:
    """Read a Parquet file whole; None when it is not there."""
    import pyarrow.parquet as pq

    data = store.find_bytes(key)
    if data is None:
        return None
    know_types_of_pandas(pq.read_schema(io.BytesIO(data)))
    return pq.read_table(io.BytesIO(data))


class RunWatch:
    """Looks at a run again and again: at its counts, and for the reason where they bring no news.

    Args:
        store: The bucket of the run.
        layout: The keys of the run.
        task: What its leaves need of a worker.

    Attributes:
        no_answer: Says who is asked at the moment, for those who wait for an answer in vain.
        stored: The status that the bucket had at the last look, None before.
    """

    def __init__(self, store: Store, layout: RunLayout, task: Callable[[], LeafTask]) -> None:
        self._store = store
        self._layout = layout
        self._task = task
        self._reason = ""
        self._ask_at = 0.0
        self._refusal = ""
        self._probe_at = 0.0
        self._probe_pause = _ENGINE_PAUSE
        self._rate = RecentRate()
        self.no_answer = ""
        self.stored: RunStatus | None = None

    def look(self) -> RunStatus:
        """Return how far the run is. A run whose root is gone from the engine is `failed`."""
        self.no_answer = (
            f"The S3 server at {self._store.config.endpoint_url or 'AWS'} does not answer: check "
            "AWS_ENDPOINT_URL_S3, and that it runs."
        )
        status = _stored_status(self._store, self._layout)
        self.stored = status
        if not _is_silent(status):
            self._reason = ""
        elif time.monotonic() >= self._ask_at:
            status = self._ask(status)
            self._ask_at = time.monotonic() + _ENGINE_PAUSE
        reason = "" if status.is_over else self._reason
        if status.state == "paused":
            reason = reason or paused_note(self._layout.experiment_id)
        return self._rate.added_to(status.model_copy(update={"waits_for": reason}))

    def _ask(self, status: RunStatus) -> RunStatus:
        from scythe.engine.lookup import connected_workers

        self.no_answer = "The Hatchet engine does not answer: check that it runs."
        try:
            status = self._checked(status)
            if not status.is_over and status.total:
                workers = connected_workers()
                is_paused = status.state == "paused"
                why = "" if is_paused else explain_wait(workers, self._task(), status)
                self._reason = self._probe(status) or why
        except EngineError as error:
            self._reason = str(error)
        return status

    def _checked(self, status: RunStatus) -> RunStatus:
        """Ask the engine whether a run without news still lives, and end one whose root is gone."""
        from scythe.engine.client import run_state
        from scythe.engine.lookup import find_run

        store, layout = self._store, self._layout
        root = status.workflow_run_id
        why_not = ""
        if root is None:
            age = store.age(layout.manifest)
            if age is not None and age < _START_SECONDS:
                return status
            seconds = _LONGEST_RUN if age is None else age
            since = datetime.now(UTC) - timedelta(seconds=seconds)
            root = find_run(layout.experiment_id, since)  # a root that runs would have a status
            why_not = _NO_MANIFEST if age is None else "" if root else _NOT_STARTED
        state = run_state(root) if root else ""
        if state in ("QUEUED", "RUNNING", "UNKNOWN"):
            return status
        if why_not:
            return status.model_copy(update={"state": "not_started", "message": why_not})
        latest = _stored_status(store, layout)  # it may have ended between the two looks
        if latest.is_over:
            return latest
        if state == "COMPLETED" and latest.total == 1:  # a Hatchet workflow of the user's
            return latest.model_copy(update={"state": "done"})
        from scythe.runs.ending import finish_lost_run
        from scythe.scatter.stop import is_being_ended

        self.no_answer = _ENDS.format(layout.experiment_id)
        # Another process may be writing the tables, or was killed a moment ago while it did.
        return latest if is_being_ended(store, layout) else finish_lost_run(store, layout, state)

    def _probe(self, status: RunStatus) -> str:
        """Say why the bucket takes nothing, if that is so; tried less and less often."""
        now = time.monotonic()
        if now < self._probe_at or time.time() - status.updated < _PROBE_AFTER:
            return self._refusal
        self._refusal = self._store.probe(self._layout.probe)
        self._probe_pause = min(2 * self._probe_pause, _LONGEST_PROBE_PAUSE)
        self._probe_at = now + (_ENGINE_PAUSE if self._refusal else self._probe_pause)
        return self._refusal


def _stored_status(store: Store, layout: RunLayout) -> RunStatus:
    data = store.find_bytes(layout.status)
    with suppress(ValidationError):  # a server that failed while it was written holds less of it
        if data:
            return _with_pause(store, layout, RunStatus.model_validate_json(data))
    manifest = store.find_bytes(layout.manifest)
    fields = from_yaml(manifest) if manifest else {}
    status = RunStatus(
        experiment_id=layout.experiment_id,
        workflow_run_id=fields.get("workflow_run_id"),
        total=fields.get("n_specs") or 0,
        updated=0.0,
    )
    return _with_pause(store, layout, status)


def _with_pause(store: Store, layout: RunLayout, status: RunStatus) -> RunStatus:
    """Return a status with the state `paused`, if the run is."""
    if status.is_over or not is_paused(store, layout):
        return status
    return status.model_copy(update={"state": "paused"})


def _is_silent(status: RunStatus) -> bool:
    return not status.is_over and time.time() - status.updated >= _ENGINE_PAUSE


def describe_failure(group: Mapping[str, Any]) -> str:
    """Return a row of `RunReader.failures` as one line."""
    message = " ".join(str(group["message"]).split())
    return f"{group['count']} x {group['type']}: {message} ({group['kind']}, leaf {group['leaf']})"


class RunReader:
    """Adds the read side to a class that has a run's layout and store."""

    @property
    def layout(self) -> RunLayout:
        """The keys of the run."""
        raise NotImplementedError

    @property
    def leaf_task(self) -> LeafTask:
        """Requirements of the run's leaves on a worker."""
        raise NotImplementedError

    def store(self, s3_client: Any = None) -> Store:
        """Return the store of the run."""
        raise NotImplementedError

    def list_results_files(self, s3_client: Any = None) -> dict[str, str]:
        """Return the keys of the final tables with results, by name.

        They have the specs as their index. `errors` and `leaves`, which every run has too, are read
        by `results`.
        """
        files = self._final_files(s3_client)
        return {name: key for name, key in files.items() if name not in REPORTS}

    def table_names(self) -> list[str]:
        """Return the names of the final tables that are there, those of Scythe's reports too."""
        return sorted(self._final_files())

    def _final_files(self, s3_client: Any = None) -> dict[str, str]:
        keys = self.store(s3_client).list_keys(self.layout.final, recursive=False)
        return {PurePosixPath(key).stem: key for key in keys if not key.endswith("/")}

    def as_uri(self, key: str) -> S3Url:
        """Return the URI of a key in the run's bucket."""
        return S3Url(self.store().uri(key))

    def manifest(self) -> ExperimentRunManifest:
        """Read the manifest of the run."""
        data = self.store().find_bytes(self.layout.manifest)
        if data is None:
            raise ExperimentRunNotFoundError(*self.layout.experiment_id.rsplit("/", 2))
        return ExperimentRunManifest.model_validate(from_yaml(data))

    def status(self) -> RunStatus:
        """Return how far the run is."""
        watch = self.watch()
        return call_within(
            _STATUS_SECONDS,
            watch.look,
            lambda: StorageError(watch.no_answer),
        )

    def last_status(self) -> RunStatus:
        """Return the counts that are in the bucket, without asking Hatchet whether the run lives.

        What has no manifest is `not_started`: `allocate`, or the deletion of the run, is at work or
        was interrupted.
        """
        status = _stored_status(self.store(), self.layout)
        if status.total or status.updated or self.store().find_bytes(self.layout.manifest):
            return status
        return status.model_copy(update={"state": "not_started", "message": _NO_MANIFEST})

    def wait(
        self,
        progress: bool = False,
        timeout: float | None = None,
        *,
        raise_on_failure: bool = False,
        on_progress: Callable[[RunStatus], object] | None = None,
    ) -> RunStatus:
        """Wait until the run is over.

        Args:
            progress: Whether to show done, failed, running, rate and time left meanwhile: as a bar
                on a terminal, else as plain lines.
            timeout: Seconds to wait at most; None to wait as long as it takes.
            raise_on_failure: Whether failed leaves, and a run that was stopped, are an error.
            on_progress: Called with each status that is new, the last one included.

        Returns:
            The last status: a run with failed leaves says so.

        Raises:
            RunFailedError: Leaves failed or the run was stopped, and `raise_on_failure` is set.
            RunTimeoutError: The run was not over in time. It goes on.
            RunInterrupted: Somebody pressed Ctrl-C. The run goes on.
        """
        status = wait_for_run(
            self.watch(),
            self.layout,
            view=ProgressView(sys.stderr if progress else None),
            timeout=timeout,
            on_progress=on_progress or (lambda _: None),
        )
        if raise_on_failure and (status.failed or status.state != "done"):
            end = f"{status}".rstrip(".")
            raise RunFailedError(f"{end}. {self._main_failure()}".rstrip())
        return status

    async def aio_wait(self, **options: Any) -> RunStatus:
        """Wait until the run is over, in a thread; see `wait`."""
        return await asyncio.wrap_future(start_call(lambda: self.wait(**options)))

    async def aio_status(self) -> RunStatus:
        """Return how far the run is; see `status`."""
        return await asyncio.wrap_future(start_call(self.status))

    def _main_failure(self) -> str:
        try:
            failures = self.failures().to_pylist()
        except (BaseNotFoundError, FetchError, StorageError):  # it was not even started
            return ""
        if not failures:
            return ""
        name = self.layout.experiment_id
        return (
            f"{describe_failure(failures[0])}. See run.errors(), or: scythe errors {name}. "
            f"{retry_advice(name, failures)}"
        )

    def watch(self) -> RunWatch:
        """Return an object that looks at the run again and again."""
        return RunWatch(self.store(), self.layout, lambda: self.leaf_task)

    def results(self, name: str = "scalars", *, partial: bool = False) -> pa.Table:
        """Read a final table; `.to_pandas()` gives it the MultiIndex of the specs.

        Args:
            name: `scalars`, `result_file_refs`, `errors`, `leaves`, or a table of the user's.
            partial: Whether the leaves that are over will do, while the run goes on.

        Raises:
            ResultNotFoundError: The run has no such table: the message names those it has.
        """
        store = self.store()
        key = self.layout.final_table(name)
        table = read_table(store, key)
        goes_on = False
        if table is None:  # to ask for the status ends a run whose root is gone
            goes_on = not self.status().is_over
            table = self._known_table(name) if partial and goes_on else None
        if table is None:
            table = read_table(store, key)
        if table is None:
            known = ", ".join(self.table_names()) or "none yet"
            advice = " wait() waits until a run is over." if goes_on else ""
            raise ResultNotFoundError(
                f"Run {self.layout.experiment_id} has no table {name!r} (it has: {known}).{advice}"
            )
        return table

    def _known_table(self, name: str) -> pa.Table | None:
        from scythe.runs.partial import known_table

        try:
            return known_table(self.store(), self.layout, name)
        except (FetchError, StorageError):  # it has no specs, or has just ended and been tidied
            return None

    def errors(self) -> pa.Table:
        """Read the failed leaves: one row for each, what went wrong first and its spec last.

        While the run goes on, those that are known.

        `leaf` is the leaf's `sort_index`. `results("errors")` has the specs as the index, as all
        other tables have them.
        """
        table = self.results(ERRORS, partial=True).replace_schema_metadata(None)
        own = [name for name in error_schema().names if name in table.column_names]
        leaf = free_name(_LEAF, table.column_names)
        table = table.add_column(0, leaf, table.column(SORT_INDEX))
        first = [*own[:3], leaf, *own[3:]]
        return table.select([*first, *(n for n in table.column_names[1:] if n not in first)])

    def failures(self) -> pa.Table:
        """Read what went wrong, the most frequent first.

        Returns:
            A row for each kind, type and message: with `count`, the number of leaves, and `leaf`,
            the first of them.
        """
        errors = self.errors()
        *names, leaf = errors.column_names[:4]
        groups = errors.group_by(names, use_threads=False)
        counted = groups.aggregate([(leaf, "count"), (leaf, "min")])
        named = counted.rename_columns([*names, "count", _LEAF])
        return named.sort_by([("count", "descending"), (_LEAF, "ascending")])
