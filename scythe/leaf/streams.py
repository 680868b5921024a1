"""Redirects and restores standard output and error of a leaf process."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

_NUMBERS = {"stdout": 1, "stderr": 2}
_LINE_BUFFERED = 1  # _IOLBF of C
_dup2 = os.dup2  # a reference from before user code runs


class Streams:
    """A snapshot of standard output and error: the objects in `sys` and the file descriptors.

    A closed descriptor stays closed.
    """

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {name: getattr(sys, name) for name in _NUMBERS}
        self._usual: dict[int, int] = {}  # a copy of each descriptor
        self._flush_c = _line_buffered_c()
        for name, number in _NUMBERS.items():
            if hasattr(self._objects[name], "reconfigure"):
                self._objects[name].reconfigure(
                    line_buffering=True
                )  # so that a crash loses nothing
            with suppress(OSError):
                self._usual[number] = os.dup(number)

    @property
    def usual(self) -> int | None:
        """A descriptor of the original target."""
        return next(iter(self._usual.values()), None)

    def lead_to(self, descriptor: int) -> None:
        """Redirect both, even if user code has closed, redirected or replaced them."""
        is_whole = self._flush()
        for number in self._usual:
            _dup2(descriptor, number)
        if not is_whole:
            self._put_back()

    def lead_back(self) -> None:
        """Restore the original targets."""
        self._flush()
        for number, usual in self._usual.items():
            _dup2(usual, number)

    def _flush(self) -> bool:
        """Flush both; return whether that succeeded and the objects are unchanged."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a leaf may have replaced them by anything
            return False
        finally:
            self._flush_c(None)
        return sys.stdout is self._objects["stdout"] and sys.stderr is self._objects["stderr"]

    def _put_back(self) -> None:
        for name, stream in self._objects.items():
            if stream is not None and stream.closed:
                self._objects[name] = _opened(_NUMBERS[name])
            setattr(sys, name, self._objects[name])
        self._flush()  # output that could not be written before


def _opened(number: int) -> TextIO:
    return open(number, "w", buffering=1, errors="backslashreplace", closefd=False)


def _line_buffered_c() -> Any:
    """Make C code flush each line, also to a file; return C's `fflush`."""
    library = ctypes.CDLL(None)
    name = "__stdoutp" if sys.platform == "darwin" else "stdout"
    with suppress(ValueError, AttributeError):
        stdout = ctypes.c_void_p.in_dll(library, name)
        library.setvbuf(stdout, None, _LINE_BUFFERED, ctypes.c_size_t(0))
    return library.fflush
