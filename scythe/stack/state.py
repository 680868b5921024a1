"""The memory of a stack between commands: its ports, its processes, its keys."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from secrets import token_hex, token_urlsafe
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from scythe.errors import StackError
from scythe.processes.identity import ProcessRecord
from scythe.stack.files import write_whole
from scythe.stack.paths import ENGINE, PARTS, POSTGRES, S3, Layout

OLD_FORMAT = 1  # its S3 server was another one
PORTS_OF = {POSTGRES: (), ENGINE: ("api", "grpc"), S3: ("s3",)}
_REQUIRED = {"format", "ports", "parts", "ready", "schema"}


@dataclass(frozen=True)
class PartRecord(ProcessRecord):
    """The process of a part that was started and not stopped.

    Attributes:
        started: When it was started, in seconds since the epoch.
        version: What runs there, to notice that the installed one is another.
        log_start: Where its output begins in its log file, in bytes.
    """

    pid: Annotated[int, Field(ge=1, lt=2**31)]
    started: float
    version: str
    log_start: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, repr=False)
class Secrets:
    """The keys of one stack, new ones by default.

    Attributes:
        access_key: Name of the S3 key.
        secret_key: The S3 key.
        cookies: Two keys with which the engine's API seals its cookies.
        token: The client token, once there is one.
        token_for: The addresses that the token holds.
    """

    access_key: str = field(default_factory=lambda: f"SCYTHE{token_hex(7).upper()}")
    secret_key: str = field(default_factory=lambda: token_urlsafe(30))
    cookies: str = field(default_factory=lambda: f"{token_hex(8)} {token_hex(8)}")
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
        keys: The keys.
        format: Of the file.
    """

    ports: dict[str, Annotated[int, Field(ge=1, lt=2**16)]] = field(default_factory=dict[str, int])
    parts: dict[str, PartRecord] = field(default_factory=dict[str, PartRecord])
    ready: bool = False
    schema: str | None = None
    # An earlier Scythe wrote null where it had none yet.
    keys: Annotated[Secrets, BeforeValidator(lambda found: found or Secrets())] = field(
        default_factory=Secrets
    )
    format: Literal[1, 2] = 2

    def alive(self, part: str) -> bool:
        """Return whether a part runs."""
        return part in self.parts and self.parts[part].is_alive()

    def runs(self) -> bool:
        """Return whether every part runs and has answered."""
        return self.ready and all(self.alive(part) for part in PARTS)

    def without(self, *parts: str) -> State:
        """Return the state after parts have ended."""
        left = {name: record for name, record in self.parts.items() if name not in parts}
        return replace(self, parts=left, ready=False)


_FILE = TypeAdapter(State)


def read_state(layout: Layout) -> State | None:
    """Return the state of a stack, or None if there is none in this folder.

    Raises:
        StackError: The state file is damaged or from another version of Scythe.
    """
    try:
        return _FILE.validate_json(layout.state_file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as err:
        first = err.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    except OSError as err:
        why = err.strerror
    raise StackError(
        f"{layout.state_file} cannot be used: {why}. Stop the stack with the version of Scythe "
        "that started it, or start anew with `scythe dev reset`."
    )


def is_own_state(layout: Layout) -> bool:
    """Return whether Scythe has written the state file: one of before the marker, or without it."""
    try:
        found = json.loads(layout.state_file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= _REQUIRED


def write_state(layout: Layout, state: State) -> None:
    """Remember the state of a stack, in a file of mode 0600."""
    write_whole(layout.state_file, _FILE.dump_json(state, indent=1))
