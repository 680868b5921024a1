"""A lock between processes that leaves no file behind."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from scythe.errors import StackError

_POLL = 0.05  # seconds
_PATIENCE = 0.3  # seconds to wait in silence


@contextmanager
def locked(
    path: Path, *, timeout: float, waiting: Callable[[], None] = lambda: None
) -> Generator[None]:
    """Hold the lock `path`; the kernel frees it if this process dies.

    Args:
        path: The lock file; its folder is created if need be.
        timeout: Seconds to wait for another holder.
        waiting: Called once if there is another holder.

    Raises:
        StackError: The other holder did not finish in time.
    """
    descriptor = _acquire(path, timeout, waiting)
    try:
        yield
    finally:
        # Removed while it is held: whoever waits for this file sees that it is gone.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether a live process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path, timeout: float, waiting: Callable[[], None]) -> int:
    deadline = time.monotonic() + timeout
    patience = time.monotonic() + _PATIENCE
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the folder was removed in between
            continue
        except OSError as err:
            raise StackError(f"The lock {path} cannot be used: {err.strerror or err}.") from err
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            if _is_still(path, descriptor):
                return descriptor
            os.close(descriptor)
            continue
        if time.monotonic() > patience:
            patience = deadline + _POLL
            waiting()
        if time.monotonic() > deadline:
            raise StackError(
                f"Another `scythe dev` still holds {path} after {timeout:.0f} s. Wait for it or "
                "end it, then try again."
            )
        time.sleep(_POLL)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
