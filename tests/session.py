"""Common ground of all workers of one test run: a folder, an environment, and who cleans up.

`make test` runs three pytest workers (pytest-xdist), each with a stack of its own, so that no
Scythe worker of one takes a task of another. The process that starts them removes the stacks, also
those of a worker that crashed.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from scythe.processes.proxies import keep_loopback_direct

SESSION = "SCYTHE_TEST_SESSION"  # the folder of the run
GIVEN = "SCYTHE_TEST_STACK_HOME"  # a stack that runs already, for a run with one worker
_KEPT = {GIVEN, SESSION, "SCYTHE_CACHE_DIR", "SCYTHE_CHAOS_PAGE"}
_OURS = ("SCYTHE_", "AWS_", "HATCHET_", "RAY_")
_WATCHED = ("SCYTHE_", "AWS_", "HATCHET_", "HOME", "PATH", "PYTHONPATH", "TMPDIR")
_STOP_SECONDS = 90.0  # in which an interrupted worker must end what its tests have started


def session_folder() -> Path:
    """Return the folder of this run."""
    return Path(os.environ[SESSION])


def watched_environment() -> dict[str, str]:
    """Return the variables, and the working directory, that no test may leave changed."""
    found = {name: value for name, value in os.environ.items() if name.startswith(_WATCHED)}
    return {**found, "the working directory": os.getcwd()}  # noqa: PTH109


def restore_environment(before: dict[str, str]) -> list[str]:
    """Undo changes since `watched_environment`; return the names of what was changed."""
    after = watched_environment()
    changed = sorted(name for name in before.keys() | after if before.get(name) != after.get(name))
    variables = dict(before)
    os.chdir(variables.pop("the working directory"))
    for name in changed:
        os.environ.pop(name, None)
    os.environ.update(variables)
    return changed


def configure(config: pytest.Config) -> None:
    """Begin a run, or one of its workers.

    Variables of whoever runs the tests, and a local stack of theirs, are hidden from the tests.
    """
    for name in list(os.environ):
        if name.startswith(_OURS) and name not in _KEPT:
            del os.environ[name]
    if hasattr(config, "workerinput"):
        os.setsid()  # a terminal's Ctrl-C goes to the controller only, which passes it on
    else:
        config.pluginmanager.register(Controller(has_workers=bool(config.getoption("tx", None))))
    os.environ["SCYTHE_DEV_HOME"] = str(session_folder() / "no-stack")
    keep_loopback_direct()


class Controller:
    """Plugin of the process that starts the workers, or that runs all tests itself.

    Args:
        has_workers: Whether other processes run the tests.
    """

    def __init__(self, *, has_workers: bool) -> None:
        self._has_workers = has_workers
        os.environ[SESSION] = tempfile.mkdtemp(prefix="scythe-test-", dir="/tmp")
        # A shell that starts the tests in the background lets them ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if has_workers:
            signal.signal(signal.SIGTERM, signal.default_int_handler)

    def pytest_keyboard_interrupt(self) -> None:
        """Interrupt the workers, and wait until their tests have ended what they started."""
        if not self._has_workers:
            return
        deadline = time.monotonic() + _STOP_SECONDS
        workers = psutil.Process().children()
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        while time.monotonic() < deadline and not all(
            _ended(worker.pid).exists() or not worker.is_running() for worker in workers
        ):
            time.sleep(0.05)

    def pytest_unconfigure(self) -> None:
        """Remove all stacks that were started."""
        from scythe.stack import reset

        folder = session_folder()
        for home in folder.glob("stack-*"):
            reset(home)
        shutil.rmtree(folder, ignore_errors=True)


def end_worker() -> None:
    """Record that this worker has finished its last fixture."""
    _ended(os.getpid()).touch()


def _ended(pid: int) -> Path:
    return session_folder() / f"ended-{pid}"
