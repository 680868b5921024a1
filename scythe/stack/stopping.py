"""End the processes of a stack, in the order in which they need each other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from scythe.errors import StackError
from scythe.processes.ending import end_tree
from scythe.processes.identity import ProcessRecord
from scythe.stack.paths import ENGINE, POSTGRES, S3, Layout
from scythe.stack.postgres import clean_up_postgres
from scythe.stack.state import State

_POLL_SECONDS = 0.02
_GRACE_SECONDS = {ENGINE: 15.0, S3: 5.0, POSTGRES: 15.0}
_PROGRAMS = {"scythe-engine", "postgres", "initdb", "weed"}  # the last one of an earlier Scythe


def stop_parts(
    layout: Layout, state: State, parts: Collection[str], report: Callable[[str], None]
) -> bool:
    """End parts, see them dead, remove what they leave behind, and return whether any ran.

    The caller writes the new state.
    """
    alive = [part for part in _GRACE_SECONDS if part in parts and state.alive(part)]
    for part in alive:
        report(f"stopping {part}")
        if part != POSTGRES:  # which the engine needs until its end
            ask(state.parts[part], signal.SIGTERM)
    for part in alive:
        process = state.parts[part]
        grace = _GRACE_SECONDS[part]
        if part == POSTGRES:
            ask(process, signal.SIGINT)  # at SIGTERM it would wait for its clients to go
        if not see_dead(process, grace):
            report(f"{part} did not end within {grace:.0f} s and was killed")
    if POSTGRES in parts:
        stop_strays(layout, [POSTGRES], grace=5)
        clean_up_postgres(layout)
        with suppress(OSError):
            layout.sockets.rmdir()
            layout.socket_link.unlink()
    return bool(alive)


def stop_strays(layout: Layout, parts: Iterable[str], grace: float) -> bool:
    """End what works for parts without being known to the stack; return whether anything did.

    The children of a PostgreSQL server that was killed live on for a moment, and whatever a killed
    `scythe dev` had just started is known to nobody: both are in the way of a new start. They are
    killed after `grace` seconds. A shell, or an editor, in the same folder is left alone.
    """
    import psutil

    folders = {layout.folder(part) for part in parts}
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name() in _PROGRAMS:
                cwd = Path(process.cwd())  # or a folder in the part's: `data`, `objects`
                if cwd in folders or cwd.parent in folders:
                    found.append(process)
    _, left = psutil.wait_procs(found, grace)
    _kill([process.pid for process in left])
    return bool(found)


def ask(process: ProcessRecord, number: signal.Signals) -> None:
    """Send a signal to a process, if it runs."""
    if process.is_alive():
        with suppress(OSError):
            os.kill(process.pid, number)


def see_dead(process: ProcessRecord, grace: float) -> bool:
    """Wait for the end of a process, killing it with its children after `grace` seconds.

    Returns:
        Whether it ended by itself.
    """
    deadline = time.monotonic() + grace
    while process.is_alive():
        if time.monotonic() > deadline:
            _kill([process.pid])
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _kill(pids: list[int]) -> None:
    if left := end_tree(pids, grace=0):
        raise StackError(
            f"Process {left[0]} does not end, not even with SIGKILL. Try again later, or as the "
            "user who started the stack."
        )
