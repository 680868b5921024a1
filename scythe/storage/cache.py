"""The download cache: limits its size, and keeps files that are in use."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scythe.errors import WorkerStartError
from scythe.settings import CacheSettings, cache_folder

_PART = ".part-"
_ORPHAN_SECONDS = 60.0  # after which an unchanged partial file counts as left by a killed process
_MANY_FILES = 1000  # with more, some extra space is freed, because scanning all takes a while

held: list[int] = []  # descriptors of files in use, until `release`
_budget = 0  # bytes that this process may download before the next scan


def files_folder() -> Path:
    """Return the folder of the downloads."""
    return cache_folder() / "files"


def release() -> None:
    """Let the files go that this process keeps."""
    while held:
        with suppress(OSError):  # the leaf may have closed all files
            os.close(held.pop())


def use(path: Path, *, keep: bool) -> bool:
    """Mark a file as used now, and return whether it is there.

    Args:
        path: The file.
        keep: Whether it stays in the cache until `release`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return path.exists()
    keeps = False
    try:
        if not path.is_relative_to(files_folder()):
            return True
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink == 0:
            return False  # it was removed in this moment
        with suppress(OSError):  # the file is another user's
            os.utime(path)
        if keep:
            held.append(handle)
            keeps = True
        return True
    finally:
        if not keeps:
            os.close(handle)


def note_download(path: Path) -> None:
    """Remove the least recently used files if this download made the cache too large."""
    global _budget
    folder = files_folder()
    if not path.is_relative_to(folder):
        return
    with suppress(OSError):
        _budget -= path.stat().st_size
    if _budget >= 0:
        return
    limit = CacheSettings().MAX_BYTES
    with suppress(OSError):  # another process removes something, or the folder
        _budget = max(0, (limit - shrink(folder, limit, path)) // 8)


@dataclass(frozen=True, slots=True)
class _File:
    used: float
    size: int
    path: Path


def shrink(folder: Path, limit: int, kept: Path | None = None) -> int:
    """Remove the least recently used files; return the size of the rest.

    Args:
        folder: Holds a folder for each file.
        limit: The size limit in bytes. Files in use are kept in any case.
        kept: A file that is about to be used.
    """
    files = list(_files(folder))
    total = sum(file.size for file in files)
    if total <= limit:
        return total
    goal = limit if len(files) < _MANY_FILES else limit - limit // 10
    for file in sorted(files, key=lambda file: file.used):
        if total <= goal:
            break
        if file.path != kept and _remove_unused(file.path):
            total -= file.size
    return total


def cache_size(folder: Path) -> tuple[int, int]:
    """Return the size of all files of the cache in bytes, and their number."""
    try:
        sizes = [file.size for file in _files(folder)]
    except FileNotFoundError:
        return 0, 0
    return sum(sizes), len(sizes)


def _files(folder: Path) -> Iterator[_File]:
    oldest_part = time.time() - _ORPHAN_SECONDS
    for place in os.scandir(folder):
        with suppress(OSError):  # it is removed meanwhile
            for entry in os.scandir(place):
                stat = entry.stat(follow_symlinks=False)
                is_part = entry.name.startswith(_PART)
                if is_part and stat.st_mtime < oldest_part and _remove_unused(Path(entry)):
                    continue
                if is_part or not entry.name.startswith("."):
                    used = float("inf") if is_part else stat.st_mtime
                    yield _File(used, stat.st_size, Path(entry))


def _remove_unused(path: Path) -> bool:
    """Remove a file unless it is in use; return whether it is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:  # in use, or another user's
        return False
    finally:
        os.close(handle)
    with suppress(OSError):  # somebody fetches into it
        path.parent.rmdir()
    return True


def check_cache() -> None:
    """Raise unless files can be written to the cache.

    Raises:
        WorkerStartError: They cannot; the message says what to set.
    """
    folder = files_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".check-") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        raise WorkerStartError(
            f"Downloads cannot be written to {folder} ({error.strerror or error}). Set "
            "SCYTHE_CACHE_DIR to a writable folder."
        ) from error
