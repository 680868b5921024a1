"""A lock between processes; the kernel frees it if its holder dies."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from scythe.errors import StackError

_PATIENCE = 0.3  # seconds to wait in silence


@contextmanager
def locked(
    path: Path, *, timeout: float, waiting: Callable[[], None] = lambda: None
) -> Generator[None]:
    """Hold the lock `path`.

    Args:
        path: The lock file; it stays.
        timeout: Seconds to wait for another holder.
        waiting: Called once if there is another holder.

    Raises:
        StackError: The other holder did not finish in time.
        FileNotFoundError: Its folder is not there (any more).
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        waiting()
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise StackError(
                f"Another `scythe` still holds {path} after {timeout:.0f} s. Wait for it or "
                "end it, then try again."
            ) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a live process holds the lock."""
    from filelock import FileLock, Timeout

    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (OSError, Timeout):
        return True
