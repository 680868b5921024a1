"""Messages between a worker and its pool processes, and their transport."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pickle import HIGHEST_PROTOCOL, dumps  # references from before user code runs
from typing import Any

from scythe.outcomes import LeafFailure, LeafOutcome
from scythe.processes.frames import HEADER, framed

JOURNAL = "journal"  # the file in the folder of a process that runs a batch


@dataclass(frozen=True, slots=True)
class Setup:
    """The data that a pool process needs before its first leaf.

    Attributes:
        preparation: For `multiprocessing.spawn.prepare`: the main script, arguments and folders.
        folder: Private folder of this process, for the folders of its leaves.
        crash_file: The file for `faulthandler`'s stacks of a crashed process.
        log_file: The file that captures the output of a leaf.
    """

    preparation: dict[str, Any]
    folder: str
    crash_file: str
    log_file: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The main script is imported; the process is ready for a leaf.

    Attributes:
        pid: The process, which is a child of the keeper that was started.
    """

    pid: int = 0


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The main script could not be imported."""

    failure: LeafFailure


@dataclass(frozen=True, slots=True)
class Started:
    """The leaf's code is imported; its time limit starts now."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The leaf has ended.

    Attributes:
        outcome: Its outcome.
        left: Reasons not to use the process again, such as running programs or open files.
    """

    outcome: LeafOutcome
    left: list[str] = field(default_factory=list[str])


def frame_of(message: Any) -> bytes:
    """Encode a message for the channel."""
    return framed(dumps(message, HIGHEST_PROTOCOL))


class Inbox:
    """Decodes the messages of a pool process from the bytes that arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Add bytes and return the messages that they complete.

        Raises:
            pickle.UnpicklingError: They are no message; user code has written to the channel.
        """
        self._buffer += data
        messages: list[Any] = []
        while len(self._buffer) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            messages.append(_Reader(io.BytesIO(body)).load())
        return messages


_READABLE = {
    __name__: ("Finished", "NotStarted", "Ready", "Started"),
    "scythe.outcomes": ("BatchResult", "FailureKind", "LeafFailure", "LeafResult", "LeafStats"),
}


class _Reader(pickle.Unpickler):
    """Unpickles only plain outcomes, so that user code cannot make the worker import anything."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if global_name in _READABLE.get(module_name, ()):
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no part of an outcome")
