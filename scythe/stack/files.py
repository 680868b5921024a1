"""Small files of the stack: written whole, read as they are, logs with an end."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, cast

from scythe.errors import StackError

_LOG_LIMIT = 5_000_000  # bytes
_TAIL_BYTES = 64_000


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file that only this user can read, whole or not at all."""
    text = json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
    partial = path.with_name(f"{path.name}.new")
    partial.unlink(missing_ok=True)
    try:
        _write(partial, text, os.O_CREAT | os.O_EXCL)
        partial.replace(path)
    except OSError as err:
        partial.unlink(missing_ok=True)
        # On a full disk the place of the old file is still there, and `stop` has less to write.
        is_full = err.errno in {errno.ENOSPC, errno.EDQUOT}
        if not is_full or not path.exists() or path.stat().st_size < len(text):
            raise
        _write(path, text, 0)


def _write(path: Path, text: bytes, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None if there is no file.

    Raises:
        StackError: It cannot be read, or is not what was written.
    """
    if not path.is_file() and (path.exists() or path.is_symlink()):
        raise StackError(f"{path} is not a file. `scythe dev reset` starts anew.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as err:
        raise StackError(f"{path} cannot be read: {err}. `scythe dev reset` starts anew.") from err
    if not isinstance(value, dict):
        raise StackError(f"{path} is damaged. `scythe dev reset` starts anew.")
    return cast("dict[str, Any]", value)


def open_log(path: Path) -> int:
    """Make a log file ready for a new process, and return where in it that begins to write."""
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_name(f"{path.name}.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def tail(path: Path, *, lines: int = 20, start: int = 0, hide: tuple[str, ...] = ()) -> str:
    """Return the end of a log file.

    Args:
        path: The log file.
        lines: How many lines at most.
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
    for secret in hide:
        if secret:
            text = text.replace(secret, "***")
    return "\n".join(text.rstrip().splitlines()[-lines:])
