"""Commands that stop handing out leaves for a while: `pause`, `resume`."""

from __future__ import annotations

import typer

from scythe.catalog import open_run
from scythe.commands import show
from scythe.commands.base import Json, add
from scythe.commands.cancelling import RunArgument


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for function in (pause, resume):
        add(app, function)


def pause(run: RunArgument, json: Json = False) -> None:
    """Let no further leaf of a run begin. Those that run go on to their end."""
    found = open_run(run)
    status = found.pause()
    if json:
        show.line(show.as_json(status))
    elif status.is_over:
        show.line(f"It is over. {status}")
    else:
        show.line(f"Paused {found.experiment_id}. Go on: scythe resume {found.experiment_id}")


def resume(run: RunArgument, json: Json = False) -> None:
    """Let a paused run go on."""
    found = open_run(run)
    before = found.last_status()
    status = found.resume()
    if json:
        show.line(show.as_json(status))
    elif before.is_over:
        show.line(f"It is over. {status}")
    elif before.state != "paused":
        show.line(f"It was not paused. {status}")
    else:
        show.line(f"Resumed {found.experiment_id}. Watch it: scythe watch {found.experiment_id}")
