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
        self._objects: dict[str, Any] = {name: getattr(sys, name) for name in _NUMBERS}
        self._usual: dict[int, int] = {}  # a copy of each descriptor
        self._flush_c = _line_buffered_c()
        for name, number in _NUMBERS.items():
            if hasattr(self._objects[name], "reconfigure"):
                self._objects[name].reconfigure(line_buffering=True)  # nothing is lost in a crash
            with suppress(OSError):
                self._usual[number] = os.dup(number)

    @property
    def usual(self) -> int | None:
        """A descriptor of where they lead by themselves."""
        return next(iter(self._usual.values()), None)

    def lead_to(self, descriptor: int) -> None:
        """Let both lead there, also where user code closed, redirected or replaced them."""
        is_whole = self._flush()
        for number in self._usual:
            os.dup2(descriptor, number)
        if not is_whole:
            self._put_back()

    def lead_back(self) -> None:
        """Let them lead where they usually do."""
        self._flush()
        for number, usual in self._usual.items():
            os.dup2(usual, number)

    def _flush(self) -> bool:
        """Write what is buffered; return whether that worked, and they are still the same."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a leaf may have put anything there
            return False
        finally:
            self._flush_c(None)
        return sys.stdout is self._objects["stdout"] and sys.stderr is self._objects["stderr"]

    def _put_back(self) -> None:
        for name, stream in self._objects.items():
            if stream is not None and stream.closed:
                self._objects[name] = _opened(_NUMBERS[name])
            setattr(sys, name, self._objects[name])
        self._flush()  # what could not be written where they led


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
