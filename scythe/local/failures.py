"""Builds the failures of leaves whose pool process could not report them."""

from __future__ import annotations

import platform
import signal
import time
from pathlib import Path

from scythe.executor import Capacity
from scythe.leaf.faults import fault_failure
from scythe.local.pool_events import Ending, StartFailed
from scythe.local.pool_process import START_TIMEOUT
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafStats

_OWN_FOLDER = str(Path(__file__).parents[1])
_STACKS_CHARS = 20_000


def crash_failure(
    pid: int, started: float, ending: Ending, *, again: bool, out_of_memory: bool = False
) -> LeafFailure:
    """Return the failure of a leaf whose process died.

    Args:
        pid: The process.
        started: When the leaf was given to it, in seconds since 1970.
        ending: The end of the process.
        again: Whether this is the second death.
        out_of_memory: Whether the kernel has killed a process for lack of memory meanwhile.
    """
    kind = FailureKind.WORKER_CRASH
    name = "ProcessLost"
    message = "the process was lost"
    if ending.status is not None and ending.status < 0:
        number = -ending.status
        known = number in {one.value for one in signal.Signals}
        title = signal.Signals(number).name if known else "unnamed"
        name = signal.strsignal(number) or title
        message = f"killed by signal {number} ({title})"
        if number == signal.SIGKILL and out_of_memory:
            kind = FailureKind.OUT_OF_MEMORY
            message += (
                f" by the kernel for lack of memory, with {ending.peak_rss / 1e9:.2f} GB in use: "
                "use fewer slots, or a machine with more memory"
            )
    elif ending.status is not None:
        name = "ProcessExit"
        message = f"process ended with exit code {ending.status}"
    if again and kind is FailureKind.WORKER_CRASH:
        message += ", also when it was tried again"
    stats = _stats(pid, started, ending)
    return LeafFailure(kind, name, message, _readable(ending.stacks), stats, ending.log)


def damage_failure(pid: int, started: float, ending: Ending) -> LeafFailure | None:
    """Return the failure of a process that failed outside of the user's function, or None."""
    stats = _stats(pid, started, ending)
    return fault_failure(ending.stacks, stats, ending.log, ending.status)


def timeout_failure(call: LeafCall, pid: int, started: float, ending: Ending) -> LeafFailure:
    """Return the failure of a leaf that was killed at its time limit."""
    return LeafFailure(
        FailureKind.TIMEOUT,
        "TimeoutError",
        f"the leaf ran longer than its limit of {call.timeout:g} s (execution_timeout) and was "
        "ended; the traceback shows where it was",
        _readable(ending.stacks),
        _stats(pid, started, ending),
        ending.log,
    )


def start_failure(event: StartFailed, pid: int) -> LeafFailure:
    """Return the failure of a process that cannot import the user's code."""
    return event.failure or LeafFailure(
        FailureKind.ENVIRONMENT,
        "ImportTimeout",
        f"the user's code was not imported within {START_TIMEOUT:g} s: move slow work out of the "
        "top level of its modules",
        stats=LeafStats(platform.node(), pid),
    )


def no_process_failure(reason: str) -> LeafFailure:
    """Return the failure of a leaf for which no process could be started."""
    return LeafFailure(
        FailureKind.WORKER_CRASH,
        "ProcessNotStarted",
        f"no process could be started for the leaf ({reason}): check the limits on processes, "
        "files and memory",
        stats=LeafStats(platform.node()),
    )


def infeasible_failure(slots: int, capacity: Capacity) -> LeafFailure:
    """Return the failure of a leaf that needs more slots than the worker has."""
    return LeafFailure(
        FailureKind.INFEASIBLE,
        "Infeasible",
        f"the leaf needs {slots} CPUs and this worker has {capacity.slots} slots "
        f"({capacity.source}, {capacity.place}): start a worker with more slots, or lower "
        "`resources=LeafResources(cpus=…)`",
        stats=LeafStats(platform.node()),
    )


def waited_failure(call: LeafCall, slots: int) -> LeafFailure:
    """Return the failure of a leaf that got no slot in time."""
    return LeafFailure(
        FailureKind.TIMEOUT,
        "ScheduleTimeout",
        f"{slots} free slots did not come within {call.schedule_timeout:g} s (schedule_timeout): "
        "start more workers or raise the limit",
        stats=LeafStats(platform.node()),
    )


def _stats(pid: int, started: float, ending: Ending) -> LeafStats:
    return LeafStats(platform.node(), pid, started, time.time(), ending.peak_rss)


def _readable(stacks: str) -> str:
    """Return the stacks without Scythe's frames and without the list of extension modules."""
    lines = [
        line
        for line in stacks.splitlines()
        if f'File "{_OWN_FOLDER}' not in line
        and 'File "<string>"' not in line
        and not line.startswith("Extension modules:")
    ]
    return "\n".join(lines).strip()[:_STACKS_CHARS]
