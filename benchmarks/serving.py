"""Workers that run while something is measured, and what they take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from scythe.processes.ending import end_tree

LEAVES = ("-m", "benchmarks.leaves")
_MB = 1 << 20


@contextmanager
def serving(
    command: Sequence[str], *, python: str = sys.executable, **variables: str
) -> Generator[psutil.Process]:
    """Run a worker while the block runs, which SIGTERM leaves by `SystemExit`."""
    end_by_exit()
    process = subprocess.Popen(
        [python, *command],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        end_tree(process.pid, grace=20.0)
        process.wait(timeout=10)


def end_by_exit() -> None:
    """Let SIGTERM end this process by `SystemExit`, and that once: what it started is ended too."""

    def leave(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


@contextmanager
def paused(workers: Iterable[psutil.Process]) -> Generator[None]:
    """Keep workers from taking any processor time while the block runs: idle Ray processes do."""
    processes = [one for root in workers for one in (root, *root.children(recursive=True))]
    with ExitStack() as stack:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
                stack.callback(_resume, process)
        yield


def _resume(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()


def worker_of(executor: str, slots: int, **variables: str) -> dict[str, str]:
    """Return the environment of a worker."""
    return {
        "SCYTHE_WORKER_EXECUTOR": executor,
        "SCYTHE_WORKER_SLOTS": str(slots),
        "SCYTHE_RAY_ADDRESS": "local",
        **variables,
    }


def peak_memory(root: psutil.Process) -> dict[str, int]:
    """Return the peak resident memory in MB of a worker's parts and of the largest leaf process."""
    peaks: dict[str, int] = {}
    for part in root.children():
        below = part.children(recursive=True)
        leaves = [one for one in below if _runs_leaves(one)]
        for process in leaves:
            peaks["leaf process"] = max(peaks.get("leaf process", 0), _peak(process.pid))
        if "spawn_main" in " ".join(part.cmdline()):
            peaks["leaf worker" if leaves else "fan"] = _peak(part.pid)
    return peaks


def _runs_leaves(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "scythe.local.leaf_process" in command or command.startswith("ray::")


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = [line for line in lines if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) * 1024 // _MB if found else 0
