"""Standard output and error of a process that runs leaves, whatever a leaf does to them."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

_NUMBERS = {"stdout": 1, "stderr": 2}
_LINE_BUFFERED = 1  # _IOLBF of C


class Streams:
    """Standard output and error as they are now: the objects in `sys` and the descriptors.

    A descriptor that is closed stays so.
    """

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}
        self._usual: dict[int, int] = {}  # a copy of each descriptor
        self._flush_c = _line_buffered_c()
        for name, number in _NUMBERS.items():
            with suppress(OSError):
                self._usual[number] = os.dup(number)
                self._objects[name] = stream = getattr(sys, name)
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(line_buffering=True)  # nothing is lost in a crash

    @property
    def usual(self) -> int | None:
        """A descriptor of where they lead by themselves."""
        return next(iter(self._usual.values()), None)

    def lead_to(self, descriptor: int) -> None:
        """Let both lead there, also where user code closed, redirected or replaced them."""
        self._lead(dict.fromkeys(self._usual, descriptor))

    def lead_back(self) -> None:
        """Let them lead where they usually do."""
        self._lead(self._usual)

    def _lead(self, ways: dict[int, int]) -> None:
        self._flush()
        for number, way in ways.items():
            os.dup2(way, number)
        for name, stream in self._objects.items():
            if stream is not None and (getattr(sys, name) is not stream or stream.closed):
                self._put_back(name, stream)
        self._flush()  # what could not be written where they led

    def _put_back(self, name: str, stream: Any) -> None:
        if stream.closed:
            self._objects[name] = stream = _opened(_NUMBERS[name])
        setattr(sys, name, stream)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # a leaf may have put anything there
                stream.flush()
        self._flush_c(None)


def _opened(number: int) -> TextIO:
    return open(number, "w", buffering=1, errors="backslashreplace", closefd=False)


def _line_buffered_c() -> Any:
    """Let C code write each line at once, also to a file; return C's `fflush`."""
    library = ctypes.CDLL(None)
    name = "__stdoutp" if sys.platform == "darwin" else "stdout"
    with suppress(ValueError, AttributeError):
        stdout = ctypes.c_void_p.in_dll(library, name)
        library.setvbuf(stdout, None, _LINE_BUFFERED, ctypes.c_size_t(0))
    return library.fflush
