"""Runs that are limited, put first, stopped by their failures, or paused, on the real engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scythe.errors import EngineError, ExperimentRunNotFoundError, RegistrationError
from scythe.scatter_gather import RecursionMap
from tests.acceptance.running import wait_until, worker
from tests.integration.conftest import APP

DEADLINE = 180  # another process of tests may run beside this one
FRESH = 2.0  # seconds after which a worker asks again whether a run is paused


@pytest.fixture(scope="class")
def two_slots(
    stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A worker with two slots."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with worker(APP, log, SCYTHE_WORKER_SLOTS="2", **stack_env):
        yield


@pytest.mark.usefixtures("two_slots")
class TestOneWorker:
    """Runs of one worker."""

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_no_more_leaves_run_at_once_than_there_are_licences(
        self, start: Any, app: Any, tmp_path: Path, batch_size: int
    ) -> None:
        specs = [{"folder": str(tmp_path)} for _ in range(8)]
        run, _ = start(specs, app.licensed, batch_size=batch_size)
        assert run.wait(timeout=DEADLINE).done == 8
        assert run.results().to_pandas()["y"].tolist() == [1.0] * 8

    def test_an_urgent_run_passes_a_long_queue(self, start: Any, app: Any, tmp_path: Path) -> None:
        slow = tmp_path / "slow"
        slow.mkdir()
        queue, _ = start([{"mode": "wait", "folder": str(slow)}] * 400, app.hold)
        wait_until(lambda: began(slow) == 2, "the slots are taken", DEADLINE)
        wait_until(lambda: len(open_leaves(queue)) == 400, "the others wait", DEADLINE)
        urgent, _ = start([{"folder": str(tmp_path)}] * 10, app.hold, priority=3, version="v2.0.0")
        wait_until(lambda: len(open_leaves(urgent)) == 10, "the urgent ones wait", DEADLINE)
        (slow / "go").touch()
        assert urgent.wait(timeout=DEADLINE).done == 10
        last = max(urgent.results("leaves").to_pandas()["finished"])
        assert queue.wait(timeout=DEADLINE).done == 400
        before = (queue.results("leaves").to_pandas()["started"] < last).sum()
        assert before < 100

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_a_run_with_too_many_failures_stops_with_its_tables(
        self, start: Any, app: Any, tmp_path: Path, batch_size: int
    ) -> None:
        bad = [{"mode": "exit"}] * 6
        rest = [{"mode": "wait", "folder": str(tmp_path)}] * 14
        specs = [*bad, *rest]
        run, ref = start(specs, max_failures=0.2, batch_size=batch_size)
        status = run.wait(timeout=DEADLINE)
        assert (status.state, status.done, status.failed) == ("failed", 0, 20)
        assert "and the run allows 4 (max_failures of allocate)" in status.message
        kinds = run.errors().column("kind").to_pylist()
        assert {kinds.count("application_error"), kinds.count("max_failures")} <= {5, 6, 14, 15}
        assert kinds.count("max_failures") >= 14
        assert run.results("leaves").num_rows == 20
        with pytest.raises(EngineError, match="max_failures"):
            ref.result(timeout=DEADLINE)
        (tmp_path / "go").touch()
        again = run.retry(missing=True)
        assert again.wait(timeout=DEADLINE).done == kinds.count("max_failures")

    def test_a_run_with_as_many_failures_as_it_allows_is_done(self, start: Any) -> None:
        run, _ = start([{"mode": "exit"}, {"mode": "exit"}, {}], max_failures=2)
        assert run.wait(timeout=DEADLINE).state == "done"

    def test_a_short_run_with_too_many_failures_has_failed_in_the_end(self, start: Any) -> None:
        run, ref = start([{}, {"mode": "exit"}], max_failures=0)
        status = run.wait(timeout=DEADLINE)
        assert (status.state, status.done, status.failed) == ("failed", 1, 1)
        assert run.results().num_rows == run.errors().num_rows == 1
        with pytest.raises(EngineError, match="1 leaf has failed, and the run allows 0"):
            ref.result(timeout=DEADLINE)

    def test_a_paused_run_goes_on_later(self, start: Any, app: Any, tmp_path: Path) -> None:
        tree = RecursionMap(factor=2, max_depth=1)
        run, ref = start(waiting(tmp_path, 20), app.hold, recursion_map=tree)
        wait_until(lambda: began(tmp_path) == 2, "two leaves run", DEADLINE)
        status = run.pause()
        assert (status.state, status.total) == ("paused", 20)
        let_it_be_seen(tmp_path)
        (tmp_path / "go").touch()
        wait_until(lambda: not open_leaves(run), "no leaf waits or runs", DEADLINE)
        count = began(tmp_path)
        assert 2 <= count < 20
        wait_until(lambda: run.status().done == count, "the others are counted", DEADLINE)
        status = asyncio.run(run.aio_pause())
        assert (status.state, status.failed, status.is_over) == ("paused", 0, False)
        assert "scythe resume" in run.status().waits_for
        assert run.results("leaves", partial=True).num_rows == count
        other, _ = start([{}], version="v2.0.0")  # no leaf of the paused run takes its slot
        assert other.wait(timeout=DEADLINE).done == 1
        assert began(tmp_path) == count
        asyncio.run(run.aio_resume())
        assert ref.result(timeout=DEADLINE).summary == "20 leaves, 20 done, 0 failed"
        assert_once(run, tmp_path, 20)

    def test_a_batch_pauses_after_the_leaf_that_runs(
        self, start: Any, app: Any, tmp_path: Path
    ) -> None:
        run, ref = start(waiting(tmp_path, 16), app.hold, batch_size=4)
        wait_until(lambda: began(tmp_path) == 2, "two leaves run", DEADLINE)
        pause_and_drain(run, tmp_path)
        assert began(tmp_path) == 2
        wait_until(lambda: run.status().done == 2, "they are counted", DEADLINE)
        run.resume()
        assert ref.result(timeout=DEADLINE).summary == "16 leaves, 16 done, 0 failed"
        assert_once(run, tmp_path, 16)

    def test_a_paused_run_can_be_cancelled(self, start: Any, app: Any, tmp_path: Path) -> None:
        run, _ = start(waiting(tmp_path, 8), app.hold)
        wait_until(lambda: began(tmp_path) == 2, "two leaves run", DEADLINE)
        pause_and_drain(run, tmp_path)
        count = began(tmp_path)
        status = run.cancel()
        assert (status.state, status.done, status.failed) == ("cancelled", count, 8 - count)
        assert run.pause().state == run.resume().state == "cancelled"

    def test_a_run_of_the_users_own_task_cannot_pause(self, start: Any, app: Any) -> None:
        run, _ = start([{"x": 1}, {"x": 2}], runnable=app.plain_leaf)
        if not run.status().is_over:
            with pytest.raises(RegistrationError, match="plain_leaf is a Hatchet task of your own"):
                run.pause()
        run.wait(timeout=DEADLINE)
        assert run.pause().state == "done"
        with pytest.raises(ExperimentRunNotFoundError):
            run.another().pause()


def test_a_run_is_paused_on_one_worker_and_goes_on_on_another(
    start: Any, app: Any, tmp_path: Path, stack_env: dict[str, str]
) -> None:
    with worker(APP, tmp_path / "log-1", SCYTHE_WORKER_SLOTS="2", **stack_env):
        run, ref = start(waiting(tmp_path, 20), app.hold)
        wait_until(lambda: began(tmp_path) == 2, "two leaves run", DEADLINE)
        pause_and_drain(run, tmp_path)
        count = began(tmp_path)
        (tmp_path / "go").unlink()
        run.resume()
        wait_until(lambda: began(tmp_path) > count, "it goes on", DEADLINE)
        pause_and_drain(run, tmp_path)
    run.resume()
    assert run.status().state == "running"
    with worker(APP, tmp_path / "log-2", SCYTHE_WORKER_SLOTS="2", **stack_env):
        assert ref.result(timeout=DEADLINE).summary == "20 leaves, 20 done, 0 failed"
    assert_once(run, tmp_path, 20)


def waiting(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return specs of leaves that wait for the file `go`."""
    return [{"mode": "wait", "folder": str(folder), "x": i} for i in range(count)]


