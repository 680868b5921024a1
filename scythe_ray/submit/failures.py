"""Converts Ray's exceptions, and the traces of a dead process, to the failure of a leaf."""

from __future__ import annotations

import platform
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import replace

from scythe.leaf.faults import fault_failure
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafStats
from scythe_ray.config.resources import RayNode
from scythe_ray.on_node.leaf_process import EXIT_NOTE
from scythe_ray.on_node.node_agent import Probe

START_TIMEOUT = 300.0  # seconds to import the user's code, as in the local pool
_KIND_OF: Sequence[tuple[str, FailureKind]] = (  # the first matching class counts
    ("OutOfMemoryError", FailureKind.OUT_OF_MEMORY),
    ("WorkerCrashedError", FailureKind.WORKER_CRASH),
    ("TaskCancelledError", FailureKind.CANCELLED),
    ("NodeDiedError", FailureKind.NODE_LOST),
    ("LocalRayletDiedError", FailureKind.NODE_LOST),
    ("TaskUnschedulableError", FailureKind.NODE_LOST),
    ("RuntimeEnvSetupError", FailureKind.ENVIRONMENT),
    ("ObjectLostError", FailureKind.RESULT_LOST),
    ("ObjectStoreFullError", FailureKind.RESULT_LOST),
    ("OutOfDiskError", FailureKind.RESULT_LOST),
    (
        "RayTaskError",
        FailureKind.ENVIRONMENT,
    ),  # `run_envelope` raises nothing, so it was not loaded
)
_FATAL = re.compile(r"^Fatal Python error: (.*)$", re.MULTILINE)
_EXIT = re.compile(rf"^{re.escape(EXIT_NOTE)}\((-?\d+)\)$", re.MULTILINE)
_SIGNALS = {  # as faulthandler names them
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Floating point exception": signal.SIGFPE,
    "Floating-point exception": signal.SIGFPE,
    "Illegal instruction": signal.SIGILL,
}
_MESSAGE_CHARS = 2000
_SETUP_CHARS = 400  # kept from the end of what is usually a traceback
_CURRENT = "Current thread"
_ENVELOPE = "scythe_ray/on_node/task.py"
_LEAF = re.compile(r'File ".*[/\\]scythe[/\\](leaf[/\\]\w+|experiment)\.py"')


def failure_of(error: BaseException) -> LeafFailure:
    """Return the failure for an exception of Ray."""
    import ray.exceptions

    kind = FailureKind.CLUSTER_LOST
    for name, candidate in _KIND_OF:
        known = getattr(ray.exceptions, name, None)
        if known is not None and isinstance(error, known):
            kind = candidate
            break
    message = str(error).strip()[:_MESSAGE_CHARS] or type(error).__name__
    if kind is FailureKind.OUT_OF_MEMORY:
        return LeafFailure(kind, type(error).__name__, _memory_message(str(error)))
    if kind is FailureKind.ENVIRONMENT and isinstance(error, ray.exceptions.RayTaskError):
        last = str(error).strip().splitlines()[-1]
        message = (
            f"A Ray node cannot load Scythe's code ({last}). Install scythe-ray and the "
            "experiments, in the worker's versions, on every node."
        )
        return LeafFailure(kind, type(error).__name__, message, traceback=str(error))
    if kind is FailureKind.ENVIRONMENT:
        said = " ".join(str(error).split())
        message = (
            f"A Ray node cannot set up the runtime environment (… {said[-_SETUP_CHARS:]}). Correct "
            "SCYTHE_RAY_RUNTIME_ENV and start the worker again."
        )
        return LeafFailure(kind, type(error).__name__, message, traceback=str(error))
    return LeafFailure(kind, type(error).__name__, message)


def _memory_message(text: str) -> str:
    """Return Ray's message without the command lines of all processes of the node."""
    node = re.search(r"was ([\d.]+ ?\w+) used / ([\d.]+ ?\w+) limit", text)
    leaf = re.search(r"actual memory used=([\d.]+ ?\w+)", text)
    found = [
        f"{node[1]} of {node[2]} in use" if node else "",
        f"{leaf[1]} of it by the leaf's process" if leaf else "",
    ]
    details = ", ".join(part for part in found if part)
    return (
        f"Ray killed the leaf's process because its node was short of memory ({details}): set "
        "memory aside for each leaf with `resources=LeafResources(memory=…)`, use fewer slots, or "
        "a machine with more memory"
    )


def damage_failure(seen: Probe) -> LeafFailure | None:
    """Return the failure of a leaf whose process gave up outside of the user's function."""
    return fault_failure(seen.trace, stats_of(seen), seen.log)


