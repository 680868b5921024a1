"""Starts a Python process that is set up like this one, as `multiprocessing` does.

`multiprocessing` itself would lose the error of a process that cannot import the main script, and
cannot put a child into a process group.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import process as mp_process
from multiprocessing import spawn
from pathlib import Path
from typing import Any


def python_command(code: str) -> list[str]:
    """Return the command that runs `code` with this interpreter, its flags and its import path."""
    line = [os.fsdecode(word) for word in spawn.get_command_line()]
    return [
        *line[: line.index("-c")],
        "-c",
        f"import sys; sys.path[:] = {_import_path()!r}; {code}",
    ]


def preparation() -> dict[str, Any]:
    """Return the data with which `multiprocessing.spawn.prepare` sets up another process.

    That includes the import of the main script, under the name `__mp_main__`.
    """
    folder = _first_folder()
    data: dict[str, Any] = {
        "sys_path": _import_path(),
        "sys_argv": list(sys.argv),
        "orig_dir": folder,
        "dir": str(Path.cwd()),
    }
    main: Any = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    path = getattr(main, "__file__", None)
    if name is not None:
        data["init_main_from_name"] = name
    elif path is not None and (Path(folder) / path).is_file():
        data["init_main_from_path"] = str(Path(folder) / path)
    return data


def is_preparing() -> bool:
    """Return whether this process is importing the main script of another one."""
    return bool(getattr(mp_process.current_process(), "_inheriting", False))


def prepare(data: dict[str, Any]) -> None:
    """Set up this process like the one that called `preparation`."""
    current: Any = mp_process.current_process()
    current._inheriting = True  # noqa: SLF001 - so that multiprocessing refuses to start processes
    try:
        spawn.prepare(data)
    finally:
        del current._inheriting  # noqa: SLF001


def _import_path() -> list[str]:
    return [entry or _first_folder() for entry in sys.path]


def _first_folder() -> str:
    return str(getattr(mp_process, "ORIGINAL_DIR", None) or Path.cwd())
