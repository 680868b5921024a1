"""The command that shows and exports the tables of a run: `results`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scythe.catalog import Run, open_run
from scythe.commands import show
from scythe.commands.base import Json, RunName, add
from scythe.errors import ResultNotFoundError
from scythe.status import RunStatus
from scythe.tables.formats import write_csv
from scythe.tables.gather import REPORTS

_MOST_ROWS = 20  # on a terminal


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    add(app, results)


def results(
    run: RunName = "@latest",
    table: Annotated[str, typer.Argument(help="Its name.")] = "scalars",
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write .parquet, .pq, .csv, .xlsx or .duckdb."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Only these columns, in this order.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take the leaves that are over.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a table, or write it to a file. The fields of the specs are columns.

    In a pipe it is CSV.
    """
    found = open_run(run)
    wanted = [name.strip() for name in columns.split(",") if name.strip()] if columns else None
    try:
        _give(found, table, to=to, columns=wanted, partial=partial, json=json)
    except ResultNotFoundError:
        status = found.status()
        if partial or status.is_over:
            raise
        name = found.experiment_id
        raise ResultNotFoundError(
            f"Run {name} is {status.state}; its tables are written when it is over. Watch it: "
            f"scythe watch {name}. --partial takes the leaves that are over."
        ) from None
    missing = "" if table in REPORTS else missing_note(found.last_status())
    if missing:
        sys.stdout.flush()
        show.note(missing)


def missing_note(status: RunStatus) -> str:
    """Say how many leaves a table of results lacks, and why; empty if it has all."""
    n_open = status.total - status.done - status.failed
    reasons = [f"{n_open} are not over"] if n_open > 0 else []
    if status.failed:
        reasons.append(f"{status.failed} failed: see scythe errors {status.experiment_id}")
    return f"{status.done} of {status.total} leaves; {', '.join(reasons)}" if reasons else ""


def _give(
    found: Run,
    table: str,
    *,
    to: Path | None,
    columns: list[str] | None,
    partial: bool,
    json: bool,
) -> None:
    """Print a table, or write it to a file."""
    if to is not None:
        rows = found.export(to, table, columns=columns, partial=partial)
        if json:
            show.line(
                show.as_json(
                    {"run": found.experiment_id, "table": table, "rows": rows, "file": str(to)}
                )
            )
        else:
            show.note(f"{rows} rows of {table} are in {to}.")
        return
    with found.stream(table, columns=columns, partial=partial) as reader:
        if json:
            _print_json(reader)
        elif not show.is_terminal():
            sys.stdout.flush()
            write_csv(reader, sys.stdout.buffer)
        else:
            _print_table(reader, table, found.table_names())


def _print_json(reader: Any) -> None:
    """Print one JSON array, some rows at a time."""
    separator = "["
    for batch in reader:
        for row in batch.to_pylist():
            sys.stdout.write(separator + show.as_json(row, in_one_line=True))
            separator = ",\n"
    show.line("]" if separator != "[" else "[]")


def _print_table(reader: Any, table: str, tables: list[str]) -> None:
    first: list[dict[str, Any]] = []
    total = 0
    for batch in reader:
        total += batch.num_rows
        room = _MOST_ROWS - len(first)
        if room > 0:
            first += batch.slice(0, room).to_pylist()
    names = list(reader.schema.names)
    shown = _fitting(names)
    show.table(first, shown, as_named=True)
    more = [f"{total - len(first)} more rows"] if total > len(first) else []
    more += [f"{len(names) - len(shown)} more columns"] if len(names) > len(shown) else []
    if more:
        show.note(f"{' and '.join(more)}: --columns picks some, --to FILE writes all.")
    others = [name for name in tables if name != table]
    if others:
        show.note(f"Other tables: {', '.join(others)}")


def _fitting(names: list[str]) -> list[str]:
    """Return the columns for which a terminal has room: the first, and the last, the outputs."""
    import shutil

    most = max(2, shutil.get_terminal_size().columns // 11)
    if len(names) <= most:
        return names
    last = most // 2
    return [*itertools.islice(names, most - last), *names[-last:]]
