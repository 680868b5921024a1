"""Commands that show runs as a whole: `runs`, `status`, `watch`."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Annotated, Any, get_args

import typer

from scythe.catalog import Run, list_runs, open_run, short_id
from scythe.commands import show
from scythe.commands.base import ExitCode, Json, RunName, add, code_of
from scythe.errors import BaseNotFoundError, EngineError, SettingsError, StorageError
from scythe.processes.interrupts import RunInterrupted
from scythe.runs.advice import retry_advice
from scythe.runs.progress_bar import ProgressView, describe, format_seconds
from scythe.runs.reading import describe_failure
from scythe.runs.waiting import wait_for_run
from scythe.status import RunState, RunStatus

_SILENT = 15.0  # seconds without news after which Hatchet is asked about a run
_READERS = 16
_MOST_LEAVES = 5_000  # of a run that goes on, for what costs more with each leaf
_SLOWEST, _GROUPS = 3, 3
_NEWS_PAUSE = 5.0  # seconds between two looks for new failures


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for function in (runs, status, watch):
        add(app, function)


def runs(
    experiment: Annotated[str | None, typer.Argument(help="Only runs of this one.")] = None,
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only runs with this tag; may be given again.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to show.")] = 20,
    json: Json = False,
) -> None:
    """List runs, the latest first."""
    known = get_args(RunState)
    if state is not None and state not in known:
        raise SettingsError(f"--state must be one of {', '.join(known)}, got {state!r}.")
    found = list_runs(experiment, tags=tag or ())
    with ThreadPoolExecutor(_READERS, "scythe-runs") as threads:
        shown = found if state else found[:limit]
        statuses = list(threads.map(_current, shown))
    rows = [
        {
            "run": one.experiment_id,
            "state": status.state,
            "done": status.done,
            "failed": status.failed,
            "running": status.running,
            "total": status.total,
            "allocated": one.timestamp.replace(tzinfo=UTC).timestamp(),
        }
        for one, status in zip(shown, statuses, strict=True)
        if state in (None, status.state)
    ][:limit]
    if json:
        show.line(show.as_json(rows))
        return
    if not rows:
        tagged = f" with tag {' and '.join(tag)}" if tag else ""
        if state is None:
            show.note(f"There are no runs{tagged} here.")
        else:
            show.note(f"No run{tagged} is {state}.")
        return
    for row in rows:
        row["age"] = show.since(float(row["allocated"]))
        row["run"] = short_id(str(row["run"])) if show.is_terminal() else row["run"]
    columns = ("run", "state", "done", "failed", "running", "total", "age")
    show.table(rows, columns, whole=("run", "state"))
    if len(found) > len(shown):
        show.note(f"{len(found) - len(shown)} older ones: --limit {len(found)}")


def status(run: RunName = "@latest", json: Json = False) -> int:
    """Show one run: leaves, rate, failures, workers, why it waits."""
    found = open_run(run)
    known = found.last_status()
    known = known if known.is_over else found.status()
    facts, groups = _facts(found, known)
    if json:
        show.line(show.as_json({**known.model_dump(), **_numbers(known), **facts}))
        return code_of(known)
    head = known.state if not known.message else f"{known.state}: {known.message}"
    show.line(f"{known.experiment_id}  {head}")
    started = f"{show.since(known.started)} ago" if known.started else ""
    ended = known.is_over and known.started
    more = _unshown(found, len(groups) - len(facts["failures"]))
    advice = retry_advice(found.experiment_id, groups) if known.is_over else ""
    show.pairs(
        {
            "about": facts["description"],
            "tags": ", ".join(facts["tags"]),
            "leaves": describe(known) if known.state != "not_started" else "",
            "started": f"{started}, took {format_seconds(_seconds(known))}" if ended else started,
            "failed": "\n".join([*map(describe_failure, facts["failures"]), *more]),
            "retry": advice,
            "slowest": "\n".join(_slow(row) for row in facts["slowest"]),
            "workers": "\n".join(_serving(row) for row in facts["workers"]),
            "tables": ", ".join(facts["tables"]),
            "page": facts["url"] or "",
            "warning": "\n".join(known.warnings),
        }
    )
    return code_of(known)


def watch(run: RunName = "@latest", json: Json = False) -> int:
    """Show a run live until it is over.

    Ctrl-C ends the watching, not the run.
    """
    found = open_run(run)
    known = found.last_status()
    if known.state == "not_started":  # nothing would ever come
        show.line(show.as_json(known, in_one_line=True) if json else str(known))
        return code_of(known)
    view = ProgressView(None if json else sys.stdout)
    if not json and not show.is_terminal():  # where the bar has the name
        show.line(found.experiment_id)
    news = FailureNews(found)

    def on_progress(status: RunStatus) -> None:
        if json:
            show.line(show.as_json({**status.model_dump(), **_numbers(status)}, in_one_line=True))
            sys.stdout.flush()
            return
        for text in news.of(status):
            view.note(text)

    try:
        last = wait_for_run(
            found.watch(), found.layout, view=view, timeout=None, on_progress=on_progress
        )
    except RunInterrupted:
        show.note(f"The run continues. Cancel it: scythe cancel {found.experiment_id}")
        return ExitCode.INTERRUPTED
    if not json:
        show.line(str(last))
        if last.failed:
            advice = retry_advice(found.experiment_id, news.failures)
            show.line(f"See them: scythe errors {found.experiment_id}. {advice}")
    return code_of(last)


def _current(run: Run) -> RunStatus:
    """Return the status in the bucket; of a run that gives no news, that of Hatchet."""
    status = run.last_status()
    if status.is_over or time.time() - status.updated < _SILENT:
        return status
    try:
        return run.status()
    except (EngineError, StorageError):
        return status


def _numbers(status: RunStatus) -> dict[str, Any]:
    return {
        "waiting": 0 if status.is_over else status.waiting,
        "rate": status.rate,
        "seconds_left": None if status.is_over else status.seconds_left,
    }


def _facts(run: Run, status: RunStatus) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what is known of a run beyond its counts, and all groups of failures."""
    facts: dict[str, Any] = {"failures": [], "slowest": [], "workers": [], "tables": []}
    groups: list[dict[str, Any]] = []
    facts["url"] = _url(run)
    facts.update(_description(run))
    if status.is_over:
        facts["tables"] = run.table_names()
    else:
        try:
            facts["workers"] = run.workers()
        except EngineError as error:
            show.note(f"scythe: {error}")
    has_ended = status.done + status.failed > 0
    if facts["tables"] or (has_ended and status.total <= _MOST_LEAVES):
        try:
            groups = run.failures().to_pylist() if status.failed else []
            facts["failures"] = groups[:_GROUPS]
            facts["slowest"] = _slowest(run)
        except (BaseNotFoundError, EngineError):
            pass  # nothing has ended yet, or it was never started
    facts["failure_groups"] = len(groups)
    return facts, groups


