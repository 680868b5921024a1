"""Captures the output of a leaf in a file, and reads it when the leaf has ended.

A file costs nothing while nobody prints. It keeps the order of standard output and error, includes
the output of C code and child processes, and survives the process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO, TypeVar

from scythe.leaf.streams import Streams
from scythe.outcomes import BatchResult, LeafFailure, LeafResult

OutcomeT = TypeVar("OutcomeT", bound=LeafResult | BatchResult | LeafFailure)

CAP = 64 * 1024  # bytes of a log that are kept: half from its start, half from its end
LEFT_OUT = "\n[… output in between left out …]\n"
_TRIM_ABOVE = 16 * CAP
_TRIM_EVERY = 1.0
# References from before user code runs.
_seek = os.lseek
_END = os.SEEK_END
_CHATTY = ("boto3", "botocore", "s3transfer", "urllib3")


class LeafLog:
    """Captures the output of a leaf inside a `with` block; `added_to` adds it to the outcome.

    Until then it stays in the file, where the process that kills this one finds it. After the
    block, standard output and error are restored; in a batch, `renew` does so between leaves.

    Args:
        path: The file, which no other process uses.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._streams = Streams()
        _log_to_stderr()

    def __enter__(self) -> None:
        self.renew()

    def __exit__(self, *_: object) -> None:
        self.renew()
        self._streams.lead_back()

    def renew(self) -> None:
        """Flush the output so far and capture it again, whatever a leaf did to the streams."""
        self._streams.lead_to(self._file)

    def added_to(self, outcome: OutcomeT) -> OutcomeT:
        """Return the outcome with the output of its leaf, which is also shown here."""
        if _seek(self._file, 0, _END) == 0:
            return outcome
        data = _read(self._file)
        os.ftruncate(self._file, 0)
        _show(data, self._streams.usual)
        return replace(outcome, log=f"{outcome.log}{_text(data)}")


def read_log(path: Path) -> str:
    """Return the captured output of a process that has ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return _text(_read(descriptor))
    finally:
        os.close(descriptor)


def show_log(text: str) -> None:
    """Write the output of a process that has ended to this process's output."""
    if text:
        _show(text.encode(), 1)


def shortened(text: str) -> str:
    """Return a log, without its middle if it is too large."""
    half = CAP // 2
    return text if len(text) <= CAP else f"{text[:half]}{LEFT_OUT}{text[-half:]}"


def keep_small(folder: Path, pattern: str) -> None:
    """Shorten the growing logs of running leaves, in a thread, while the folder exists.

    Args:
        folder: The folder of the logs.
        pattern: Glob pattern of their names.
    """

    def work() -> None:
        while folder.is_dir():
            with suppress(FileNotFoundError):  # the folder is removed meanwhile
                for path in folder.glob(pattern):
                    with suppress(OSError):  # the log is
                        _trim(path)
            time.sleep(_TRIM_EVERY)

    threading.Thread(target=work, name="scythe-leaf-log", daemon=True).start()


def _trim(path: Path) -> None:
    if path.stat().st_size <= _TRIM_ABOVE:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        data = _read(descriptor)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    half = CAP // 2
    if size <= CAP:
        return os.pread(descriptor, size, 0)
    start = os.pread(descriptor, half, 0)
    end = os.pread(descriptor, half, size - half)
    return start + LEFT_OUT.encode() + end


def _text(data: bytes) -> str:
    return data.decode(errors="replace").replace("\x00", "\\x00")


def _show(data: bytes, descriptor: int | None) -> None:
    """Write all at once, so that lines of several processes do not mix."""
    rest = memoryview(data if data.endswith(b"\n") else data + b"\n")
    with suppress(OSError):  # no reader
        while rest and descriptor is not None:
            rest = rest[os.write(descriptor, rest) :]


def _log_to_stderr() -> None:
    """Write log records from INFO on to standard error unless the user has configured logging.

    Adds no handler to the root logger: `logging.basicConfig()` in a leaf would then do nothing.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    logging.lastResort = _StderrHandler()
    if root.level == logging.WARNING:
        root.setLevel(logging.INFO)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current standard error."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sys.stderr

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the record."""
        library = record.name.partition(".")[0]
        return record.levelno >= logging.WARNING or library not in _CHATTY
