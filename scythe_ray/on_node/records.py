"""Which leaf a process runs now: one small file for each process that runs leaves on a Ray node.

The process writes it, and the node agent reads it before it signals the process. Neither acts on
the other's leaf: whoever ends a leaf holds the file's lock from the last read until the process is
dead, and a process that has finished a leaf takes the lock before it takes the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scythe.errors import ScytheError

RECORD = ".leaf"
TRACE = ".trace"
LOG = ".log"
CANCELLED = ".cancelled"
JOURNAL = ".journal"
_BLOCK = 1024
_LOCK_WAIT = 60.0
_POLL = 0.001

# References from before user code runs, which may replace these functions.
_dumps = json.dumps
_loads = json.loads
_pread = os.pread
_pwrite = os.pwrite
_now = time.monotonic
_flock = fcntl.flock
_crc = zlib.crc32

State = Literal["importing", "running", "ending", "done"]


class RecordError(ScytheError):
    """The record file cannot be used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The content of a record file.

    Attributes:
        token: The submission of the leaf, unique.
        pid: The process.
        birth: The start of the process, see `scythe.processes.identity`.
        started: When the state began, by the host's monotonic clock; the time limit counts from it.
        mark: The mark in the environment of all processes that the leaf starts.
        folder: Parent of the leaf's temporary folder.
        state: Whether its code is being imported, it runs, is being ended, or has ended.
    """

    token: str
    pid: int
    birth: str
    started: float
    mark: str
    folder: str
    state: State = "importing"

    @property
    def elapsed(self) -> float:
        """Seconds since the leaf began; valid only on its host."""
        return _now() - self.started

    def with_state(self, state: State) -> Entry:
        """Return the same leaf in another state; only `running` restarts the clock."""
        started = _now() if state == "running" else self.started
        return replace(self, state=state, started=started)


def leaf_folder(session_dir: str, driver_id: str) -> Path:
    """Return the folder of a driver's records on this node, which is the same for all processes.

    Args:
        session_dir: Ray's session folder on the driver's node.
        driver_id: The unguessable id of the driver.
    """
    base = Path(session_dir)
    return (base if base.is_dir() else Path(tempfile.gettempdir())) / f"scythe-{driver_id}"


def private_folder(folder: Path) -> Path:
    """Create the folder if needed, and check that no other user can use it.

    Raises:
        RecordError: It cannot be created, or belongs to another user.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise RecordError(
            f"{folder} cannot be created ({error}). Free some space there."
        ) from error
    if owner != os.geteuid():
        raise RecordError(
            f"{folder} belongs to user {owner}, not to this process's user. Remove it."
        )
    return folder


def read_entry(descriptor: int) -> Entry | None:
    """Read a record; None if it is empty or being written."""
    for _ in range(5):
        checksum, _, text = _pread(descriptor, _BLOCK, 0).rstrip(b"\0").partition(b" ")
        if not text:
            return None
        if checksum == _checksum(text):
            return Entry(*_loads(text))
        time.sleep(_POLL)  # it is being written
    return None


def write_entry(descriptor: int, entry: Entry) -> None:
    """Write a record; the caller holds its lock."""
    place = (entry.token, entry.pid, entry.birth, entry.started, entry.mark, entry.folder)
    text = _dumps([*place, entry.state]).encode()
    _pwrite(descriptor, b"%b %b" % (_checksum(text), text.ljust(_BLOCK - 9, b"\0")), 0)


@contextmanager
def locked(descriptor: int) -> Generator[None]:
    """Hold a record's lock.

    Raises:
        RecordError: Another process held the lock for a minute.
    """
    deadline = _now() + _LOCK_WAIT
    while not try_lock(descriptor):
        if _now() > deadline:
            raise RecordError("The record of a leaf stayed locked for a minute. Try again.")
        time.sleep(_POLL)
    try:
        yield
    finally:
        _flock(descriptor, fcntl.LOCK_UN)


def try_lock(descriptor: int) -> bool:
    """Take a record's lock if it is free."""
    try:
        _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _checksum(text: bytes) -> bytes:
    return b"%08x" % _crc(text)
