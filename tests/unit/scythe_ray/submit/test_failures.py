"""The failures of leaves whose process could not report them."""

from __future__ import annotations

import pytest

from scythe.outcomes import FailureKind
from scythe_ray.on_node.node_agent import Probe
from scythe_ray.submit.failures import crash_failure, ended_itself, failure_of, timeout_failure

SEGFAULT = """Fatal Python error: Segmentation fault

Thread 0x00007fa643fff6c0 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 327 in wait
  File "/site-packages/ray/_private/gc_collect_manager.py", line 29 in run

Current thread 0x00007fa68b670b80 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/me/experiments.py", line 7 in simulate
  File "/site-packages/scythe/experiment.py", line 101 in call
  File "/site-packages/scythe/leaf/run.py", line 70 in _run
  File "/site-packages/scythe_ray/on_node/task.py", line 120 in run_envelope
  File "/site-packages/ray/_private/workers/default_worker.py", line 327 in <module>

Extension modules: ray._raylet (total: 1)
"""
EXIT = """os._exit(3)
  File "/site-packages/scythe_ray/on_node/task.py", line 120, in run_envelope
    return run_leaf(job.call)
  File "/site-packages/scythe/experiment.py", line 101, in call
    result: Any = self.fn(**{self._parameter: spec}, **kwargs)
  File "/home/me/experiments.py", line 9, in simulate
    os._exit(3)
"""


def seen(trace: str = "", **more: object) -> Probe:
    return Probe("ended", "node-1", 42, 1.5, trace, **more)  # type: ignore[arg-type]


def test_a_segmentation_fault_shows_the_users_frames_only() -> None:
    failure = crash_failure(seen(SEGFAULT))
    assert (failure.kind, failure.type) == (FailureKind.WORKER_CRASH, "Segmentation fault")
    assert "SIGSEGV" in failure.message
    assert "line 7 in simulate" in failure.traceback
    assert "string_at" in failure.traceback
    assert "scythe" not in failure.traceback
    assert "gc_collect_manager" not in failure.traceback
    assert (failure.stats.node, failure.stats.pid) == ("node-1", 42)
    assert failure.stats.seconds == pytest.approx(1.5)


def test_an_exit_shows_its_code_and_its_line() -> None:
    failure = crash_failure(seen(EXIT))
    assert (failure.kind, failure.type) == (FailureKind.WORKER_CRASH, "ProcessExit")
    assert "exit code 3" in failure.message
    assert "line 9, in simulate" in failure.traceback
    assert "remote.py" not in failure.traceback
    assert ended_itself(seen(EXIT))
    assert not ended_itself(seen(SEGFAULT))


def test_a_process_that_left_nothing_was_killed() -> None:
    failure = crash_failure(seen())
    assert failure.kind is FailureKind.WORKER_CRASH
    assert "SIGKILL" in failure.message
    assert crash_failure(seen(log="so far\n")).log == "so far\n"
    short = crash_failure(seen(memory="7.90 GB of 8.00 GB"))
    assert short.kind is FailureKind.OUT_OF_MEMORY
    assert "7.90 GB of 8.00 GB of the node in use" in short.message


def test_a_timeout_says_where_the_leaf_was() -> None:
    stack = SEGFAULT.split("\n\n", 1)[1]
    failure = timeout_failure(0.7, seen(stack), importing=False)
    assert (failure.kind, failure.type) == (FailureKind.TIMEOUT, "TimeoutError")
    assert "0.7 s" in failure.message
    assert "line 7 in simulate" in failure.traceback
    assert timeout_failure(0.7, seen(log="so far"), importing=False).log == "so far"
    importing = timeout_failure(0.7, seen(), importing=True)
    assert importing.kind is FailureKind.ENVIRONMENT


def test_exceptions_of_ray_have_a_kind() -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    expected = {
        exceptions.OutOfMemoryError("killed"): FailureKind.OUT_OF_MEMORY,
        exceptions.WorkerCrashedError(): FailureKind.WORKER_CRASH,
        exceptions.TaskCancelledError(): FailureKind.CANCELLED,
        exceptions.NodeDiedError("node died"): FailureKind.NODE_LOST,
        exceptions.LocalRayletDiedError(): FailureKind.NODE_LOST,
        exceptions.RuntimeEnvSetupError("pip"): FailureKind.ENVIRONMENT,
        exceptions.ObjectLostError("00", None, ""): FailureKind.RESULT_LOST,
        exceptions.RaySystemError(RuntimeError("x")): FailureKind.CLUSTER_LOST,
        ConnectionError("gone"): FailureKind.CLUSTER_LOST,
    }
    assert {error: failure_of(error).kind for error in expected} == expected


def test_an_envelope_that_is_not_installed_on_the_node() -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    cause = ModuleNotFoundError("No module named 'scythe_ray'")
    text = "Traceback …\nModuleNotFoundError: No module named 'scythe_ray'"
    failure = failure_of(exceptions.RayTaskError("run_envelope", text, cause))
    assert failure.kind is FailureKind.ENVIRONMENT
    assert "No module named 'scythe_ray'" in failure.message
    assert "Install scythe-ray" in failure.message


def test_what_ray_says_of_memory_is_said_without_the_nodes_processes() -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    text = (
        "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
        "127.0.0.1, ID: e8) was 6.34GB used / 23.54GB limit (0.269281)\n(Task: lease ID=00, "
        "pid=5208, actual memory used=0.06GB)\nTop 10 memory users: PID MEM(GB) COMMAND\n"
        "20453 0.21 server --token=secret"
    )
    failure = failure_of(exceptions.OutOfMemoryError(text))
    assert failure.kind is FailureKind.OUT_OF_MEMORY
    assert "6.34GB of 23.54GB in use, 0.06GB of it by the leaf's process" in failure.message
    assert "secret" not in failure.summary + failure.traceback
