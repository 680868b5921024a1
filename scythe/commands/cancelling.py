"""Commands that end runs: `cancel`, `rm`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from scythe.catalog import open_run, users_of
from scythe.commands import show
from scythe.commands.base import ExitCode, Json, add
from scythe.durations import parse_duration
from scythe.errors import RunGoesOnError, SettingsError

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="An id, EXPERIMENT or EXPERIMENT@v1.2.0.")
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for function in (cancel, rm):
        add(app, function)


def cancel(
    run: RunArgument,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="How long running leaves may go on: 90s, 5m.")
    ] = "0s",
    json: Json = False,
) -> None:
    """Stop a run and keep what is done."""
    try:
        allowed = parse_duration(grace)
    except ValueError as error:
        raise SettingsError(f"--grace {error}, got {grace!r}.") from None
    found = open_run(run)
    before = found.last_status()
    if not before.is_over:
        show.note(f"Stopping {found.experiment_id}; its leaves are gathered.")
    status = found.cancel(allowed)
    if json:
        show.line(show.as_json(status))
    elif before.is_over:
        show.line(f"It was over before. {status}")
    else:
        show.line(str(status))
        if status.failed:
            show.note(f"Run the missing leaves: scythe retry {found.experiment_id} --missing")


def rm(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> int:
    """Delete a run with all its tables and files.

    One that is going, or whose leaves other runs use, is refused.
    """
    found = open_run(run)
    name = found.experiment_id
    users = users_of(found)
    if users:
        raise RunGoesOnError(
            f"Run {name} is not deleted: {', '.join(users)} {'use' if users[1:] else 'uses'} its "
            "leaves. Delete these first."
        )
    status = found.last_status()
    if not status.is_over:
        status = found.status()
    if not yes and status.is_over and not _agreed(name, status.total):
        show.note("Nothing was deleted.")
        return ExitCode.WRONG_USE
    found.delete()
    show.line(show.as_json({"deleted": name}) if json else f"Deleted {name}.")
    return ExitCode.GOOD


def _agreed(name: str, leaves: int) -> bool:
    if not sys.stdin.isatty():
        raise SettingsError(f"`scythe rm` deletes {name} for good: add --yes to do it.")
    sys.stdout.write(f"Delete {name} with the results of {leaves} leaves? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
