"""Finds and ends the leaves of one Ray node. Runs in the driver, or in an actor on that node.

`ray.cancel` is not used on a running leaf: it does not reach system calls and child processes, and
can abort the driver when it arrives within milliseconds of the leaf's end.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scythe.leaf.journal import read_journal, time_left
from scythe.leaf.log import read_log
from scythe.leaf.state import DUMP_SIGNAL
from scythe.processes.ending import end_tree, oom_kills
from scythe.processes.identity import birth_of
from scythe_ray.on_node.records import (
    CANCELLED,
    JOURNAL,
    LOG,
    RECORD,
    TRACE,
    Entry,
    locked,
    private_folder,
    read_entry,
    write_entry,
)
from scythe_ray.on_node.scratch import sweep_scratch

_STACK_WAIT = 0.5
_EXIT_WAIT = 5.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe: what was found about a leaf on a Ray node.

    Attributes:
        state: `importing` its code, `running`, `ended` (its process was killed), or `done` (it
            ended by itself).
        node: Host name.
        pid: The process.
        elapsed: Seconds since it began to import, or to run.
        trace: Stacks that the process left.
        memory: Memory in use on the host, if the kernel killed processes for lack of it.
        left: Processes that did not end.
        journal: The journal of its batch, see `scythe.leaf.journal`; None without a batch.
        remaining: Seconds until the deadline of the running leaf of a batch; None without a batch.
        log: The output of the leaf.
    """

    state: Literal["importing", "running", "ended", "done"]
    node: str
    pid: int
    elapsed: float
    trace: str = ""
    memory: str = ""
    left: tuple[int, ...] = ()
    journal: bytes | None = None
    remaining: float | None = None
    log: str = ""


