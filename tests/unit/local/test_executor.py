"""The local pool: what is its own, beyond what every executor promises."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scythe.errors import ExecutorUnavailable, LeafFailed, WorkerStartError
from scythe.executor import ExecutorRequest
from scythe.local import executor as local
from scythe.local import slots
from scythe.local.executor import LocalExecutor, open_executor
from scythe.local.pool_messages import Inbox, Ready, frame_of
from scythe.locate import code_ref
from scythe.outcomes import CodeRef, FailureKind, LeafCall, LeafFailure, LeafResources, StoreConfig
from scythe.processes.frames import framed
from scythe.specs.codec import encode_spec
from tests.unit.local import experiments

ROOT = Path(__file__).parents[3]


def make_call(experiment: Any, index: int = 0, *, how: str = "", folder: object = "", **options):
    spec = experiments.Task(experiment_id="a/v/d", sort_index=index, how=how, folder=str(folder))
    return LeafCall(
        leaf_id=f"leaf-{index}",
        code=options.pop("code", None) or code_ref(experiment),
        spec=encode_spec(spec),
        experiment_id="a/v/d",
        store=StoreConfig(bucket="none"),
        **options,
    )


class Pool:
    """An open pool and the loop that it belongs to."""

    def __init__(self, executor: LocalExecutor, runner: asyncio.Runner) -> None:
        self.executor = executor
        self._runner = runner

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(60):
                return await work

        return self._runner.run(limited())

    def text(self, experiment: Any, **options: Any) -> str:
        result = self.do(self.executor.run(make_call(experiment, **options)))
        return json.loads(result.scalars)["text"]

    def failure(self, experiment: Any, **options: Any) -> LeafFailure:
        with pytest.raises(LeafFailed) as caught:
            self.do(self.executor.run(make_call(experiment, **options)))
        return caught.value.failure


@pytest.fixture
def open_pool() -> Iterator[Callable[[int], Pool]]:
    """Opens pools; they are closed, and must have left nothing, when the test is over."""
    with asyncio.Runner() as runner:
        pools: list[Pool] = []

        def start(count: int = 1) -> Pool:
            pools.append(Pool(open_executor(ExecutorRequest(slots=count)), runner))
            return pools[-1]

        yield start
        for pool in pools:
            pool.do(pool.executor.aclose())
            assert not pool.executor._folder.exists()
            left = [one for one in psutil.process_iter() if _belongs(one, pool)]
            assert left == []


def _belongs(process: psutil.Process, pool: Pool) -> bool:
    """Return whether a living process is of the pool, or was started by one of its leaves."""
    try:
        mark = process.environ().get("SCYTHE_PROCESS", "")
        return mark.startswith(pool.executor._mark) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.fixture
def pool(open_pool: Callable[[int], Pool]) -> Pool:
    """A pool of one process, so that each leaf meets what the one before left."""
    return open_pool(1)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"waited {seconds} s for {what}"
        time.sleep(0.01)
    return time.monotonic() - began


async def until(condition: Callable[[], Any], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what)


# --- slots ---------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    def is_like(cpus: int, affinity: int | None = None, quota: str = "max 100000") -> None:
        (tmp_path / "cpu.max").write_text(quota)
        monkeypatch.setattr(slots, "_QUOTAS", ((str(tmp_path / "cpu.max"),),))
        monkeypatch.setattr(os, "cpu_count", lambda: cpus)
        monkeypatch.setattr(os, "sysconf", lambda _: cpus)
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _: set(range(affinity or cpus)), raising=False
        )

    return is_like


@pytest.mark.parametrize(("cpus", "expected"), [(1, 1), (2, 2), (7, 7), (8, 7), (64, 63)])
def test_slots_are_the_cpus_less_one_from_eight_on(machine, cpus: int, expected: int) -> None:
    machine(cpus)
    assert slots.default_slots()[0] == expected
    assert slots.default_slots()[1].startswith(f"{expected} ")


def test_fewer_cpus_count_where_the_process_is_confined(machine) -> None:
    machine(64, affinity=4)
    assert slots.default_slots() == (4, "4 of the 4 CPUs (of 64) that this process may use")
    machine(64, quota="250000 100000")
    assert slots.default_slots()[0] == 3
    machine(2, quota="1600000 100000")
    assert slots.default_slots()[0] == 2


def test_the_capacity_says_where_it_comes_from(open_pool) -> None:
    capacity = open_pool(3).executor.capacity
    assert (capacity.slots, capacity.source) == (3, "SLOTS=3")
    assert capacity.place.startswith("3 processes on ")


def test_no_slots_are_no_worker() -> None:
    with pytest.raises(WorkerStartError, match="at least 1, got 0"):
        open_executor(ExecutorRequest(slots=0))


def test_slots_are_given_in_order_and_many_are_not_overtaken() -> None:
    async def scenario() -> list[str]:
        given, order = slots.Slots(2), []

        async def use(name: str, count: int) -> None:
            async with given.held(count, 10):
                order.append(name)
                await asyncio.sleep(0.02)

        names = [("a", 1), ("big", 2), ("b", 1), ("c", 1)]
        await asyncio.gather(*(use(name, count) for name, count in names))
        return order

    assert asyncio.run(scenario()) == ["a", "big", "b", "c"]


def test_no_slot_is_lost_by_a_cancel_or_a_deadline() -> None:
    async def scenario() -> None:
        given = slots.Slots(2)
        async with given.held(1, 1):
            waiting = asyncio.ensure_future(_hold(given, 2))
            behind = asyncio.ensure_future(_hold(given, 1))
            await asyncio.sleep(0)
            waiting.cancel()  # the one behind it fits now
            await asyncio.wait_for(behind, 1)
            with pytest.raises(slots.NoSlotInTimeError):
                async with given.held(2, 0.01):
                    pass
        given_and_cancelled = asyncio.ensure_future(_hold(given, 2))
        async with given.held(2, 1):
            await asyncio.sleep(0)
        given_and_cancelled.cancel()  # in the moment in which it is its turn
        await asyncio.gather(given_and_cancelled, return_exceptions=True)
        async with given.held(2, 1):
            pass

    asyncio.run(scenario())


async def _hold(given: slots.Slots, count: int) -> None:
    async with given.held(count, 10):
        pass


def test_a_leaf_of_two_cpus_has_two_slots_for_itself(open_pool) -> None:
    pool = open_pool(2)

    async def scenario() -> list[list[float]]:
        wide = LeafResources(cpus=2)
        calls = [make_call(experiments.interval, n) for n in range(2)]
        calls.insert(1, make_call(experiments.interval, 9, resources=wide))
        results = await asyncio.gather(*(pool.executor.run(call) for call in calls))
        return [json.loads(json.loads(one.scalars)["text"]) for one in results]

    first, wide, last = pool.do(scenario())
    assert first[1] <= wide[0]
    assert wide[1] <= last[0]


def test_a_leaf_that_waits_too_long_for_its_slot_fails_as_that(pool: Pool) -> None:
    async def scenario() -> None:
        running = asyncio.ensure_future(pool.executor.run(make_call(experiments.interval)))
        await asyncio.sleep(0)
        with pytest.raises(ExecutorUnavailable, match="schedule_timeout") as caught:
            await pool.executor.run(make_call(experiments.pid, schedule_timeout=0.05))
        assert caught.value.failure.type == "ScheduleTimeout"
        await running

    pool.do(scenario())


# --- processes -----------------------------------------------------------------------------------


def test_a_process_is_used_again_and_imports_nothing_heavy(pool: Pool) -> None:
    assert pool.text(experiments.pid) == pool.text(experiments.pid)
    loaded = set(pool.text(experiments.modules).split())
    assert not loaded & {"hatchet_sdk", "ray", "pandas", "pyarrow", "boto3", "numpy", "psutil"}


def test_ctrl_c_is_for_the_worker(pool: Pool, tmp_path: Path) -> None:
    pid = int(pool.text(experiments.pid))
    assert os.getpgid(pid) == pid, "a terminal's Ctrl-C goes to the worker's group"

    async def scenario() -> str:
        task = asyncio.ensure_future(pool.executor.run(make_call(experiments.interval)))
        for _ in range(5):
            await asyncio.sleep(0.05)
            os.kill(pid, signal.SIGINT)
        return (await task).scalars

    pool.do(scenario())
    assert int(pool.text(experiments.pid)) == pid


def test_a_fresh_process_is_there_for_one_leaf(open_pool) -> None:
    pool = open_pool(2)
    fresh = LeafResources(fresh_process=True)
    pids = [pool.text(experiments.pid, resources=fresh) for _ in range(4)]
    assert len(set(pids)) == 4
    assert pool.text(experiments.pid) not in pids
    wait_until(lambda: len(_pool_processes(pool)) <= 2, "surplus processes to end")


def _pool_processes(pool: Pool) -> list[int]:
    return [child.pid for child in psutil.Process().children() if _belongs(child, pool)]


def test_a_process_that_ends_while_idle_is_replaced(pool: Pool, caplog) -> None:
    pid = int(pool.text(experiments.pid))
    os.kill(pid, signal.SIGKILL)
    with caplog.at_level(logging.WARNING, "scythe.local"):
        pool.do(until(lambda: _pool_processes(pool) not in ([], [pid]), "another process"))
    assert f"Process {pid} ended while it was idle" in caplog.text
    assert int(pool.text(experiments.pid)) != pid


def test_a_process_killed_in_the_moment_of_its_leaf_loses_no_leaf(pool: Pool) -> None:
    for _ in range(5):
        pid = int(pool.text(experiments.pid))
        os.kill(pid, signal.SIGKILL)  # the loop does not know yet when the next leaf is given
        assert int(pool.text(experiments.pid)) != pid


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_a_leaf_whose_process_is_killed_is_tried_again_once(
    pool: Pool, tmp_path: Path, number: str
) -> None:
    assert pool.text(experiments.is_killed, how=f"{number} once", folder=tmp_path) == "done"
    assert (tmp_path / "tries").read_text() == "xx"


@pytest.mark.parametrize("number", ["SIGKILL", "SIGABRT"])
def test_a_leaf_that_kills_its_process_twice_has_failed(
    pool: Pool, tmp_path: Path, number: str
) -> None:
    failure = pool.failure(experiments.is_killed, how=f"{number} always", folder=tmp_path)
    assert failure.kind is FailureKind.WORKER_CRASH
    assert f"({number}), also when it was tried again" in failure.message
    assert (tmp_path / "tries").read_text() == "xx"
    assert pool.text(experiments.pid)


def test_a_process_killed_for_lack_of_memory_is_told_apart(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.text(experiments.pid)
    kills = pool.executor._oom_kills
    monkeypatch.setattr(local, "oom_kills", lambda: kills + 1)
    failure = pool.failure(experiments.is_killed, how="SIGKILL always", folder=tmp_path)
    assert failure.kind is FailureKind.OUT_OF_MEMORY
    assert "GB in use" in failure.message
    assert failure.stats.peak_rss > 10_000_000
    assert (tmp_path / "tries").read_text() == "x", "not tried again at once"


def test_a_crash_leaves_no_orphan_in_its_own_session(pool: Pool, tmp_path: Path) -> None:
    failure = pool.failure(experiments.crashes_with_children, folder=tmp_path)
    assert "exit code 3" in failure.message
    assert not is_alive(int((tmp_path / "children").read_text()))


def test_a_leaf_that_closes_the_channel_fails_alone(pool: Pool) -> None:
    assert pool.failure(experiments.closes_everything).kind is FailureKind.WORKER_CRASH
    assert pool.text(experiments.pid)


def test_the_end_of_a_process_is_noticed_without_pidfd(
    open_pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    pool = open_pool(1)
    failure = pool.failure(experiments.is_killed, how="SIGABRT always", folder=tmp_path)
    assert "SIGABRT" in failure.message
    assert pool.failure(experiments.tidies_up, folder=tmp_path, timeout=0.3).kind == "timeout"
    assert pool.text(experiments.pid)


# --- what a leaf does to its process -------------------------------------------------------------


def test_what_a_leaf_left_running_is_ended(pool: Pool, tmp_path: Path, caplog) -> None:
    pid = pool.text(experiments.leaves_children, folder=tmp_path)
    children = [int(word) for word in (tmp_path / "children").read_text().split()]
    assert len(children) == 3
    assert [child for child in children if is_alive(child)] == []
    assert "leaf-0 left behind: sleep" in caplog.text
    assert pool.text(experiments.pid) != pid, "what it had to do with them is gone as well"


# --- timeout and cancel --------------------------------------------------------------------------


def test_a_leaf_that_takes_too_long_may_tidy_up(pool: Pool, tmp_path: Path) -> None:
    failure = pool.failure(experiments.tidies_up, folder=tmp_path, timeout=0.3)
    assert failure.kind is FailureKind.TIMEOUT
    assert (tmp_path / "tidied").exists()
    assert list(tmp_path.glob("own-*")) == []
    assert "in tidies_up" in failure.traceback
    package = Path(local.__file__).parents[1]  # its checkout may have the same name
    assert f"{package}{os.sep}" not in failure.traceback


def test_the_time_of_a_leaf_begins_when_its_code_is_there(pool: Pool) -> None:
    code = CodeRef(
        "scythe_experiment_imported_slowly", "tests.unit.local.slow_import", "imported_slowly"
    )
    assert pool.text(None, code=code, timeout=0.5) == "done"


def test_a_second_cancel_does_not_leave_it_alive(pool: Pool, tmp_path: Path) -> None:
    async def scenario() -> int:
        call = make_call(experiments.tidies_up, folder=tmp_path)
        task = asyncio.ensure_future(pool.executor.run(call))
        await until((tmp_path / "started").exists, "the leaf")
        task.cancel()
        await asyncio.sleep(0)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0.001)
        assert task.cancelled()
        return int((tmp_path / "started").read_text())

    assert not is_alive(pool.do(scenario()))
    assert pool.text(experiments.pid)


def test_a_cancel_while_the_process_starts_loses_nothing(pool: Pool) -> None:
    async def scenario() -> None:
        task = asyncio.ensure_future(pool.executor.run(make_call(experiments.pid)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = [process.root for process in pool.executor._processes]
    pool.do(scenario())
    leaf = psutil.Process(int(pool.text(experiments.pid)))
    assert [leaf.ppid()] == started


def test_cancels_at_any_moment_leave_the_pool_whole(open_pool, tmp_path: Path) -> None:
    pool = open_pool(2)

    async def scenario() -> None:
        for index in range(60):
            task = asyncio.ensure_future(pool.executor.run(make_call(experiments.pid, index)))
            await asyncio.sleep(index * 0.00004)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        calls = [make_call(experiments.meets, n, folder=tmp_path) for n in range(2)]
        await asyncio.gather(*(pool.executor.run(call) for call in calls))  # both slots work

    pool.do(scenario())


# --- the end -------------------------------------------------------------------------------------


def test_closing_twice_at_once_and_without_any_leaf(open_pool) -> None:
    pool = open_pool(2)

    async def scenario() -> None:
        await asyncio.gather(pool.executor.aclose(), pool.executor.aclose())
        await pool.executor.aclose()

    pool.do(scenario())


def test_leaves_that_run_and_wait_are_told_when_it_closes(pool: Pool, tmp_path: Path) -> None:
    async def scenario() -> None:
        calls = [make_call(experiments.tidies_up, n, folder=tmp_path) for n in range(3)]
        tasks = [asyncio.ensure_future(pool.executor.run(call)) for call in calls]
        await until((tmp_path / "started").exists, "the leaf")
        await pool.executor.aclose()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in outcomes] == [ExecutorUnavailable] * 3
        assert {one.failure.kind for one in outcomes} == {FailureKind.CANCELLED}

    pool.do(scenario())
    assert (tmp_path / "tidied").exists()


# --- whole programs ------------------------------------------------------------------------------

_PROLOGUE = """
import asyncio, ctypes, json, multiprocessing, os, subprocess, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.unit.local.experiments import Task, Text
from tests.unit.local.test_executor import make_call
from scythe.executor import ExecutorRequest
from scythe.local.executor import open_executor
from scythe.registry import ExperimentRegistry

