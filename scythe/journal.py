"""The journal of a batch: what came of each leaf, on the disk of the node before the next begins.

The process that runs the batch writes it. Should the process end, its leaves that are over are
known from it, and so is the one that it had begun. One line holds one leaf, or one part of the
results that is stored already.
"""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from scythe.messages import LeafRecord
from scythe.outcomes import FailureKind, LeafFailure, LeafResult, LeafStats
from scythe.texts import printable

_HEAD = struct.Struct("d")  # when the step that goes on is late, by the node's monotonic clock
_PART = b"["
_PLAIN = re.compile(r"[-\w.]*", re.ASCII)
_STORE_LIMIT = 300.0  # seconds for writing the results of many leaves to the bucket


@dataclass(frozen=True, slots=True)
class Part:
    """Results that are stored already.

    Attributes:
        key: The object in the bucket that holds them.
        n_leaves: Number of leaves.
        n_failed: Number of leaves among them that failed.
        seconds: The time that these leaves took.
    """

    key: str
    n_leaves: int
    n_failed: int
    seconds: float


class Journal:
    """A journal that is being written.

    Args:
        path: The file.
        text: The lines of the process that ran the batch before.
    """

    def __init__(self, path: Path, text: bytes = b"") -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._path, self._file = path, os.open(path, flags, 0o600)
        os.write(self._file, _HEAD.pack(time.monotonic() + _STORE_LIMIT) + text)

    def begin(self, limit: float = _STORE_LIMIT) -> None:
        """Say that a step begins which may take `limit` seconds."""
        os.pwrite(self._file, _HEAD.pack(time.monotonic() + limit), 0)

    def add(self, record: LeafRecord) -> None:
        """Write what came of a leaf."""
        os.write(self._file, write_line(record))

    def add_part(self, part: Part) -> None:
        """Write that the leaves since the last part are stored."""
        line = json.dumps([part.key, part.n_leaves, part.n_failed, part.seconds])
        os.write(self._file, line.encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)


def read_journal(path: Path) -> bytes | None:
    """Return the lines that a process has left; None where it had not begun its batch."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    text = data[_HEAD.size :]
    return text[: text.rfind(b"\n") + 1]


def time_left(path: Path) -> float | None:
    """Return the seconds until the step of a batch that goes on is late; None if none has begun."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
    except OSError:
        return None
    return _HEAD.unpack(head)[0] - time.monotonic() if len(head) == _HEAD.size else None


def count_leaves(text: bytes) -> int:
    """Return how many leaves are over by the lines of a journal."""
    parts, records = _split(text)
    return sum(part.n_leaves for part in parts) + len(records)


def read_lines(text: bytes) -> tuple[list[Part], list[LeafRecord]]:
    """Read the lines of a journal: the parts that are stored, and the leaves after them."""
    parts, lines = _split(text)
    return parts, [_read_line(line) for line in lines]


def _split(text: bytes) -> tuple[list[Part], list[bytes]]:
    lines = text.splitlines()
    parts = [number for number, line in enumerate(lines) if line.startswith(_PART)]
    stored = [Part(*json.loads(lines[number])) for number in parts]
    return stored, lines[parts[-1] + 1 if parts else 0 :]


def write_line(record: LeafRecord) -> bytes:
    """Write what came of a leaf as one line."""
    outcome, stats = record.outcome, record.outcome.stats
    # By hand: it is written for each leaf, and a JSON encoder takes as long as a short one.
    place = (
        f'{{"a":{record.attempts},"i":{_quoted(record.workflow_run_id or "")},'
        f'"s":[{_node(stats.node)},{stats.pid},{stats.started!r},{stats.finished!r},'
        f"{stats.peak_rss},{_node(stats.gpus)}]"
    )
    if outcome.log:
        place += f',"l":{json.dumps(outcome.log)}'
    if isinstance(outcome, LeafResult):
        line = f'{place},"o":{outcome.scalars}'
        if outcome.files:
            line += f',"f":{json.dumps(outcome.files)}'
        if outcome.tables:
            line += f',"t":{json.dumps(_write_tables(outcome.tables))}'
        if outcome.scalars_key:
            line += f',"k":{json.dumps(outcome.scalars_key)}'
        return f"{line}}}\n".encode()
    texts = (outcome.type, outcome.message, outcome.traceback)
    failure = [outcome.kind.value, *map(printable, texts)]
    return f'{place},"e":{json.dumps(failure)}}}\n'.encode()


@lru_cache(maxsize=8)
def _node(name: str) -> str:
    return json.dumps(name)


def _quoted(text: str) -> str:
    return f'"{text}"' if _PLAIN.fullmatch(text) else json.dumps(text)


def _write_tables(tables: dict[str, bytes | str]) -> dict[str, list[str]]:
    return {
        name: ["b64", base64.b64encode(data).decode()] if isinstance(data, bytes) else ["key", data]
        for name, data in tables.items()
    }


def _read_line(line: bytes) -> LeafRecord:
    values: dict[str, Any] = json.loads(line)
    stats = LeafStats(*values["s"])
    if "e" in values:
        kind, *texts = values["e"]
        outcome: LeafResult | LeafFailure = LeafFailure(
            FailureKind(kind), *texts, stats=stats, log=values.get("l", "")
        )
    else:
        tables: dict[str, Sequence[str]] = values.get("t", {})
        outcome = LeafResult(
            scalars=json.dumps(values["o"]),
            files=values.get("f", {}),
            tables={
                name: base64.b64decode(data) if form == "b64" else data
                for name, (form, data) in tables.items()
            },
            stats=stats,
            scalars_key=values.get("k"),
            log=values.get("l", ""),
        )
    return LeafRecord(outcome, values["a"], values["i"] or None)


def with_failure(text: bytes, failure: LeafFailure, attempts: int, run_id: str) -> bytes:
    """Add a leaf that ended its process, or had to be ended."""
    short = replace(failure, traceback=failure.traceback[-8000:])
    return text + write_line(LeafRecord(short, attempts, run_id))
