"""The command that lists the connected workers, and drains them: `workers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scythe.catalog import short_id
from scythe.commands import show
from scythe.commands.base import Json, add
from scythe.errors import SettingsError
from scythe.scatter.models import NODE_TASK

if TYPE_CHECKING:
    from scythe.engine.lookup import ConnectedWorker

_TITLES = {NODE_TASK: "scatter nodes"}


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    add(app, workers)


def workers(
    drain: Annotated[
        str | None, typer.Option(metavar="NAME", help="Give this worker no further leaves.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Give it leaves again.")
    ] = None,
    json: Json = False,
) -> None:
    """List the connected workers, or drain one."""
    from scythe.engine.lookup import connected_workers

    if drain is not None and resume is not None:
        raise SettingsError("Give either --drain or --resume, not both.")
    found = sorted(connected_workers(), key=lambda one: one.name)
    name = drain if drain is not None else resume
    if name is not None:
        _set_paused(name, found, paused=drain is not None, json=json)
        return
    rows = [_row(one) for one in found]
    if json:
        show.line(show.as_json(rows))
    elif not rows:
        show.note("No worker is connected. Start one: python main.py")
    else:
        texts = [
            {
                **row,
                "labels": _pairs(row["labels"]),
                "serves": ", ".join(row["serves"]),
                "code": _pairs(row["code"]),
            }
            for row in rows
        ]
        show.table(texts, [*rows[0]], whole=("worker",))


def _pairs(values: Mapping[str, Any]) -> str | None:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or None


def _row(worker: ConnectedWorker) -> dict[str, Any]:
    return {
        "worker": worker.name,
        "state": "paused" if worker.is_paused else "active",
        "slots": worker.slots,
        "running": worker.slots - worker.free_slots,
        "labels": dict(sorted(worker.labels.items())),
        "serves": sorted(_TITLES.get(task, short_id(task)) for task in worker.tasks),
        "code": {short_id(name): code for name, code in sorted(worker.codes.items())},
    }


def _set_paused(name: str, found: Sequence[ConnectedWorker], *, paused: bool, json: bool) -> None:
    """Drain or resume the Hatchet workers of a worker."""
    from scythe.engine.lookup import set_paused

    meant = named_workers(name, found)
    for one in meant:
        set_paused(one.id, paused=paused)
    running = sum(one.slots - one.free_slots for one in meant)
    names = [one.name for one in meant]
    if json:
        verb = "drained" if paused else "resumed"
        show.line(show.as_json({verb: names, "running": running}))
    elif paused:
        show.line(f"Drained {', '.join(names)}, where {running} slots are taken.")
        show.note(f"Undo it: scythe workers --resume {name}")
    else:
        show.line(f"Resumed {', '.join(names)}.")


def named_workers(name: str, found: Sequence[ConnectedWorker]) -> list[ConnectedWorker]:
    """Return the Hatchet workers of a worker that serve leaves, or the one of exactly that name.

    Raises:
        SettingsError: There is none; the message names those that are there.
    """
    own = [one for one in found if one.name == name or one.name.startswith(f"{name}--")]
    meant = [one for one in own if one.tasks - {NODE_TASK}]
    meant = meant or [one for one in own if one.name == name]
    if not meant:
        known = ", ".join(one.name for one in found)
        raise SettingsError(
            f"No worker {name!r} is connected. "
            + (f"There are {known}." if known else "None is: python main.py starts one.")
        )
    return meant
