"""Commands that show single leaves of a run: `errors`, `logs`."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from scythe.catalog import Run, open_run
from scythe.commands import show
from scythe.commands.base import ExitCode, Json, RunName, add
from scythe.errors import EngineError, ResultNotFoundError
from scythe.runs.advice import retry_advice
from scythe.runs.leaves import LogLine, as_plain
from scythe.tables.gather import error_schema

_MOST_ROWS = 20  # on a terminal
_LONGEST = 20  # characters of a field of a spec, in the list of errors on a terminal
_MESSAGE = 24  # characters that the message keeps beside these fields
_PAUSE = 2.0  # seconds between two looks for new lines

RunOption = Annotated[str | None, typer.Option("--run", metavar="RUN", help="In place of RUN.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for function in (errors, logs):
        add(app, function)


def errors(
    run: RunName = "@latest",
    group: Annotated[bool, typer.Option("--group", help="Count equal failures.")] = False,
    leaf: Annotated[int | None, typer.Option(help="One leaf: spec, traceback and log.")] = None,
    run_option: RunOption = None,
    json: Json = False,
) -> int:
    """Show failed leaves: each, in groups, or one with all details."""
    found = open_run(run_option or run)
    if leaf is not None:
        return _one_error(found, leaf, json=json)
    if group:
        rows = found.failures().to_pylist()
        columns = ["count", "kind", "type", "message", "leaf"]
    else:
        rows = found.errors().to_pylist()
        columns = ["leaf", "kind", "type", "message"]
    if json:
        show.line(show.as_json(rows))
    elif not rows:
        show.note(f"No leaf of {found.experiment_id} has failed.")
    else:
        shown = rows[:_MOST_ROWS] if show.is_terminal() else rows
        width = shutil.get_terminal_size().columns if show.is_terminal() else None
        fields = [] if group else spec_columns(shown, width)
        show.table(shown, [*columns, *fields], whole=("leaf", "count", *fields))
        if len(rows) > len(shown):
            show.note(f"{len(rows) - len(shown)} more: --group counts equal ones, a pipe has all.")
        if not group and show.is_terminal():
            show.note(f"One whole: scythe errors {found.experiment_id} --leaf {rows[0]['leaf']}")
        if found.last_status().is_over:
            show.note(retry_advice(found.experiment_id, rows))
    return ExitCode.FAILED_LEAVES if rows else ExitCode.GOOD


def logs(
    run: RunName = "@latest",
    leaf: Annotated[int | None, typer.Option(help="Only this leaf.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the end.")] = False,
    run_option: RunOption = None,
    json: Json = False,
) -> None:
    """Show what leaves printed.

    Hatchet has it once a leaf is over. Leaves of one batch have one log.
    """
    found = open_run(run_option or run)
    seen: set[LogLine] = set()
    while True:
        is_over = not follow or found.status().is_over
        for entry in found.logs(leaf):
            if entry not in seen:
                seen.add(entry)
                _print(entry, with_leaf=leaf is None, json=json)
        sys.stdout.flush()
        if is_over:
            break
        time.sleep(_PAUSE)
    if not seen:
        show.note("Nothing was printed, or Hatchet keeps it no more.")


def spec_columns(rows: Sequence[Mapping[str, Any]], width: int | None) -> list[str]:
    """Return the fields of the specs for which a list of errors has room.

    Args:
        rows: The errors, with the fields of their specs.
        width: Columns of the terminal; None where nothing is shortened.
    """
    known = {"leaf", *error_schema().names, *_OWN_FIELDS}
    names = [name for name in rows[0] if name not in known]
    if width is None:
        return names
    widths = {
        name: max(len(name), *(len(show.cell(row.get(name))) for row in rows))
        for name in ("leaf", "kind", "type", "message", *names)
    }
    used = widths["leaf"] + widths["kind"] + widths["type"] + min(widths["message"], _MESSAGE) + 6
    shown: list[str] = []
    for name in names:
        if widths[name] <= _LONGEST and used + 2 + widths[name] <= width:
            used += 2 + widths[name]
            shown.append(name)
    return shown


def _print(entry: LogLine, *, with_leaf: bool, json: bool) -> None:
    if json:
        show.line(show.as_json(entry, in_one_line=True))
        return
    first, last = entry.leaves
    leaves = f"{first}" if first == last else f"{first}-{last}"
    for text in entry.text.splitlines():
        show.line(f"{leaves}\t{text}" if with_leaf else text)


def _one_error(run: Run, leaf: int, *, json: bool) -> int:
    rows = [row for row in run.errors().to_pylist() if row["leaf"] == leaf]
    spec = as_plain(run.spec_text(leaf))  # raises where the run has no such leaf
    if not rows:
        raise ResultNotFoundError(f"Leaf {leaf} of {run.experiment_id} has not failed.")
    facts: dict[str, Any] = {"leaf": leaf, **rows[0], "spec": spec, "log": _log(run, leaf)}
    if json:
        show.line(show.as_json(facts))
        return ExitCode.FAILED_LEAVES
    fields: dict[str, Any] = spec if isinstance(spec, dict) else {"": spec}
    shown = {name: value for name, value in fields.items() if name not in _OWN_FIELDS}
    show.line(f"leaf {leaf} of {run.experiment_id}")
    names = ("kind", "type", "message", "attempts", "node", "pid")
    show.pairs({name: facts[name] for name in names if facts.get(name) is not None})
    show.pairs({"finished": _time(facts.get("finished"))})
    show.pairs({"spec": "\n".join(f"{name} = {value!r}" for name, value in shown.items())})
    for name in ("traceback", "log"):
        if facts.get(name):
            show.line(f"\n{name}")
            show.line(str(facts[name]).rstrip())
    return ExitCode.FAILED_LEAVES


_OWN_FIELDS = (
    *("experiment_id", "sort_index", "workflow_run_id", "root_workflow_run_id"),
    "storage_settings",
)


def _log(run: Run, leaf: int) -> str:
    try:
        lines = itertools.islice(run.logs(leaf), 1000)
        return "\n".join(entry.text for entry in lines)
    except EngineError as error:
        show.note(f"scythe: the log cannot be read: {error}")
        return ""


def _time(seconds: float | None) -> str:
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