def crash_failure(seen: Probe) -> LeafFailure:
    """Return the failure of a leaf whose process died."""
    fatal = _FATAL.search(seen.trace)
    exited = _EXIT.search(seen.trace)
    kind = FailureKind.WORKER_CRASH
    traceback = ""
    if exited:
        name = "ProcessExit"
        message = f"process ended with exit code {exited[1]} ({EXIT_NOTE})"
        traceback = f"Traceback (most recent call last):\n{_own_part(seen.trace, exited.end())}"
    elif fatal:
        number = _SIGNALS.get(fatal[1])
        name = fatal[1]
        message = f"killed by signal {number.value} ({number.name})" if number else fatal[0]
        traceback = clean_stacks(seen.trace)
    else:
        name = "Killed"
        message = "probably killed by signal 9 (SIGKILL), because it left no trace"
        if seen.memory:
            kind = FailureKind.OUT_OF_MEMORY
            message += (
                f" while the kernel was short of memory ({seen.memory} of the node in use after "
                "it): set memory aside for each leaf with `resources=LeafResources(memory=…)`, or "
                "use a machine with more"
            )
    return LeafFailure(kind, name, message, traceback, stats_of(seen), seen.log)


def ended_itself(seen: Probe) -> bool:
    """Return whether the leaf's own code ended the process, so that a rerun is useless."""
    return _EXIT.search(seen.trace) is not None


def timeout_failure(timeout: float, seen: Probe, *, importing: bool) -> LeafFailure:
    """Return the failure of a leaf that was killed at its time limit.

    Args:
        timeout: The limit in seconds.
        seen: The last probe.
        importing: Whether it was still importing its code.
    """
    if importing:
        return LeafFailure(
            FailureKind.ENVIRONMENT,
            "ImportTimeout",
            f"the user's code was not imported within {START_TIMEOUT:g} s: move slow work out of "
            "the top level of its modules",
            clean_stacks(seen.trace),
            stats_of(seen),
            seen.log,
        )
    return LeafFailure(
        FailureKind.TIMEOUT,
        "TimeoutError",
        f"the leaf ran longer than its limit of {timeout:g} s (execution_timeout) and was "
        "ended; the traceback shows where it was",
        clean_stacks(seen.trace),
        stats_of(seen),
        seen.log,
    )


def waited_failure(call: LeafCall, needs: str) -> LeafFailure:
    """Return the failure of a leaf that Ray did not start in time."""
    return LeafFailure(
        FailureKind.TIMEOUT,
        "ScheduleTimeout",
        f"Ray had no room for the leaf ({needs}) within {call.schedule_timeout:g} s "
        "(schedule_timeout): start more nodes or raise the limit",
        stats=LeafStats(platform.node()),
    )


def node_lost_failure(node: RayNode) -> LeafFailure:
    """Return the failure of a leaf whose node is gone."""
    return LeafFailure(
        FailureKind.NODE_LOST,
        "NodeLost",
        f"the Ray node {node.name} of the leaf is gone (node id {node.node_id})",
        stats=LeafStats(node.host),
    )


def taken_failure(lost: LeafFailure, how: str) -> LeafFailure:
    """Return the failure of a leaf whose Ray node was drained or preempted.

    Args:
        lost: The failure of a node that died.
        how: `preempted`, or `drained` (`ray drain-node`, or an autoscaler).
    """
    return replace(
        lost,
        kind=FailureKind.PREEMPTED,
        type=f"Node{how.capitalize()}",
        message=f"the Ray node of the leaf was {how}: {lost.message}",
    )


def lost_failure(why: str) -> LeafFailure:
    """Return the failure of a leaf whose cluster is lost."""
    return LeafFailure(
        FailureKind.CLUSTER_LOST,
        "ClusterLost",
        f"the Ray cluster is lost: {why}",
        stats=LeafStats(platform.node()),
    )


def infeasible_failure(message: str) -> LeafFailure:
    """Return the failure of a leaf that no Ray node can run."""
    return LeafFailure(
        FailureKind.INFEASIBLE, "Infeasible", message, stats=LeafStats(platform.node())
    )


def stats_of(seen: Probe) -> LeafStats:
    """Return the measurements of a leaf that left none itself."""
    now = time.time()
    return LeafStats(node=seen.node, pid=seen.pid, started=now - seen.elapsed, finished=now)


def clean_stacks(trace: str) -> str:
    """Return the stack of the thread that ran the leaf, without the frames of Ray and Scythe."""
    blocks = re.split(r"\n\s*\n", trace.strip())
    chosen = [block for block in blocks if block.startswith(_CURRENT)] or blocks[-1:]
    head = [block for block in blocks[:1] if block.startswith("Fatal Python error")]
    lines: list[str] = []
    for line in "\n".join([*head, *chosen]).splitlines():
        if _LEAF.search(line) or _ENVELOPE in line:
            break  # faulthandler's stacks have the innermost frame first
        lines.append(line)
    return "\n".join(lines)


def _own_part(trace: str, start: int) -> str:
    """Return the frames of a stack (outermost first) from the user's function on."""
    lines = trace[start:].strip("\n").splitlines()
    last = max((n for n, line in enumerate(lines) if _LEAF.search(line)), default=-2)
    return "\n".join(lines[last + 2 :])
