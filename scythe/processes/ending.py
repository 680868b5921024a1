"""Ends processes with all their descendants, and detects the death of a parent.

A process that Scythe starts for user code leads a process group and has a mark in its environment.
Descendants are found by their parents, by the group, and by the mark, which also finds those whose
parent has died.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.processes.identity import start_of

if TYPE_CHECKING:
    import psutil

MARK = "SCYTHE_PROCESS"
GRACE = 2.0  # seconds between the interrupt and SIGKILL
_POLL = 0.01
_KILL_WAIT = 10.0  # a process dies only after an uninterruptible system call


def end_tree(
    pids: int | Iterable[int], grace: float = GRACE, *, mark: str | None = None
) -> list[int]:
    """End processes and their descendants: SIGTERM, `grace` seconds, SIGKILL, wait until dead.

    A child of the calling process stays a zombie, so that its exit status can be read. The calling
    process itself is never ended.

    Args:
        pids: The processes, which may be dead.
        grace: Seconds between SIGTERM and SIGKILL; 0 for SIGKILL at once.
        mark: Also end every process whose variable `MARK` begins with this.

    Returns:
        The processes that are still alive, usually none.
    """
    roots = [pids] if isinstance(pids, int) else list(pids)
    found = _belonging(roots, mark)
    if grace > 0:
        _send(found, signal.SIGTERM)
        _wait_gone(found, grace)
    deadline = time.monotonic() + _KILL_WAIT
    while time.monotonic() < deadline:
        # Searched again each time, because dying processes may start others.
        seen = [process.pid for process in found if not _is_gone(process)]
        found = [one for one in _belonging([*roots, *seen], mark) if not _is_gone(one)]
        if not found:
            return []
        _send(found, signal.SIGKILL)
        _wait_gone(found, 1.0)
    return [process.pid for process in found]


def users_of(folder: str | Path) -> list[int]:
    """Return the other processes that have a file below a folder open for writing.

    This finds processes that have overwritten their environment with a title.
    """
    import psutil

    root = f"{Path(folder)}/"
    found = list[int]()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            files: Iterable[Any] = process.open_files() if process.pid != os.getpid() else ()
            if any(f.path.startswith(root) and getattr(f, "mode", "r") != "r" for f in files):
                found.append(process.pid)
    return found


def load() -> None:
    """Import all that is otherwise imported on first use."""
    from importlib import import_module

    import_module("psutil")


def watch_parent(parent: int | None = None, *, grace: float = GRACE) -> None:
    """End this process and its descendants as soon as its parent dies.

    Only for processes that run Scythe's own code, because the watching thread would be blocked by a
    C call that holds the interpreter's lock. For user code, see `scythe.processes.guard`.

    Args:
        parent: The parent's process id, from the parent. Without it, a parent that died before this
            call is missed unless `multiprocessing` started this process.
        grace: Seconds between SIGTERM and SIGKILL for the descendants.
    """
    given = parent if parent is not None else _parent_pid()
    threading.Thread(
        target=_end_with_parent, args=(given, grace), name="scythe-watch-parent", daemon=True
    ).start()


def _end_with_parent(parent: int, grace: float) -> None:
    _wait_for_exit_of_parent(parent)
    try:
        end_tree(os.getpid(), grace)
    finally:
        os._exit(1)


def _parent_pid() -> int:
    from multiprocessing import parent_process

    known = parent_process()
    return known.pid if known is not None and known.pid is not None else os.getppid()


def _wait_for_exit_of_parent(parent: int) -> None:
    descriptor = open_pidfd(parent)
    if descriptor is not None:
        try:
            if os.getppid() == parent:
                poller = select.poll()
                poller.register(descriptor, select.POLLIN)
                poller.poll()
        finally:
            os.close(descriptor)
    while os.getppid() == parent:
        time.sleep(0.2)


def open_pidfd(pid: int) -> int | None:
    """Return a file descriptor that becomes readable when a process ends; None if unsupported."""
    try:
        return os.pidfd_open(pid)
    except (
        AttributeError,
        OSError,
    ):  # not Linux, an old kernel, a sandbox, or the process has ended
        return None


def oom_kills() -> int:
    """Return the number of processes that the kernel has killed for lack of memory.

    Counted in this process's control group if possible, else on the machine; 0 if unknown.
    """
    for path, key in ((_cgroup_folder() / "memory.events", "oom_kill"), *_OTHER_COUNTERS):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
    return 0


_OTHER_COUNTERS = ((Path("/proc/vmstat"), "oom_kill"),)


def _cgroup_folder() -> Path:
    """Return the folder of this process's control group (version 2)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return Path("/sys/fs/cgroup") / line[3:].lstrip("/")
    return Path("/sys/fs/cgroup")


def _belonging(roots: Iterable[int], mark: str | None) -> list[psutil.Process]:
    """Return the roots and their descendants, parents first, without this process."""
    everyone = _everyone()
    leaders = {pid for pid in roots if _group_of(pid) == pid}
    children: dict[int, list[psutil.Process]] = {}
    for process, parent in everyone.values():
        children.setdefault(parent, []).append(process)
    queue = [everyone[pid][0] for pid in roots if pid in everyone]
    for pid, (process, _) in everyone.items():
        if _group_of(pid) in leaders or (mark and _carries(process, mark)):
            queue.append(process)
    found: dict[int, psutil.Process] = {}
    while queue:
        process = queue.pop(0)
        if process.pid not in found:
            found[process.pid] = process
            start = start_of(process.pid)
            queue += [
                child for child in children.get(process.pid, []) if start_of(child.pid) >= start
            ]
    found.pop(os.getpid(), None)
    return list(found.values())


def _everyone() -> dict[int, tuple[psutil.Process, int]]:
    """Return all processes by id, with the ids of their parents."""
    import psutil

    everyone: dict[int, tuple[psutil.Process, int]] = {}
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            everyone[pid] = (process, process.ppid())
    return everyone


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _carries(process: psutil.Process, mark: str) -> bool:
    import psutil

    try:
        return process.environ().get(MARK, "").startswith(mark)
    except (psutil.Error, OSError):
        return False  # another user's process, or it has ended


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            process.send_signal(number)


def _wait_gone(processes: list[psutil.Process], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    left = processes
    while left := [process for process in left if not _is_gone(process)]:
        if time.monotonic() >= deadline:
            return
        time.sleep(_POLL)


def _is_gone(process: psutil.Process) -> bool:
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
