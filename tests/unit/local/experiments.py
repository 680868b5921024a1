"""Experiments for the tests of the local pool; imported by its processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

LONG = 600


class Task(ExperimentInputSpec):
    folder: str = ""
    how: str = ""


class Text(ExperimentOutputSpec):
    text: str = ""


@ExperimentRegistry.Register()
def pid(spec: Task) -> Text:
    return Text(text=str(os.getpid()))


@ExperimentRegistry.Register()
def interval(spec: Task) -> Text:
    """Says when it ran, by a clock that all processes share."""
    began = time.monotonic()
    time.sleep(0.3)
    return Text(text=json.dumps([began, time.monotonic()]))


@ExperimentRegistry.Register()
def meets(spec: Task) -> Text:
    """Waits for another leaf that runs at the same time."""
    Path(spec.folder, f"met{spec.sort_index}").write_text("x")
    deadline = time.monotonic() + 30
    while len(list(Path(spec.folder).glob("met*"))) < 2:
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.01)
    return Text()


@ExperimentRegistry.Register()
def modules(spec: Task) -> Text:
    return Text(text=" ".join({name.partition(".")[0] for name in sys.modules}))


@ExperimentRegistry.Register()
def tidies_up(spec: Task) -> Text:
    """Is interrupted, and says so in its `finally`."""
    with tempfile.TemporaryDirectory(dir=spec.folder, prefix="own-"):
        try:
            Path(spec.folder, "started").write_text(str(os.getpid()))
            time.sleep(LONG)
        finally:
            Path(spec.folder, "tidied").write_text("x")
    return Text()


@ExperimentRegistry.Register()
def is_killed(spec: Task) -> Text:
    """Its process is killed, the first time or every time."""
    mark = Path(spec.folder, "been here")
    seen = mark.exists()
    mark.write_text("x")
    with Path(spec.folder, "tries").open("a") as file:
        file.write("x")
    number, _, when = spec.how.partition(" ")
    if when == "always" or not seen:
        os.kill(os.getpid(), getattr(signal, number))
        time.sleep(LONG)
    return Text(text="done")


@ExperimentRegistry.Register()
def misbehaves(spec: Task) -> Text:
    """Does to its process what user code does."""
    _MISDEEDS[spec.how](spec)
    return Text(text=str(os.getpid()))


def _handlers(spec: Task) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.05)  # would end the process during the next leaf


def _streams(spec: Task) -> None:
    os.close(1)
    sys.stderr.close()


def _replaced_streams(spec: Task) -> None:
    sys.stdout = Path(spec.folder, "stdout").open("w")  # noqa: SIM115
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)


def _fork(spec: Task) -> None:
    """Forks, and lets the child come back as if it were the leaf."""
    if os.fork() == 0:
        return
    os.wait()


def _fork_fails(spec: Task) -> None:
    child = os.fork()
    if child == 0:
        raise ValueError("in the fork")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def _thread(spec: Task) -> None:
    threading.Thread(target=time.sleep, args=(LONG,)).start()


def _children(spec: Task) -> None:
    """Leaves a child, one in its own session and an orphan's orphan."""
    child = subprocess.Popen(["sleep", str(LONG)])
    own = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
    orphan = subprocess.run(
        ["sh", "-c", f"setsid sleep {LONG} >/dev/null 2>&1 & echo $!"],
        capture_output=True,
        check=True,
    )
    Path(spec.folder, "children").write_text(f"{child.pid} {own.pid} {int(orphan.stdout)}")


def _zombie(spec: Task) -> None:
    """Leaves a process that has ended and was not asked how."""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


_MISDEEDS = {
    "handlers": _handlers,
    "streams": _streams,
    "replaced streams": _replaced_streams,
    "fork": _fork,
    "fork that fails": _fork_fails,
    "thread": _thread,
    "zombie": _zombie,
    "children": _children,
}


@ExperimentRegistry.Register()
def behaves(spec: Task) -> Text:
    """Prints, waits a moment and looks around."""
    print(f"printed by {spec.how}", flush=True)
    print(f"complained by {spec.how}", file=sys.stderr, flush=True)
    time.sleep(0.2)
    return Text(
        text=json.dumps({"pid": os.getpid(), "term": str(signal.getsignal(signal.SIGTERM))})
    )


def square(number: int) -> int:
    return number * number


@ExperimentRegistry.Register()
def uses_processes(spec: Task) -> Text:
    """Uses multiprocessing as users do."""
    if spec.how == "futures":
        with ProcessPoolExecutor(2) as pool:
            return Text(text=str(list(pool.map(square, range(5)))))
    with multiprocessing.get_context(spec.how).Pool(2) as pool:
        return Text(text=str(pool.map(square, range(5))))


@ExperimentRegistry.Register()
def ends_its_forks(spec: Task) -> Text:
    """Forks, and ends the new process at once, as pools do that are not needed any more."""
    endings: set[int] = set()
    for _ in range(500):
        child = os.fork()
        if child == 0:
            time.sleep(LONG)
        os.kill(child, signal.SIGTERM)
        endings.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return Text(text=str(endings))


@ExperimentRegistry.Register()
def crashes_with_children(spec: Task) -> Text:
    """Leaves a program in a session of its own, then ends its process."""
    child = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
    Path(spec.folder, "children").write_text(str(child.pid))
    os._exit(3)


@ExperimentRegistry.Register()
def closes_everything(spec: Task) -> Text:
    """Closes the channel to the worker, as code that makes a daemon of itself does."""
    os.closerange(3, 256)
    return Text()
