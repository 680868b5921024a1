"""A folder for the temporary files of leaves that is removed even if its process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "scythe-leaf-"
_LOCK = ".in-use"


def scratch_folder(parent: str | None) -> str:
    """Make a folder for this process, and remove those of processes that are gone.

    Args:
        parent: Where it is made; None for the system's usual place.
    """
    parent = parent or tempfile.gettempdir()
    sweep_scratch(parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Open, and so locked, until the process and all that it forked have ended.
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # as below
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if (folder / _LOCK).exists():
            return str(folder)
        os.close(descriptor)  # another process swept it before it was locked


def sweep_scratch(parent: str | None = None) -> None:
    """Remove the folders of processes that are gone.

    Args:
        parent: Where they are; None for the system's usual place.
    """
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or gone by now
            if not (folder / _LOCK).exists():
                folder.rmdir()  # empty: its process was killed before it could lock it
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
