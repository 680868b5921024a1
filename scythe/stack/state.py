"""What a stack remembers between commands: its ports, its processes, its keys."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

from scythe.errors import StackError
from scythe.processes.identity import ProcessRecord
from scythe.stack.files import read_json, write_json
from scythe.stack.paths import PARTS, Layout

FORMAT = 1
ENGINE_PORTS = ("api", "grpc")
S3_PORTS = (
    "s3",
    "s3_grpc",
    "filer",
    "filer_grpc",
    "master",
    "master_grpc",
    "volume",
    "volume_grpc",
)


@dataclass(frozen=True)
class PartRecord:
    """A part that was started and not stopped.

    Attributes:
        process: Its process.
        started: When it was started, in seconds since the epoch.
        version: What runs there, to notice that the installed one is another.
        log_start: Where its output begins in its log file, in bytes.
    """

    process: ProcessRecord
    started: float
    version: str
    log_start: int


@dataclass(frozen=True)
class State:
    """The state of one stack.

    Attributes:
        ports: A port for each name in `ENGINE_PORTS` and `S3_PORTS`, once they are chosen.
        parts: The parts that were started and not stopped.
        ready: Whether all of them have answered since.
        schema: The engine version for which the database was prepared.
    """

    ports: dict[str, int] = field(default_factory=dict[str, int])
    parts: dict[str, PartRecord] = field(default_factory=dict[str, PartRecord])
    ready: bool = False
    schema: str | None = None

    def alive(self, part: str) -> bool:
        """Return whether a part runs.

        Args:
            part: One of `PARTS`.
        """
        record = self.parts.get(part)
        return record is not None and record.process.is_alive()

    def runs(self) -> bool:
        """Return whether every part runs and has answered."""
        return self.ready and all(self.alive(part) for part in PARTS)

    def without(self, part: str) -> State:
        """Return the state after a part has ended."""
        parts = {name: record for name, record in self.parts.items() if name != part}
        return replace(self, parts=parts, ready=False)


@dataclass(frozen=True, repr=False)
class Secrets:
    """The keys of one stack.

    Attributes:
        access_key: Name of the S3 key.
        secret_key: The S3 key.
        cookies: Two keys with which the engine's API seals its cookies.
        token: The client token, once there is one.
        token_for: The addresses that the token holds.
    """

    access_key: str
    secret_key: str
    cookies: str
    token: str | None = None
    token_for: str | None = None

    def all(self) -> tuple[str, ...]:
        """Return everything that must not be shown."""
        return (self.secret_key, *self.cookies.split(), self.token or "")


def read_state(layout: Layout) -> State | None:
    """Return the state of a stack, or None if there is none in this folder.

    Raises:
        StackError: The state file is damaged or from another version of Scythe.
    """
    found = read_json(layout.state_file)
    if found is None:
        return None
    try:
        return _state(found)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise StackError(
            f"{layout.state_file} cannot be used: {err}. Stop the stack with the version of Scythe "
            "that started it, or start anew with `scythe dev reset`."
        ) from err


def _state(found: dict[str, Any]) -> State:
    if found["format"] != FORMAT:
        raise ValueError(f"it has format {found['format']}, not {FORMAT}")
    return State(
        ports={str(name): int(port) for name, port in found["ports"].items()},
        parts={str(name): _part(value) for name, value in found["parts"].items()},
        ready=bool(found["ready"]),
        schema=found["schema"],
    )


def _part(value: Any) -> PartRecord:
    fields = cast("dict[str, Any]", value)
    return PartRecord(
        process=ProcessRecord(int(fields["pid"]), str(fields["birth"])),
        started=float(fields["started"]),
        version=str(fields["version"]),
        log_start=int(fields["log_start"]),
    )


def write_state(layout: Layout, state: State) -> None:
    """Remember the state of a stack."""
    parts = {
        name: {
            "pid": record.process.pid,
            "birth": record.process.birth,
            "started": record.started,
            "version": record.version,
            "log_start": record.log_start,
        }
        for name, record in state.parts.items()
    }
    write_json(
        layout.state_file,
        {
            "format": FORMAT,
            "ports": state.ports,
            "parts": parts,
            "ready": state.ready,
            "schema": state.schema,
        },
    )


def read_secrets(layout: Layout) -> Secrets | None:
    """Return the keys of a stack, or None if it has none yet.

    Raises:
        StackError: The file is damaged.
    """
    found = read_json(layout.secrets_file)
    if found is None:
        return None
    try:
        return Secrets(**found)
    except TypeError as err:
        raise StackError(
            f"{layout.secrets_file} is damaged. `scythe dev reset` starts anew."
        ) from err


def write_secrets(layout: Layout, keys: Secrets) -> None:
    """Remember the keys of a stack, in a file of mode 0600."""
    write_json(
        layout.secrets_file,
        {
            "access_key": keys.access_key,
            "secret_key": keys.secret_key,
            "cookies": keys.cookies,
            "token": keys.token,
            "token_for": keys.token_for,
        },
    )


def new_secrets() -> Secrets:
    """Make the keys of a new stack."""
    import secrets

    return Secrets(
        access_key=f"SCYTHE{secrets.token_hex(7).upper()}",
        secret_key=secrets.token_urlsafe(30),
        cookies=f"{secrets.token_hex(8)} {secrets.token_hex(8)}",
    )
