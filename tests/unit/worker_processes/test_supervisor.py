"""The supervisor, with real processes whose parts do what supervised_processes.py says."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from scythe.errors import WorkerStartError
from scythe.worker_processes import supervisor as module
from scythe.worker_processes.process_group import RestartPolicy
from scythe.worker_processes.process_spec import ProcessSpec
from scythe.worker_processes.supervisor import Supervisor
from tests.unit.worker_processes import supervised_processes as entries

QUICK = RestartPolicy(first=0.05, longest=0.1, healthy=60, most=3, start=60)


@pytest.fixture
def plans(tmp_path: Path) -> list[ProcessSpec]:
    common: dict[str, Any] = {"executor": str(tmp_path), "shutdown_timeout": 20.0}
    return [ProcessSpec("w", "leaf", **common), ProcessSpec("w--fan", "fan", **common)]


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Running:
    """A supervisor in a thread."""

    def __init__(self, plans: list[ProcessSpec], entry: Any, policy: RestartPolicy = QUICK) -> None:
        self.ready: list[list[int]] = []
        self.error: BaseException | None = None
        self.supervisor = Supervisor(
            plans,
            lambda children: self.ready.append([child.pid for child in children]),
            policy,
            entry,
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except BaseException as error:
            self.error = error
        finally:
            self.supervisor.close()

    def wait_ready(self) -> list[int]:
        wait_until(lambda: self.ready or self.error, "the parts are ready")
        assert self.error is None
        return self.ready[0]

    def finish(self, seconds: float = 30) -> None:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the supervisor does not end"


def children_of(folder: Path) -> list[int]:
    return [int(path.name.rsplit("-", 1)[1]) for path in folder.glob("*-child-*")]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_wait_doubles_up_to_the_longest() -> None:
    policy = RestartPolicy()
    assert [policy.delay(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_stop_ends_the_parts_and_what_they_started(
    plans: list[ProcessSpec], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scythe")
    running = Running(plans, entries.obedient)
    pids = running.wait_ready()
    assert len(set(pids)) == 2
    assert all(os.getpgid(pid) == pid for pid in pids), "Ctrl-C would reach the parts"
    running.supervisor.stop()
    running.finish()
    assert running.error is None
    assert running.supervisor.forced_by is None
    assert len(running.ready) == 1
    assert all(map(is_gone, [*pids, *children_of(tmp_path)]))
    assert "Stopping; running leaves may continue for 20 s" in caplog.text
    assert "while stopping" not in caplog.text


def test_a_part_that_dies_instead_of_stopping_is_named(
    plans: list[ProcessSpec], caplog: pytest.LogCaptureFixture
) -> None:
    """It gave nothing back and cleaned nothing up."""
    running = Running(plans, entries.unprepared)
    pids = running.wait_ready()
    running.supervisor.stop()
    running.finish()
    assert running.error is None
    (warning,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warning == (
        f"The leaf worker process (w, pid {pids[0]}) ended abnormally while stopping "
        "(killed by SIGTERM)."
    )


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_part_is_started_again_once_all_of_it_is_gone(
    which: int, plans: list[ProcessSpec], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scythe")
    running = Running(plans, entries.obedient)
    pids = running.wait_ready()
    role = plans[which].role
    (child,) = [int(p.name.rsplit("-", 1)[1]) for p in tmp_path.glob(f"{role}-child-*")]
    os.kill(pids[which], signal.SIGKILL)
    starts = tmp_path / f"{role}-starts"
    wait_until(lambda: len(starts.read_text().splitlines()) == 2, "a second start")
    assert is_gone(child)
    assert not is_gone(pids[1 - which]), "the other part goes on"
    wait_until(lambda: "is ready again" in caplog.text, "the log says that it is back")
    running.supervisor.stop()
    running.finish()
    assert running.error is None
    assert all(map(is_gone, children_of(tmp_path)))
    died = next(one for one in caplog.records if one.levelno == logging.ERROR).getMessage()
    assert f"The {role} worker process ({plans[which].name}, pid {pids[which]}) died" in died
    assert "killed by SIGKILL" in died


def test_a_part_that_keeps_dying_is_given_up(
    plans: list[ProcessSpec], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(plans, entries.short_lived)
    running.finish()
    assert isinstance(running.error, WorkerStartError)
    assert "The leaf worker process (w, pid" in str(running.error)
    assert "died 3 times in short succession, the last time with killed by SIGABRT" in str(
        running.error
    )
    assert len((tmp_path / "leaf-starts").read_text().splitlines()) == 3
    assert all(map(is_gone, children_of(tmp_path))), "the other part is stopped too"


def test_a_part_that_dies_of_its_leaves_is_told_of_them_and_never_given_up(
    plans: list[ProcessSpec], tmp_path: Path
) -> None:
    running = Running(plans[:1], entries.poisoned)
    starts = tmp_path / "leaf-starts"
    wait_until(lambda: starts.exists() and len(starts.read_text().splitlines()) == 5, "five starts")
    wait_until(lambda: "leaf 1" in (tmp_path / "suspects").read_text(), "the fifth has written")
    running.supervisor.stop()
    running.finish()
    assert running.error is None
    found = json.loads((tmp_path / "suspects").read_text())
    assert found == {"leaf 0": [2, True], "leaf 1": [2, False]}


def test_a_part_that_asks_for_it_is_started_anew_however_often(
    plans: list[ProcessSpec], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(plans[:1], entries.replaced)
    starts = tmp_path / "leaf-starts"
    wait_until(lambda: starts.exists() and len(starts.read_text().splitlines()) == 5, "five starts")
    running.supervisor.stop()
    running.finish()
    assert running.error is None
    assert "Ray does not let go." in caplog.text


def test_a_part_that_has_no_place_any_more_ends_the_worker(
    plans: list[ProcessSpec], tmp_path: Path
) -> None:
    """Before that it died: what takes its place is told where the place was."""
    running = Running(plans, entries.placeless)
    running.finish()
    assert isinstance(running.error, WorkerStartError)
    assert str(running.error) == "No place: {'PLACE': 'there'}."
    assert len((tmp_path / "leaf-starts").read_text().splitlines()) == 2


def test_deaths_are_forgotten_after_good_health(
    plans: list[ProcessSpec], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scythe")
    policy = RestartPolicy(first=0.05, longest=0.1, healthy=0.2, most=2)
    running = Running(plans[:1], entries.obedient, policy)
    pids = running.wait_ready()
    for deaths in (1, 2):
        time.sleep(policy.healthy * 1.5)  # of good health
        os.kill(pids[-1], signal.SIGKILL)
        wait_until(lambda n=deaths: caplog.text.count("is ready again") == n, "it is back")
        pids = [int(line) for line in (tmp_path / "leaf-starts").read_text().splitlines()]
    running.supervisor.stop()
    running.finish()
    assert running.error is None


def test_an_engine_that_is_away_is_no_reason_to_give_up(
    plans: list[ProcessSpec], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scythe")
    running = Running(plans[:1], entries.without_engine)
    wait_until(lambda: "is ready again" in caplog.text, "the part is back")
    running.supervisor.stop()
    running.finish()
    assert running.error is None
    starts = len((tmp_path / "leaf-starts").read_text().splitlines())
    assert starts > QUICK.most + 1, "as many deaths in a row would have ended the worker"
    assert "exit code 1: The engine is away." in caplog.text


@pytest.mark.parametrize(
    ("entry", "seconds", "words"),
    [
        (entries.refusing, 60, "The cluster is not there: start it."),
        (entries.mute, 60, "ended during its start (exit code 7)"),
        (entries.slow, 1, "The leaf worker process was not ready after 1 s"),
    ],
)
def test_a_part_that_does_not_start_ends_the_start(
    entry: Any, seconds: float, words: str, plans: list[ProcessSpec]
) -> None:
    policy = RestartPolicy(first=0.05, start=seconds)
    running = Running(plans, entry, policy)
    running.finish()
    assert isinstance(running.error, WorkerStartError)
    assert words in str(running.error)
    assert running.ready == []


def test_a_process_that_cannot_be_started_ends_the_start(
    plans: list[ProcessSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refuse)
    running = Running(plans, entries.obedient)
    running.finish()
    assert isinstance(running.error, WorkerStartError)
    assert "The leaf worker process cannot be started ([Errno 11] Resource" in str(running.error)


def test_leaves_that_outlast_their_time_are_ended_and_the_log_says_what_becomes_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scythe")
    plan = ProcessSpec("w", "leaf", executor=str(tmp_path), shutdown_timeout=0.5)
    running = Running([plan], entries.busy)
    pids = running.wait_ready()
    running.supervisor.stop()
    running.finish()
    assert running.error is None
    assert all(map(is_gone, pids))
    assert "waits for 1 running leaf." in caplog.text
    assert (
        "was killed (it had not stopped after 0.5 s) with 1 running leaf, which Hatchet gives to "
        "another worker in about 30 s." in caplog.text
    )


def test_a_part_without_leaves_gets_time_to_wind_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WIND_DOWN", 1.0)
    plan = ProcessSpec("w", "leaf", executor=str(tmp_path), shutdown_timeout=0.0)
    running = Running([plan], entries.stuck)
    running.wait_ready()
    running.supervisor.stop()
    started = time.monotonic()
    running.finish()
    assert time.monotonic() - started >= 0.9
    assert "was killed (it had not stopped after 1 s)." in caplog.text


def test_the_second_request_ends_the_parts_at_once(
    plans: list[ProcessSpec], caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(plans, entries.busy)
    pids = running.wait_ready()
    running.supervisor.stop()
    running.supervisor.stop()
    running.finish(10)
    assert running.error is None
    assert running.supervisor.forced_by is None, "that was no signal"
    assert all(map(is_gone, pids))
    assert "asked to stop at once" in caplog.text


class Signals:
    """Sends signals to this process when the parts are ready, while the main thread supervises."""

    def __init__(self, *steps: tuple[int, float]) -> None:
        self.steps = steps
        self.thread = threading.Thread(target=self._send)

    def __call__(self, children: Any) -> None:
        self.thread.start()

    def _send(self) -> None:
        for number, pause in self.steps:
            time.sleep(pause)
            os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully(number: int, plans: list[ProcessSpec]) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    signals = Signals((number, 0.0))
    supervisor = Supervisor(plans, signals, QUICK, entries.obedient)
    supervisor.run()
    supervisor.close()
    signals.thread.join()
    assert supervisor.forced_by is None
    assert before == [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]


def test_the_second_signal_stops_at_once(plans: list[ProcessSpec]) -> None:
    signals = Signals((signal.SIGTERM, 0.0), (signal.SIGINT, 0.8))
    supervisor = Supervisor(plans, signals, QUICK, entries.busy)
    supervisor.run()
    supervisor.close()
    signals.thread.join()
    assert supervisor.forced_by == signal.SIGINT


def test_a_signal_that_a_wrapper_repeats_counts_once(
    plans: list[ProcessSpec], caplog: pytest.LogCaptureFixture
) -> None:
    signals = Signals((signal.SIGINT, 0.0), (signal.SIGINT, 0.05))
    supervisor = Supervisor(plans, signals, QUICK, entries.obedient)
    supervisor.run()
    supervisor.close()
    signals.thread.join()
    assert supervisor.forced_by is None
    assert "at once" not in caplog.text
