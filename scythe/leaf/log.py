"""What a leaf prints, in the process that runs it: kept in a file while it runs, then taken out.

A file costs nothing while nobody prints. It keeps standard output and error in order, takes what C
code and child processes write, and is still there when the process was killed.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from scythe.outcomes import BatchResult, LeafFailure, LeafResult

OutcomeT = TypeVar("OutcomeT", bound=LeafResult | BatchResult | LeafFailure)

CAP = 64 * 1024  # bytes of a log that are kept: its first and its last half
LEFT_OUT = "\n[… what was printed in between is left out …]\n"
_TRIM_ABOVE = 16 * CAP
_TRIM_EVERY = 1.0
_LINE_BUFFERED = 1  # _IOLBF of C
_CHATTY = ("boto3", "botocore", "s3transfer", "urllib3")


class LeafLog:
    """Takes what a leaf prints inside of `with`; `added_to` then hands it out with the outcome.

    In between it stays in the file, where who ends this process finds it.

    Args:
        path: The file, of this process alone.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._kept: dict[int, int] = {}
        for number in (1, 2):
            with suppress(OSError):  # it is closed
                self._kept[number] = os.dup(number)
        self._flush_c = _line_buffered_c()
        _log_to_stderr()

    def __enter__(self) -> None:
        self._flush()
        for number in self._kept:
            os.dup2(self._file, number)

    def __exit__(self, *_: object) -> None:
        self._flush()
        for number, kept in self._kept.items():
            os.dup2(kept, number)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # a leaf may have put anything there
                stream.flush()
        self._flush_c(None)

    def added_to(self, outcome: OutcomeT) -> OutcomeT:
        """Return the outcome with what its leaf printed, which is shown here as well."""
        if os.lseek(self._file, 0, os.SEEK_END) == 0:
            return outcome
        data = _read(self._file)
        os.ftruncate(self._file, 0)
        _show(data, self._kept.values())
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
        _show(text.encode(), (1, 2))


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
    size, half = os.fstat(descriptor).st_size, CAP // 2
    if size <= CAP:
        return os.pread(descriptor, size, 0)
    start, end = os.pread(descriptor, half, 0), os.pread(descriptor, half, size - half)
    return start + LEFT_OUT.encode() + end


def _text(data: bytes) -> str:
    return data.decode(errors="replace").replace("\x00", "\\x00")


def _show(data: bytes, descriptors: Iterable[int]) -> None:
    """Write to the first of these, by which lines of several processes are not mixed."""
    rest = memoryview(data if data.endswith(b"\n") else data + b"\n")
    with suppress(OSError, StopIteration):  # nobody listens
        descriptor = next(iter(descriptors))
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _line_buffered_c() -> Any:
    """Let C code write each line at once, also to a file; return C's `fflush`."""
    library = ctypes.CDLL(None)
    name = "__stdoutp" if sys.platform == "darwin" else "stdout"
    with suppress(ValueError, AttributeError):
        stdout = ctypes.c_void_p.in_dll(library, name)
        library.setvbuf(stdout, None, _LINE_BUFFERED, ctypes.c_size_t(0))
    return library.fflush


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
