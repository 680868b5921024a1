"""The health of a stack and its parts."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from scythe.stack.connection import BUCKET, addresses
from scythe.stack.files import is_locked, tail
from scythe.stack.paths import ENGINE, HOST, PARTS, POSTGRES, S3, Layout, layout_of
from scythe.stack.ports import http_status, speaks_http2
from scythe.stack.programs import POSTGRES_PROGRAMS, base_environment, postgres_folders
from scythe.stack.state import PORTS_OF, State, read_state

_OK, _FORBIDDEN = 200, 403


class Health(StrEnum):
    """Health of a part, or of the whole stack."""

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
        log: Its log file.
        pid: Its process, if it runs.
        address: Where it listens.
        started: When it was started, in seconds since the epoch.
        version: What runs, or ran, there.
        log_end: The last lines of its log, if something is wrong.
    """

    name: str
    health: Health
    log: Path
    pid: int | None = None
    address: str | None = None
    started: float | None = None
    version: str | None = None
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
    at = addresses(state.ports)
    return StackStatus(
        home=layout.home,
        health=_overall({part.health for part in parts}, busy),
        parts=parts,
        api_url=at.get("api"),
        grpc=at.get("grpc"),
        s3_url=at.get("s3"),
        bucket=BUCKET,
    )


def _part(layout: Layout, state: State, name: str, busy: bool) -> PartStatus:
    record = state.parts.get(name)
    log = layout.log(name)
    if record is None:
        return PartStatus(name, Health.STOPPED, log)
    health = Health.DIED
    if state.alive(name):
        waiting = Health.STARTING if busy and not state.ready else Health.SILENT
        health = waiting if obstacle(layout, state.ports, name) else Health.RUNNING
    ports = {port: state.ports[port] for port in PORTS_OF[name] if port in state.ports}
    end = ""
    if health in {Health.DIED, Health.SILENT}:
        end = tail(log, start=record.log_start, hide=state.keys.all()) or "(empty)"
    return PartStatus(
        name=name,
        health=health,
        log=log,
        pid=None if health is Health.DIED else record.pid,
        address=", ".join(f"{HOST}:{number} ({port})" for port, number in ports.items())
        or str(layout.sockets),
        started=record.started,
        version=record.version,
        log_end=end,
    )


def obstacle(layout: Layout, ports: dict[str, int], part: str) -> str | None:
    """Return what keeps a part that runs from answering, or None if it answers."""
    if part == POSTGRES:
        argv = [postgres_folders()[0] / POSTGRES_PROGRAMS / "pg_isready", "-h", layout.sockets]
        done = subprocess.run(argv, env=base_environment(), capture_output=True, check=False)
        return "it does not take connections" if done.returncode else None
    if not ports.keys() >= set(PORTS_OF[part]):
        return "its ports are not known"
    at = addresses(ports)
    if part == ENGINE and http_status(ports["api"], "/api/ready") != _OK:
        return f"GET {at['api']}/api/ready does not answer with {_OK}"
    if part == ENGINE and not speaks_http2(ports["grpc"]):
        return f"no gRPC server answers at {at['grpc']}"
    if part == S3 and http_status(ports["s3"], "/") != _FORBIDDEN:
        return f"an unsigned GET of {at['s3']} is not answered with {_FORBIDDEN}"
    return None


def _overall(found: set[Health], busy: bool) -> Health:
    for worst in (Health.DIED, Health.SILENT):
        if worst in found:
            return worst
    if len(found) == 1 and (Health.RUNNING in found or not busy):
        return found.pop()
    # Some run, others were never started: an `up` that was killed, or one that is at it.
    return Health.STARTING if busy else Health.DIED
