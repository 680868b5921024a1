"""What runs, where, and what has died."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from scythe.stack.connection import BUCKET, api_url, grpc_address, s3_url
from scythe.stack.files import tail
from scythe.stack.locks import is_locked
from scythe.stack.paths import HOST, PARTS, POSTGRES, Layout, layout_of
from scythe.stack.ports import answers
from scythe.stack.postgres import postgres_obstacle
from scythe.stack.state import PORTS_OF, State, read_state


class Health(StrEnum):
    """How a part, or the whole stack, is."""

    RUNNING = "running"
    STARTING = "starting"
    SILENT = "not answering"
    DIED = "died"
    STOPPED = "stopped"


@dataclass(frozen=True)
class PartStatus:
    """One part of the stack.

    Attributes:
        name: `postgres`, `engine` or `s3`.
        health: How it is.
        pid: Its process, if it runs.
        address: Where it listens.
        started: When it was started, in seconds since the epoch.
        version: What runs, or ran, there.
        log: Its log file.
        log_end: The last lines of that file, if something is wrong.
    """

    name: str
    health: Health
    pid: int | None
    address: str | None
    started: float | None
    version: str | None
    log: Path
    log_end: str = ""


@dataclass(frozen=True)
class StackStatus:
    """The whole stack.

    Attributes:
        home: The data folder.
        health: The worst of the parts.
        parts: The parts.
        api_url: Address of the engine's REST API, once ports are chosen.
        grpc: Address for Hatchet's clients and workers.
        s3_url: Address of the S3 server.
        bucket: The bucket.
    """

    home: Path
    health: Health
    parts: tuple[PartStatus, ...]
    api_url: str | None
    grpc: str | None
    s3_url: str | None
    bucket: str


def status(home: Path | None = None) -> StackStatus:
    """Say what of the local stack runs.

    Args:
        home: The data folder; by default `SCYTHE_DEV_HOME`, else the user's own.

    Raises:
        StackError: The state file is damaged.
    """
    layout = layout_of(home)
    state = read_state(layout) or State()
    busy = is_locked(layout.marker)
    parts = tuple(_part(layout, state, name, busy) for name in PARTS)
    ports = state.ports
    return StackStatus(
        home=layout.home,
        health=_overall(parts, busy),
        parts=parts,
        api_url=api_url(ports) if "api" in ports else None,
        grpc=grpc_address(ports) if "grpc" in ports else None,
        s3_url=s3_url(ports) if "s3" in ports else None,
        bucket=BUCKET,
    )


def _part(layout: Layout, state: State, name: str, busy: bool) -> PartStatus:
    record = state.parts.get(name)
    if record is None:
        return PartStatus(name, Health.STOPPED, None, None, None, None, layout.log(name))
    health = _health(layout, state, name, busy)
    alive = health is not Health.DIED
    end = ""
    if health in {Health.DIED, Health.SILENT}:
        hide = state.keys.all() if state.keys else ()
        end = tail(layout.log(name), start=record.log_start, hide=hide) or "(empty)"
    return PartStatus(
        name=name,
        health=health,
        pid=record.process.pid if alive else None,
        address=_address(layout, state, name),
        started=record.started,
        version=record.version,
        log=layout.log(name),
        log_end=end,
    )


def _health(layout: Layout, state: State, name: str, busy: bool) -> Health:
    if not state.alive(name):
        return Health.DIED
    if name == POSTGRES:
        fine = postgres_obstacle(layout) is None
    else:
        fine = all(answers(state.ports[port]) for port in PORTS_OF[name] if port in state.ports)
    if fine:
        return Health.RUNNING
    return Health.STARTING if busy and not state.ready else Health.SILENT


def _address(layout: Layout, state: State, name: str) -> str:
    if name == POSTGRES:
        return str(layout.sockets)
    ports = {port: state.ports[port] for port in PORTS_OF[name] if port in state.ports}
    return ", ".join(f"{HOST}:{number} ({port})" for port, number in ports.items())


def _overall(parts: tuple[PartStatus, ...], busy: bool) -> Health:
    found = {part.health for part in parts}
    if Health.DIED in found:
        return Health.DIED
    if Health.SILENT in found:
        return Health.SILENT
    if found == {Health.RUNNING}:
        return Health.RUNNING
    if busy:
        return Health.STARTING
    # Some run, others were never started: an `up` that was killed.
    return Health.STOPPED if found == {Health.STOPPED} else Health.DIED
