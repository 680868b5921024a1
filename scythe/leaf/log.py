"""Captures the output of a leaf in a file, and reads it when the leaf has ended.

A file costs nothing while nobody prints. It keeps standard output and error in order, takes what C
code and child processes write, and is still there when the process was killed.
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

CAP = 64 * 1024  # bytes of a log that are kept: its first and its last half
LEFT_OUT = "\n[… what was printed in between is left out …]\n"
_TRIM_ABOVE = 16 * CAP
_TRIM_EVERY = 1.0
_CHATTY = ("boto3", "botocore", "s3transfer", "urllib3")


class LeafLog:
    """Takes what a leaf prints inside of `with`; `added_to` then hands it out with the outcome.

    In between it stays in the file, where who ends this process finds it. After the block, standard
    output and error are as they were before; between the leaves of a batch `renew` sees to that.

    Args:
        path: The file, of this process alone.
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
        """Take all that is printed until now, and from now on, whatever a leaf did meanwhile."""
        self._streams.lead_to(self._file)

    def added_to(self, outcome: OutcomeT) -> OutcomeT:
        """Return the outcome with what its leaf printed, which is shown here as well."""
        if os.lseek(self._file, 0, os.SEEK_END) == 0:
            return outcome
        data = _read(self._file)
        os.ftruncate(self._file, 0)
        _show(data, self._streams.usual)
        return replace(outcome, log=f"{outcome.log}{_text(data)}")


def read_log(path: Path) -> str:
    """Return what a process that is gone left in its file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return _text(_read(descriptor))
    finally:
        os.close(descriptor)


def show_log(text: str) -> None:
    """Show here what a process that is gone had printed."""
    if text:
        _show(text.encode(), 1)


def shortened(text: str) -> str:
    """Return a log without its middle, where it is too large."""
    half = CAP // 2
    return text if len(text) <= CAP else f"{text[:half]}{LEFT_OUT}{text[-half:]}"


def keep_small(folder: Path, pattern: str) -> None:
    """Shorten logs of running leaves that grow large, in a thread, while the folder is there.

    Args:
        folder: Where the files are.
        pattern: Which ones.
    """

    def work() -> None:
        while folder.is_dir():
            for path in folder.glob(pattern):
                with suppress(OSError):  # it is gone by now
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
    """Write all to one descriptor, by which lines of several processes are not mixed."""
    rest = memoryview(data if data.endswith(b"\n") else data + b"\n")
    with suppress(OSError):  # nobody listens
        while rest and descriptor is not None:
            rest = rest[os.write(descriptor, rest) :]


def _log_to_stderr() -> None:
    """Write what is logged from INFO on to standard error, unless the user's logging takes it.

    No handler is added for it: `logging.basicConfig()` in a leaf would do nothing then.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    logging.lastResort = _StderrHandler()
    if root.level == logging.WARNING:
        root.setLevel(logging.INFO)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at that moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sys.stderr

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether it is a line of interest."""
        library = record.name.partition(".")[0]
        return record.levelno >= logging.WARNING or library not in _CHATTY
