"""End processes for good, with all that they started, and notice when a parent is gone.

A process that Scythe starts for user code leads a process group and carries a mark in its
environment. Its descendants are therefore found in three ways: by their parents, by the group, and
by the mark, which also finds those whose parent crashed.
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
_KILL_WAIT = 10.0  # a process in an uninterruptible system call dies only after that


def end_tree(
    pids: int | Iterable[int], grace: float = GRACE, *, mark: str | None = None
) -> list[int]:
    """End processes and all that they started: SIGTERM, `grace` seconds, SIGKILL, confirmed dead.

    A child of the calling process is left as a zombie, so that its exit status can be read. The
    calling process itself is never ended.

    Args:
        pids: The processes, dead ones included.
        grace: Seconds that they get to end by themselves; 0 for SIGKILL at once.
        mark: Also end every process in whose environment `MARK` begins with this.

    Returns:
        The processes that are still there, which the kernel must be holding on to; mostly none.
    """
    roots = [pids] if isinstance(pids, int) else list(pids)
    found = _belonging(roots, mark)
    if grace > 0:
        _send(found, signal.SIGTERM)
        _wait_gone(found, grace)
    deadline = time.monotonic() + _KILL_WAIT
    while time.monotonic() < deadline:
        # Looked up again each time: what is being ended may have started more.
        seen = [process.pid for process in found if not _is_gone(process)]
        found = [one for one in _belonging([*roots, *seen], mark) if not _is_gone(one)]
        if not found:
            return []
        _send(found, signal.SIGKILL)
        _wait_gone(found, 1.0)
    return [process.pid for process in found]


def users_of(folder: str | Path) -> list[int]:
    """Return the processes, without this one, that have a file below a folder open for writing.

    Nothing else finds those that wrote a title over their environment.
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
    """Import now what is imported on first use."""
    from importlib import import_module

    import_module("psutil")


def watch_parent(parent: int | None = None, *, grace: float = GRACE) -> None:
    """From now on, end this process and all that it started as soon as its parent is gone.

    For processes that run Scythe's own code: the watcher is a thread, which a C call that holds
    the interpreter's lock would stop. Processes that run user code are watched from outside, see
    `scythe.processes.guard`.

    Args:
        parent: The parent's process id, as the parent knows it; without it, a parent that died
            before this call goes unnoticed unless `multiprocessing` started this process.
        grace: Seconds that the children get to end by themselves.
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
    """Return a descriptor that becomes readable when a process ends; None where there is none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, an old kernel, a sandbox; or it is gone
        return None


def oom_kills() -> int:
    """Return how many processes the kernel has ended for lack of memory, as far as it tells.

    Of this process's control group where it counts them, else of the machine; 0 where nothing does.
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
    """Return the roots and all that belongs to them, parents first; never this process."""
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
    """Return all processes by id, each with the id of its parent."""
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
        return False  # another user's, or gone


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
