"""The worker processes that test_supervisor.py supervises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from scythe.processes.ending import MARK
from scythe.worker_processes.callbacks import ProcessCallbacks
from scythe.worker_processes.process_spec import (
    ProcessFailed,
    ProcessReady,
    ProcessSpec,
    ProcessStopping,
)
from scythe.worker_processes.running_leaves import RunningLeaf
from scythe.worker_processes.shared_state import SharedState
from scythe.worker_processes.worker_process import leave_terminal


def folder_of(plan: ProcessSpec) -> Path:
    return Path(plan.executor)


def note(plan: ProcessSpec, what: str) -> int:
    """Write a line to the part's file and return how many it has now."""
    path = folder_of(plan) / f"{plan.role}-{what}"
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len(path.read_text().splitlines())


def obedient(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Is ready at once, has a child in a session of its own, ends at SIGTERM."""
    leave_terminal()
    os.environ[MARK] = mark
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (folder_of(plan) / f"{plan.role}-child-{child.pid}").touch()
    note(plan, "starts")
    pipe.send(ProcessReady(2, "tests"))
    while True:
        signal.pause()


def replaced(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Asks, as an executor may, for a process in its place; more often than a part may die."""
    leave_terminal()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pipe.send(ProcessReady(2))
    if note(plan, "starts") <= 4:
        ProcessCallbacks(pipe.send).start_anew("Ray does not let go.")
    while True:
        signal.pause()


def placeless(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Says after its start that the worker is to stop; the second one tells what it was given."""
    leave_terminal()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pipe.send(ProcessReady(2, environment={"PLACE": "there"}))
    if plan.role == "leaf":
        if note(plan, "starts") == 1:
            sys.exit(3)
        pipe.send(ProcessFailed(f"No place: {plan.environment}.", for_good=True))
    while True:
        signal.pause()


def busy(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Has a leaf that never ends."""
    leave_terminal()
    note(plan, "starts")
    signal.signal(signal.SIGTERM, lambda *_: pipe.send(ProcessStopping(1)))
    pipe.send(ProcessReady(2))
    while True:
        signal.pause()


def unprepared(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Is killed by SIGTERM, as something has taken its handler away; a fan part is obedient."""
    if plan.role != "leaf":
        obedient(plan, mark, pipe, board)
    leave_terminal()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipe.send(ProcessReady(2))
    while True:
        signal.pause()


def stuck(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Has nothing to do, and does not end."""
    leave_terminal()
    signal.signal(signal.SIGTERM, lambda *_: pipe.send(ProcessStopping(0)))
    pipe.send(ProcessReady(2))
    while True:
        signal.pause()


def short_lived(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """The leaf part dies of a signal soon after each start; others live."""
    if plan.role != "leaf":
        obedient(plan, mark, pipe, board)
    note(plan, "starts")
    pipe.send(ProcessReady(2))
    os.kill(os.getpid(), signal.SIGABRT)


def poisoned(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Dies of a leaf until that is guilty, and then of the next one; the fifth start lives."""
    leave_terminal()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    starts = note(plan, "starts")
    found = {name: [one.deaths, one.is_guilty] for name, one in plan.suspects.items()}
    (folder_of(plan) / "suspects").write_text(json.dumps(found))
    pipe.send(ProcessReady(2))
    if starts < 5:
        leaf = RunningLeaf(f"leaf {starts // 3}", time.monotonic(), starts == 2)
        board.leaves_of(plan.number).add(leaf)
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        signal.pause()


def refusing(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Says why it cannot start."""
    pipe.send(ProcessFailed("The cluster is not there: start it."))
    sys.exit(1)


def mute(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Ends without a word."""
    os._exit(7)


def slow(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Is never ready."""
    time.sleep(600)


def without_engine(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Dies once, then finds the engine away six times, then lives."""
    starts = note(plan, "starts")
    if 2 <= starts <= 7:
        pipe.send(ProcessFailed("The engine is away.", away=True))
        sys.exit(1)
    leave_terminal()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pipe.send(ProcessReady(2))
    if starts == 1:
        sys.exit(3)
    while True:
        signal.pause()


def telling(plan: ProcessSpec, mark: str, pipe: Connection, board: SharedState) -> None:
    """Offers what the file `offer` says, again whenever that changes; has a leaf while told so."""
    leave_terminal()
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
    folder = folder_of(plan)
    log = folder / f"{plan.title}-starts"
    with log.open("a") as file:
        file.write(f"{os.getpid()} {json.dumps(plan.shared)}\n")
    said = ""
    while not stops:
        text = (folder / "offer").read_text()
        if text != said and text.endswith("}"):
            said = text
            pipe.send(ProcessReady(**json.loads(text)))
        time.sleep(0.02)
    pipe.send(ProcessStopping(1))
    while (folder / "leaf-runs").exists():
        time.sleep(0.02)
    (folder / f"{plan.title}-ends").touch()