class NodeAgent:
    """The leaves of one driver on this Ray node.

    Args:
        folder: The records of the processes that run them.
        kills: The count of the predecessor on this Ray node; None if there was none.
    """

    def __init__(self, folder: Path, kills: int | None = None) -> None:
        self._folder = folder
        self._kills = oom_kills() if kills is None else kills

    @property
    def kills(self) -> int:
        """The processes that the kernel had killed for lack of memory at the last check."""
        return self._kills

    def find(self, token: str) -> Probe | None:
        """Probe a leaf; None if it does not run here."""
        for entry in self._entries():
            if entry.token == token and entry.state != "done" and _is_alive(entry):
                state = "importing" if entry.state == "importing" else "running"
                remaining = time_left(self._journal(token))
                return Probe(state, platform.node(), entry.pid, entry.elapsed, remaining=remaining)
        return None

    def end(self, token: str, grace: float, stack: bool = False) -> Probe | None:
        """End a leaf with its descendants. A leaf that begins later waits to be ended.

        Args:
            token: The submission of the leaf.
            grace: Seconds between SIGTERM and SIGKILL; 0 for SIGKILL at once.
            stack: Whether to ask the process for its stacks first.

        Returns:
            None if it has not begun here, or its process runs another leaf by now.
        """
        folder = private_folder(self._folder)
        (folder / f"{token}{CANCELLED}").touch(mode=0o600)
        for entry in self._entries():
            if entry.token == token:
                return self._end(entry, grace, stack)
        return None

    def report(self, token: str) -> Probe | None:
        """Probe a leaf whose process died, and end its descendants.

        None if it had not begun here.
        """
        for entry in self._entries():
            if entry.token == token:
                left = end_tree([], 0, mark=entry.mark)
                before = self._kills
                self._kills = oom_kills()
                seen = self._sighting("ended", entry, left)
                if self._kills > before:
                    seen = replace(seen, memory=_memory_in_use())
                self._remove(entry)
                return seen
        return None

    def retire(self, token: str) -> None:
        """Wait for the end of a process that exits after a leaf, and remove its files."""
        for entry in self._entries(gone=True):
            if entry.token == token and entry.state == "done":
                deadline = time.monotonic() + _EXIT_WAIT
                while _is_alive(entry) and time.monotonic() < deadline:
                    time.sleep(0.01)
                if _is_alive(entry):
                    end_tree(entry.pid, 0, mark=entry.mark)
                self._remove(entry)

    def sweep(self) -> None:
        """Remove the files of processes that died after their last leaf."""
        for _ in self._entries():
            pass

    def forget(self, token: str) -> None:
        """Remove the mark that `end` left for a leaf that might have begun later."""
        (self._folder / f"{token}{CANCELLED}").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all files of the processes. No leaf may be running."""
        for entry in self._entries():
            shutil.rmtree(entry.folder, ignore_errors=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        sweep_scratch()  # folders of drivers that were killed

    def _end(self, entry: Entry, grace: float, stack: bool) -> Probe | None:
        with _opened(self._path(entry.pid, RECORD)) as record:
            if record is None:
                return None
            with locked(record):
                now = read_entry(record)
                if now is None or now.token != entry.token:
                    return None
                if now.state == "done":
                    return self._sighting("done", now)
                left = []
                seen = self._sighting("ended", now)
                if _is_alive(now):
                    write_entry(record, now.with_state("ending"))
                    if stack:
                        self._ask_for_stack(now.pid)
                        seen = self._sighting("ended", now)
                    left = end_tree(now.pid, grace, mark=now.mark)
                journal = read_journal(self._journal(now.token))
                log = read_log(self._path(now.pid, LOG))
                self._remove(now)
                return replace(seen, left=tuple(left), journal=journal, log=log)

    def _ask_for_stack(self, pid: int) -> None:
        """Make the process write the stacks of its threads, and wait for them."""
        with suppress(ProcessLookupError):
            os.kill(pid, DUMP_SIGNAL)
        deadline = time.monotonic() + _STACK_WAIT
        before = ""
        now = ""
        while time.monotonic() < deadline and not (now and now == before):
            time.sleep(0.01)
            before = now
            now = self._trace(pid)

    def _sighting(
        self,
        state: Literal["running", "ended", "done"],
        entry: Entry,
        left: list[int] | None = None,
    ) -> Probe:
        return Probe(
            state=state,
            node=platform.node(),
            pid=entry.pid,
            elapsed=entry.elapsed,
            trace=self._trace(entry.pid),
            left=tuple(left or ()),
            journal=read_journal(self._journal(entry.token)),
            log=read_log(self._path(entry.pid, LOG)),
        )

    def _trace(self, pid: int) -> str:
        try:
            return self._path(pid, TRACE).read_text(errors="replace")
        except OSError:
            return ""

    def _entries(self, *, gone: bool = False) -> Iterator[Entry]:
        """Read the records; with `gone`, also those of processes that ended while idle."""
        paths: list[Path] = []
        with suppress(FileNotFoundError):  # another agent of the driver on this host has ended
            paths += self._folder.glob(f"*{RECORD}")
        for path in paths:
            with _opened(path) as record:
                entry = read_entry(record) if record is not None else None
            if entry is None:
                continue
            if gone or entry.state != "done" or _is_alive(entry):
                yield entry
            else:
                self._remove(entry)  # Ray ended an idle process

    def _remove(self, entry: Entry) -> None:
        for suffix in (RECORD, TRACE, LOG):
            self._path(entry.pid, suffix).unlink(missing_ok=True)
        self._journal(entry.token).unlink(missing_ok=True)
        shutil.rmtree(entry.folder, ignore_errors=True)

    def _journal(self, token: str) -> Path:
        return self._folder / f"{token}{JOURNAL}"

    def _path(self, pid: int, suffix: str) -> Path:
        return self._folder / f"{pid}{suffix}"


def _memory_in_use() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{memory.used / 1e9:.2f} GB of {memory.total / 1e9:.2f} GB"


@contextmanager
def _opened(path: Path) -> Generator[int | None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_alive(entry: Entry) -> bool:
    return birth_of(entry.pid) == entry.birth
