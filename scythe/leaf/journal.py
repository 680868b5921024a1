"""The journal of a batch: the outcome of each leaf, on local disk before the next leaf begins.

The process that runs the batch writes it. If that process dies, the journal has the leaves that had
ended and the one that was running. A line has one leaf, or one part of the results that is stored
in the bucket.

The file is memory-mapped, which outlives the process without a system call per leaf. Its header has
the length that is valid, and is written after each line.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import struct
import time
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from pydantic_core import to_json

from scythe.errors import ScytheError
from scythe.messages import LeafRecord
from scythe.outcomes import FailureKind, LeafFailure, LeafResult, LeafStats
from scythe.texts import printable

# Header: the valid length, and the deadline of the current step (monotonic clock).
_HEAD = struct.Struct("qd")
_END = struct.Struct("q")
_LATE = struct.Struct("d")
# References from before user code runs, which may replace these functions.
_open = os.open
_close = os.close
_write = os.write
_fstat = os.fstat
_exists = os.path.exists
_make_folders = os.makedirs
_now = time.monotonic
_dumps = json.dumps
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_GROWTH = 256 * 1024  # bytes
_PART = b"{"  # first byte of a part; the line of a leaf begins with a bracket
_STATS = attrgetter(*LeafStats.__slots__)
_STORE_LIMIT = 300.0  # seconds to write the results of many leaves to the bucket


@dataclass(frozen=True, slots=True)
class Part:
    """Results that are in the bucket.

    Attributes:
        key: The object in the bucket that holds them.
        n_leaves: Number of leaves.
        n_failed: Number of leaves among them that failed.
        seconds: The summed run time of these leaves.
    """

    key: str
    n_leaves: int
    n_failed: int
    seconds: float


class Journal:
    """A journal that is being written.

    Args:
        path: The file.
        text: The lines of the process that ran the batch before this one.
    """

    def __init__(self, path: Path, text: bytes = b"") -> None:
        self._path = path
        self._size = 0
        self._end = _HEAD.size
        path.unlink(missing_ok=True)
        self._memory = self._grown(_HEAD.size + len(text))
        self.begin()
        self._append(text)

    def begin(self, limit: float = _STORE_LIMIT) -> None:
        """Record that a step begins, with a deadline in `limit` seconds."""
        _LATE.pack_into(self._memory, _END.size, _now() + limit)

    def add(self, record: LeafRecord) -> None:
        """Write the outcome of a leaf."""
        self._append(write_line(record))

    def add_part(self, part: Part) -> None:
        """Record that the leaves since the last part are stored."""
        self._append(_json(asdict(part)))

    def keep(self) -> None:
        """Write the file again if a leaf or a cleaner has removed it."""
        if not _exists(self._path):
            self._memory = self._grown(self._size)

    @property
    def end(self) -> int:
        """Position of the next line, see `text`."""
        return self._end

    def text(self, end: int | None = None) -> bytes:
        """Return all lines, or those before `end`.

        Opens nothing, because the process may have no free file descriptor.
        """
        return self._memory[_HEAD.size : end or self._end]

    def _append(self, text: bytes) -> None:
        end = self._end + len(text)
        if end > self._size:
            self._memory = self._grown(end)
        self._memory[self._end : end] = text
        self._end = end
        _END.pack_into(self._memory, 0, end)

    def _grown(self, least: int) -> mmap.mmap:
        """Map the file again, with at least this size. A leaf may close all files, so reopen it."""
        try:
            file = _open(self._path, _FLAGS, 0o600)
        except FileNotFoundError:
            _make_folders(self._path.parent, 0o700, exist_ok=True)
            file = _open(self._path, _FLAGS, 0o600)
        try:
            there = _fstat(file).st_size
            known = self._memory[there:] if self._size > there else b""
            more = known + bytes(max(_GROWTH, least - self._size) if least > self._size else 0)
            # Write first: a full disk is an error here, and SIGBUS in mapped memory.
            rest = memoryview(more)
            while rest:
                rest = rest[_write(file, rest) :]
            self._size = there + len(more)
            return mmap.mmap(file, self._size)
        finally:
            _close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._memory.close()
        # After a failure, the process that started this one continues from the file.
        if kind is None or issubclass(kind, ScytheError):
            self._path.unlink(missing_ok=True)


def read_journal(path: Path) -> bytes | None:
    """Return the lines that a process has left; None if it had not begun its batch."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    text = data[_HEAD.size : _HEAD.unpack_from(data)[0]] if len(data) >= _HEAD.size else b""
    return text[: text.rfind(b"\n") + 1]


def time_left(path: Path) -> float | None:
    """Return the seconds until the deadline of the current step; None if none has begun."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
    except OSError:
        return None
    late = _HEAD.unpack(head)[1] if len(head) == _HEAD.size else 0.0
    return late - time.monotonic() if late else None


def count_leaves(text: bytes) -> int:
    """Return the number of leaves that have ended by the lines of a journal."""
    parts, records = _split(text)
    return sum(part.n_leaves for part in parts) + len(records)


def read_lines(text: bytes) -> tuple[list[Part], list[LeafRecord]]:
    """Read the lines of a journal: stored parts, and the leaves after them."""
    parts, lines = _split(text)
    return parts, [_read_line(line) for line in lines]


def _split(text: bytes) -> tuple[list[Part], list[bytes]]:
    lines = text.splitlines()
    parts = [number for number, line in enumerate(lines) if line.startswith(_PART)]
    stored = [Part(**json.loads(lines[number])) for number in parts]
    return stored, lines[parts[-1] + 1 if parts else 0 :]


def write_line(record: LeafRecord) -> bytes:
    """Encode the outcome of a leaf as one line."""
    outcome = record.outcome
    common = (record.attempts, record.workflow_run_id, _STATS(outcome.stats))
    if isinstance(outcome, LeafFailure):
        texts = (outcome.type, outcome.message, outcome.traceback)
        return _json((*common, None, outcome.log, outcome.kind.value, *map(printable, texts)))
    if not (outcome.log or outcome.files or outcome.tables or outcome.scalars_key):
        return _json((*common, outcome.scalars))
    more = (outcome.log, outcome.files, _write_tables(outcome.tables), outcome.scalars_key)
    return _json((*common, outcome.scalars, *more))


def _json(values: Any) -> bytes:
    try:
        return to_json(values) + b"\n"
    except ValueError:  # a lone surrogate
        return _dumps(values).encode() + b"\n"


def _write_tables(tables: dict[str, bytes | str]) -> dict[str, list[str]]:
    return {
        name: ["b64", base64.b64encode(data).decode()] if isinstance(data, bytes) else ["key", data]
        for name, data in tables.items()
    }


def _read_line(line: bytes) -> LeafRecord:
    attempts, run_id, numbers, scalars, *more = json.loads(line)
    stats = LeafStats(*numbers)
    if scalars is None:
        log, kind, *texts = more
        failure = LeafFailure(FailureKind(kind), *texts, stats=stats, log=log)
        return LeafRecord(failure, attempts, run_id)
    log, files, written, key = more or ("", {}, {}, None)
    tables = {
        name: base64.b64decode(data) if form == "b64" else data
        for name, (form, data) in written.items()
    }
    return LeafRecord(LeafResult(scalars, files, tables, stats, key, log), attempts, run_id)


def with_failure(text: bytes, failure: LeafFailure, attempts: int, run_id: str) -> bytes:
    """Append the failure of a leaf that ended its process or was killed."""
    short = replace(failure, traceback=failure.traceback[-8000:])
    return text + write_line(LeafRecord(short, attempts, run_id))
