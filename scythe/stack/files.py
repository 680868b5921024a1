"""Small files of the stack: written whole, logs with an end, locks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from scythe.errors import StackError

_LOG_LIMIT = 5_000_000  # bytes
_TAIL_BYTES = 64_000
_TAIL_LINES = 20
_PATIENCE_SECONDS = 0.3  # to wait for a lock in silence
# Longer than a build and a start take, so that a second caller waits and uses the first one's.
_LOCK_LIMIT_SECONDS = 3900.0


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, whole or not at all."""
    partial = path.with_name(f"{path.name}.new")
    partial.unlink(missing_ok=True)
    try:
        _write(partial, content, os.O_CREAT | os.O_EXCL)
        partial.replace(path)
    except OSError as err:
        partial.unlink(missing_ok=True)
        # On a full disk the place of the old file is still there, and `stop` has less to write.
        is_full = err.errno in {errno.ENOSPC, errno.EDQUOT}
        if not is_full or not path.exists() or path.stat().st_size < len(content):
            raise
        _write(path, content, 0)


def _write(path: Path, content: bytes, flags: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | flags, 0o600), "wb") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def open_log(path: Path) -> int:
    """Make a log file ready for a new process, and return where in it that begins to write."""
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_name(f"{path.name}.1"))
    path.touch(mode=0o600)
    return path.stat().st_size


def tail(path: Path, start: int = 0, hide: tuple[str, ...] = ()) -> str:
    """Return the last lines of a log file.

    Args:
        path: The log file.
        start: Byte at which to begin; what is before belongs to an earlier process.
        hide: Secrets, replaced by stars.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(start, size), size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    for secret in filter(None, hide):
        text = text.replace(secret, "***")
    return "\n".join(text.rstrip().splitlines()[-_TAIL_LINES:])


@contextmanager
def locked(
    path: Path, waiting: Callable[[], None], timeout: float = _LOCK_LIMIT_SECONDS
) -> Generator[None]:
    """Hold a lock file, which stays; `waiting` is called once if another process holds it.

    Raises:
        StackError: The other holder did not finish in time.
        FileNotFoundError: Its folder is not there (any more).
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o600)
    with suppress(Timeout):
        lock.acquire(timeout=_PATIENCE_SECONDS)
    if not lock.is_locked:
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

    if not path.is_file():  # which asking would make
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (OSError, Timeout):
        return True
