"""What a stack remembers between commands: its ports, its processes, its keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from scythe.errors import StackError
from scythe.processes.identity import ProcessRecord
from scythe.stack.files import read_json, write_json
from scythe.stack.paths import ENGINE, PARTS, POSTGRES, S3, Layout

_FORMAT = 2
_OLD_FORMAT = 1  # its S3 server was another one
_OLD_FIELDS = {"format", "ports", "parts", "ready", "schema"}
_FIELDS = {_OLD_FORMAT: _OLD_FIELDS, _FORMAT: _OLD_FIELDS | {"keys"}}
PORTS_OF = {POSTGRES: (), ENGINE: ("api", "grpc"), S3: ("s3",)}


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
    token: str = ""
    token_for: str = ""

    def all(self) -> tuple[str, ...]:
        """Return everything that must not be shown."""
        return (self.secret_key, *self.cookies.split(), self.token)


@dataclass(frozen=True)
class State:
    """The state of one stack.

    Attributes:
        ports: A port for each name in `PORTS_OF`, once they are chosen.
        parts: The parts that were started and not stopped.
        ready: Whether all of them have answered since.
        schema: The engine version for which the database was prepared.
        keys: The keys, once there are any.
        old: Whether it was written by a Scythe with another S3 server.
    """

    ports: dict[str, int] = field(default_factory=dict[str, int])
    parts: dict[str, PartRecord] = field(default_factory=dict[str, PartRecord])
    ready: bool = False
    schema: str | None = None
    keys: Secrets | None = None
    old: bool = False

    def alive(self, part: str) -> bool:
        """Return whether a part runs."""
        record = self.parts.get(part)
        return record is not None and record.process.is_alive()

    def runs(self) -> bool:
        """Return whether every part runs and has answered."""
        return self.ready and all(self.alive(part) for part in PARTS)

    def without(self, *parts: str) -> State:
        """Return the state after parts have ended."""
        left = {name: record for name, record in self.parts.items() if name not in parts}
        return replace(self, parts=left, ready=False)


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
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise StackError(
            f"{layout.state_file} cannot be used: {err}. Stop the stack with the version of Scythe "
            "that started it, or start anew with `scythe dev reset`."
        ) from err


def is_own_state(layout: Layout) -> bool:
    """Return whether Scythe has written the state file: one of before the marker, or without it."""
    try:
        found = read_json(layout.state_file) or {}
    except StackError:
        return False
    return any(found.keys() == names and found["format"] == n for n, names in _FIELDS.items())


def _state(found: dict[str, Any]) -> State:
    if found["format"] not in {_FORMAT, _OLD_FORMAT}:
        raise ValueError(f"it has format {found['format']}, not {_FORMAT}")
    keys = found.get("keys")
    return State(
        ports={name: _between(1, port, 2**16, "port") for name, port in found["ports"].items()},
        parts={name: _part(found["parts"][name]) for name in PARTS if name in found["parts"]},
        ready=bool(found["ready"]),
        schema=None if found["schema"] is None else str(found["schema"]),
        keys=Secrets(**{name: str(value) for name, value in keys.items()}) if keys else None,
        old=found["format"] == _OLD_FORMAT,
    )


def _between(lowest: int, value: Any, limit: int, what: str) -> int:
    number = int(value)
    if not lowest <= number < limit:
        raise ValueError(f"{number} is not a {what}")
    return number


def _part(value: Any) -> PartRecord:
    fields = cast("dict[str, Any]", value)
    return PartRecord(
        process=ProcessRecord(_between(1, fields["pid"], 2**31, "process"), str(fields["birth"])),
        started=float(fields["started"]),
        version=str(fields["version"]),
        log_start=_between(0, fields["log_start"], 2**63, "position"),
    )


def write_state(layout: Layout, state: State) -> None:
    """Remember the state of a stack, in a file of mode 0600."""
    value = asdict(state)
    value["format"] = _OLD_FORMAT if value.pop("old") else _FORMAT
    for record in value["parts"].values():
        record.update(record.pop("process"))
    write_json(layout.state_file, value)


def new_secrets() -> Secrets:
    """Make the keys of a new stack."""
    import secrets

    return Secrets(
        access_key=f"SCYTHE{secrets.token_hex(7).upper()}",
        secret_key=secrets.token_urlsafe(30),
        cookies=f"{secrets.token_hex(8)} {secrets.token_hex(8)}",
    )
