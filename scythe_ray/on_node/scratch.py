"""A folder for temporary files of leaves, which is removed even if its process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "scythe-leaf-"
_LOCK = ".in-use"
_exists = os.path.exists


class Scratch:
    """A temporary folder of this process. Creating it removes the folders of dead processes.

    Attributes:
        path: The folder.

    Args:
        parent: Its parent; None for the system's usual place.
    """

    def __init__(self, parent: str | None) -> None:
        parent = parent or tempfile.gettempdir()
        sweep_scratch(parent)
        while True:
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            # Open, and so locked, until the process and all its forks have ended.
            if self._lock():
                return

    def keep(self) -> None:
        """Create it again if a leaf or a cleaner has removed it."""
        if not _exists(f"{self.path}/{_LOCK}"):
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            Path(self.path).mkdir(0o700, parents=True, exist_ok=True)
            self._lock()

    def _lock(self) -> bool:
        """Lock it; return whether it still exists, as another process may have removed it."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(f"{self.path}/{_LOCK}", flags, 0o600)
        except FileNotFoundError:
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        if _exists(f"{self.path}/{_LOCK}"):
            return True
        os.close(self._descriptor)
        return False


def sweep_scratch(parent: str | None = None) -> None:
    """Remove the folders of dead processes.

    Args:
        parent: Their parent; None for the system's usual place.
    """
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or removed meanwhile
            if not (folder / _LOCK).exists():
                folder.rmdir()  # empty if its process was killed before it could lock it
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