with open({starts!r}, "a") as file:
    file.write(__name__ + "\\n")
{defined}

def work():
    executor = open_executor(ExecutorRequest(slots=1))
    async def leaves():
        for _ in range(2):
            try:
                print("result", (await executor.run(make_call({leaf}, folder={folder!r}))).scalars)
            except Exception as error:
                print("failure", error.failure.kind.value, error.failure.message)
        await executor.aclose()
    asyncio.run(leaves())
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Writes a worker's script and starts it."""

    def start(defined: str, leaf: str, end: str) -> subprocess.Popen[str]:
        file = tmp_path / "worker_script.py"
        text = _PROLOGUE.format(
            root=str(ROOT),
            starts=str(tmp_path / "starts"),
            defined=defined,
            leaf=leaf,
            folder=str(tmp_path),
        )
        file.write_text(text + end)
        return subprocess.Popen(
            [sys.executable, str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )

    return start


_IN_SCRIPT = """
def cube(number):
    return number ** 3

@ExperimentRegistry.Register()
def in_script(spec: Task) -> Text:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return Text(text=f"{__name__} {pool.map(cube, [2])}")
"""


def test_an_experiment_may_be_defined_in_the_workers_script(script, tmp_path: Path) -> None:
    run = script(_IN_SCRIPT, "in_script", "if __name__ == '__main__':\n    work()\n")
    out, err = run.communicate(timeout=60)
    assert out.splitlines() == ['result {"text":"__mp_main__ [8]"}'] * 2, err
    assert list(tmp_path.glob("scythe-pool-*")) == []


def test_a_script_that_starts_its_worker_when_imported_is_told_so(script, tmp_path: Path) -> None:
    run = script(_IN_SCRIPT, "in_script", "work()\n")
    out, err = run.communicate(timeout=60)
    lines = out.splitlines()
    assert len(lines) == 2, err
    for line in lines:
        assert line.startswith("failure environment_setup")
        assert "if __name__ == '__main__':" in line
    starts = (tmp_path / "starts").read_text().splitlines()
    assert starts.count("__main__") == 1
    assert 1 <= starts.count("__mp_main__") <= 4, "no endless starting"


def test_a_script_that_cannot_be_imported_again_says_why(script) -> None:
    broken = "if __name__ != '__main__':\n    raise RuntimeError('only once, please')"
    run = script(broken, "pid", "from tests.unit.local.experiments import pid\nwork()\n")
    out, err = run.communicate(timeout=60)
    assert len(out.splitlines()) == 2, err
    for line in out.splitlines():
        assert line.startswith("failure environment_setup")
        assert "only once, please" in line


_STUCK = """
@ExperimentRegistry.Register()
def stuck(spec: Task) -> Text:
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(spec.folder, "part").write_text(json.dumps([os.getpid(), child.pid]))
    Path(spec.folder, "part").rename(Path(spec.folder, "pids"))
    mutex = ctypes.create_string_buffer(256)
    take = ctypes.PyDLL(None).pthread_mutex_lock
    take(mutex)
    take(mutex)
    return Text()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_leaves_nothing(script, tmp_path: Path, number: int) -> None:
    """Also when the leaf is in a C call that holds the interpreter's lock."""
    run = script(_STUCK, "stuck", "if __name__ == '__main__':\n    work()\n")
    try:
        wait_until((tmp_path / "pids").exists, "the leaf", 60)
        pids = json.loads((tmp_path / "pids").read_text())
        assert all(is_alive(pid) for pid in pids)
        run.send_signal(number)
        run.wait()
        gone = wait_until(lambda: not any(is_alive(pid) for pid in pids), "the leaf's end")
        assert gone < 4
        wait_until(lambda: not list(tmp_path.glob("scythe-pool-*")), "the pool's folder to go")
    finally:
        run.kill()
        run.communicate()


# --- messages ------------------------------------------------------------------------------------


def test_messages_arrive_in_any_pieces() -> None:
    inbox = Inbox()
    data = frame_of(Ready()) * 3
    got = [message for byte in data for message in inbox.feed(bytes([byte]))]
    assert got == [Ready()] * 3
    assert inbox.feed(data) == [Ready()] * 3


def test_the_worker_imports_nothing_that_a_process_names() -> None:
    body = pickle.dumps(os.getcwd)
    with pytest.raises(pickle.UnpicklingError, match="no part of an outcome"):
        Inbox().feed(framed(body))


def test_the_pool_keeps_its_files_where_temporary_files_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_pool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pool = open_pool(1)
    assert pool.executor._folder.parent == tmp_path
    assert pool.executor._folder.stat().st_mode & 0o777 == 0o700