def _unshown(run: Run, count: int) -> list[str]:
    """Return a line for groups of failures that are not shown, if there are any."""
    return [f"and {count} more: scythe errors {run.experiment_id} --group"] if count > 0 else []


def _description(run: Run) -> dict[str, Any]:
    """Return the description and the tags of a run."""
    try:
        manifest = run.manifest()
    except BaseNotFoundError:
        return {"description": "", "tags": []}
    return {"description": manifest.description, "tags": manifest.tags}


def _url(run: Run) -> str | None:
    try:
        return run.url
    except EngineError:  # what is in the bucket is shown anyway
        return None


def _slowest(run: Run) -> list[dict[str, Any]]:
    table = run.results("leaves", partial=True).replace_schema_metadata(None)
    columns = [name for name in ("sort_index", "seconds", "node") if name in table.column_names]
    ordered = table.select(columns).sort_by([("seconds", "descending")])
    return ordered.slice(0, _SLOWEST).to_pylist()


def _slow(row: dict[str, Any]) -> str:
    where = f" on {row['node']}" if row.get("node") else ""
    return f"leaf {row['sort_index']}: {row['seconds'] or 0:.1f} s{where}"


def _serving(worker: Any) -> str:
    state = ", takes none now" if worker.is_paused else ""
    return f"{worker.name}: {worker.free_slots} of {worker.slots} slots free{state}"


def _seconds(status: RunStatus) -> float:
    return max(0.0, status.updated - status.started)


class FailureNews:
    """Describes failures as they come.

    Args:
        run: The run.

    Attributes:
        failures: All groups of failures, when they were last read.
    """

    def __init__(self, run: Run) -> None:
        self.failures: list[dict[str, Any]] = []
        self._run = run
        self._failed = 0
        self._next = 0.0
        self._counts: dict[tuple[Any, ...], int] = {}

    def of(self, status: RunStatus) -> list[str]:
        """Return a line for each group of failures that has grown."""
        is_large = status.total > _MOST_LEAVES and not status.is_over
        is_early = time.monotonic() < self._next and not status.is_over
        if status.failed <= self._failed or is_large or is_early:
            return []
        self._failed, self._next = status.failed, time.monotonic() + _NEWS_PAUSE
        self.failures = self._run.failures().to_pylist()
        keys = [(row["kind"], row["type"], row["message"]) for row in self.failures]
        grown = [
            (key, row)
            for key, row in zip(keys, self.failures, strict=True)
            if row["count"] > self._counts.get(key, 0)
        ]
        shown = grown[:_GROUPS]
        self._counts |= {key: row["count"] for key, row in shown}
        lines = [f"failed: {describe_failure(row)}" for _, row in shown]
        return lines + _unshown(self._run, len(grown) - len(shown))