def pause_and_drain(run: Any, folder: Path) -> None:
    """Pause a run, let its running leaves end, and wait until no task waits or runs."""
    run.pause()
    let_it_be_seen(folder)
    (folder / "go").touch()
    wait_until(lambda: not open_leaves(run), "no leaf waits or runs", DEADLINE)


def let_it_be_seen(folder: Path) -> None:
    """Wait until whoever began a leaf of `hold` asks again whether its run is paused."""
    newest = max(file.stat().st_mtime for file in folder.glob("began-*"))
    wait_until(lambda: time.time() > newest + FRESH, "the pause is seen", DEADLINE)


def began(folder: Path) -> int:
    """Return the number of leaves of `hold` that have begun."""
    return len(list(folder.glob("began-*")))


def assert_once(run: Any, folder: Path, count: int) -> None:
    """Raise unless each leaf has run once, and all are in the tables in order."""
    assert [(folder / f"began-{i}").read_text() for i in range(count)] == ["x"] * count
    assert run.results().to_pandas()["y"].tolist() == [2.0 * i for i in range(count)]
    assert run.errors().num_rows == 0
    assert run.results("leaves").num_rows == count


def open_leaves(run: Any) -> list[str]:
    """Return the leaf tasks of a run that wait or run in Hatchet."""
    from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus

    from scythe.engine.client import client

    found = client().runs.list(
        statuses=[V1TaskStatus.RUNNING, V1TaskStatus.QUEUED],
        additional_metadata={"leaf_of": run.experiment_id},
        only_tasks=True,
        limit=500,
    )
    return [item.metadata.id for item in found.rows]
