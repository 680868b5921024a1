"""Every run ends with its tables: it is cancelled, reaches its limit, or loses its root."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from scythe.errors import EngineError, ResultNotFoundError
from scythe.scatter_gather import RecursionMap
from scythe.storage.store import Store
from tests.acceptance.running import wait_until, worker
from tests.integration.conftest import APP

DEADLINE = 180  # another process of tests may run beside this one
TREE = RecursionMap(factor=2, max_depth=2)


@pytest.fixture
def start(start: Callable[..., tuple[Any, Any]]) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Allocate a run; what goes on after the test is cancelled, and holds no slot of the next."""
    runs: list[Any] = []

    def allocate(*args: Any, **options: Any) -> tuple[Any, Any]:
        started = start(*args, **options)
        runs.append(started[0])
        return started

    yield allocate
    for run in runs:
        run.cancel()


def held(tmp_path: Path, n_quick: int, n_waiting: int) -> list[dict[str, Any]]:
    """Return specs of leaves that end at once, and of leaves that wait for a file `go`."""
    modes = [""] * n_quick + ["wait"] * n_waiting
    return [{"mode": mode, "folder": str(tmp_path), "x": i} for i, mode in enumerate(modes)]


def n_began(tmp_path: Path, leaves: range) -> int:
    """Return how many of these leaves have begun."""
    return sum((tmp_path / f"began-{leaf}").exists() for leaf in leaves)


def numbers(table: Any) -> list[int]:
    return table.to_pandas().index.get_level_values("sort_index").tolist()


def check_tables(run: Any, count: int, kind: str) -> pd.DataFrame:
    """Check that each leaf ended once, as the tables and the status tell; return the errors."""
    leaves, errors = run.results("leaves").to_pandas(), run.results("errors").to_pandas()
    assert numbers(run.results("leaves")) == list(range(count))
    done = numbers(run.results("scalars"))
    found = Counter([*done, *numbers(run.results("errors"))])
    assert found == Counter(range(count))
    states = ["done" if number in set(done) else "failed" for number in range(count)]
    assert leaves["state"].tolist() == states
    assert set(errors["kind"]) == {kind}
    status = run.status()
    assert (status.total, status.done, status.failed) == (count, len(done), count - len(done))
    assert (status.running, status.waiting) == (0, 0)
    assert list(run.store().list_keys(run.layout.intermediate)) == []
    return errors


def test_a_run_reaches_its_limit(
    start: Any, app: Any, stack: dict[str, str], tmp_path: Path
) -> None:
    limit = {"SCYTHE_TIMEOUT_SCATTER_GATHER_EXECUTION": "40s"}
    with worker(APP, tmp_path / "log", **{**stack, **limit, "SCYTHE_WORKER_SLOTS": "2"}):
        run, ref = start(held(tmp_path, 2, 8), runnable=app.hold)
        status = run.wait(timeout=DEADLINE)
        assert (status.state, status.done) == ("failed", 2)
        errors = check_tables(run, 10, "run_limit")
        assert "SCYTHE_TIMEOUT_SCATTER_GATHER_EXECUTION" in errors["message"].iloc[0]
        assert "40 s" in errors["message"].iloc[0]
        assert "SCYTHE_TIMEOUT_SCATTER_GATHER_EXECUTION" in status.message
        with pytest.raises(EngineError, match="limit of 40 s"):
            ref.result(timeout=DEADLINE)


def test_a_run_is_cancelled_before_there_is_a_worker(start: Any, stack: dict[str, str]) -> None:
    run, ref = start([{"x": i} for i in range(30)])
    began = time.monotonic()
    status = run.cancel()
    assert time.monotonic() - began < 30
    assert (status.state, status.done, status.failed) == ("cancelled", 0, 30)
    check_tables(run, 30, "cancelled")
    with pytest.raises(EngineError):
        ref.result(timeout=DEADLINE)
    assert run.cancel() == status  # once more changes nothing


def end_by_python(run: Any, ref: Any) -> None:
    asyncio.run(run.aio_cancel())


def end_in_hatchet(run: Any, ref: Any) -> None:
    from scythe.engine.client import cancel_run

    cancel_run(ref.workflow_run_id)


@pytest.mark.parametrize("end", [end_by_python, end_in_hatchet])
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_runs_are_cancelled_while_leaves_run(
    executor: str,
    end: Callable[[Any, Any], None],
    start: Any,
    app: Any,
    stack: dict[str, str],
    tmp_path: Path,
) -> None:
    variables = {"SCYTHE_WORKER_EXECUTOR": executor, "SCYTHE_WORKER_SLOTS": "2"}
    with worker(APP, tmp_path / "log", **{**stack, **variables}):
        for name, options in (("tree", {"recursion_map": TREE}), ("batches", {"batch_size": 8})):
            folder = tmp_path / name
            folder.mkdir()
            count = 8 if name == "tree" else 24
            specs = held(folder, 4, count - 4)
            run, ref = start(specs, runnable=app.hold, version="bumppatch", **options)
            late = range(4, count)
            wait_until(lambda f=folder, n=late: n_began(f, n) == 2, "two wait", DEADLINE)
            done = n_began(folder, range(4))  # Hatchet may give out those that wait first
            if name == "tree":  # the engine may not yet know of a single leaf that has just ended
                wait_until(lambda r=run, n=done: r.status().done == n, "they are done", DEADLINE)
            end(run, ref)
            status = run.wait(timeout=DEADLINE)
            assert (status.state, status.done) == ("cancelled", done)
            check_tables(run, count, "cancelled")
            with pytest.raises(EngineError):
                ref.result(timeout=DEADLINE)


def test_running_leaves_may_go_on_for_a_while(
    start: Any, app: Any, stack: dict[str, str], tmp_path: Path
) -> None:
    async def cancel() -> Any:
        cancelling = asyncio.create_task(run.aio_cancel(timedelta(seconds=DEADLINE)))
        await asyncio.sleep(0.5)  # for the request; whenever it comes, the two may go on
        (tmp_path / "go").touch()
        return await cancelling

    with worker(APP, tmp_path / "log", **{**stack, "SCYTHE_WORKER_SLOTS": "2"}):
        run, _ = start(held(tmp_path, 0, 40), runnable=app.hold)
        wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 2, "two leaves run", DEADLINE)
        status = asyncio.run(cancel())
    assert status.state == "cancelled"
    assert status.done == len(list(tmp_path.glob("began-*")))
    check_tables(run, 40, "cancelled")


def test_a_run_whose_worker_never_comes_back_is_ended_by_who_reads_it(
    start: Any, app: Any, stack: dict[str, str], tmp_path: Path
) -> None:
    from scythe.engine.client import cancel_run

    killed = ExitStack()
    handle = killed.enter_context(worker(APP, tmp_path / "log", **stack))
    run, ref = start(held(tmp_path, 1, 3), runnable=app.hold)
    wait_until(lambda: run.status().done == 1, "one is done", DEADLINE)
    for process in [handle, *handle.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it ends with the others
            process.kill()
    with pytest.raises((AssertionError, OSError, psutil.Error)):
        killed.close()  # which expects a worker that stops when it is told to
    cancel_run(ref.workflow_run_id)
    status = run.wait(timeout=DEADLINE)
    assert (status.state, status.done, status.failed) == ("cancelled", 1, 3)
    check_tables(run, 4, "cancelled")


def test_a_root_that_fails_leaves_the_tables(
    start: Any, app: Any, store: Store, stack: dict[str, str], tmp_path: Path
) -> None:
    tree = RecursionMap(factor=2, max_depth=1)
    specs = held(tmp_path, 1, 3)
    specs[2]["mode"] = ""  # both of the first node end
    with worker(APP, tmp_path / "log", **{**stack, "SCYTHE_WORKER_SLOTS": "4"}):
        run, ref = start(specs, runnable=app.hold, recursion_map=tree)
        key = run.layout.node_result("0")
        wait_until(lambda: store.find_bytes(key) is not None, "a node is over", DEADLINE)
        store.put_bytes(run.layout.node_table("0", "errors"), b"no table")
        (tmp_path / "go").touch()
        status = run.wait(timeout=DEADLINE)
        with pytest.raises(EngineError):
            ref.result(timeout=DEADLINE)
    assert (status.state, status.done, status.failed) == ("failed", 4, 0)
    assert "ArrowInvalid" in status.message
    assert numbers(run.results("scalars")) == numbers(run.results("leaves")) == [0, 1, 2, 3]
    assert run.errors().num_rows == 0


def test_a_run_that_has_ended_stays_as_it_is(
    start: Any, stack: dict[str, str], tmp_path: Path
) -> None:
    with worker(APP, tmp_path / "log", **stack):
        run, ref = start([{"x": 1}, {"x": 2}])
        assert ref.result(timeout=DEADLINE).n_failed == 0
        assert run.cancel().state == "done"
        assert run.results("scalars").num_rows == 2


def test_two_that_end_a_run_at_once_do_it_once(start: Any, stack: dict[str, str]) -> None:
    run, _ = start([{"x": i} for i in range(5)])

    async def cancel_twice() -> list[Any]:
        return await asyncio.gather(run.aio_cancel(), run.aio_cancel())

    one, other = asyncio.run(cancel_twice())
    assert one == other
    check_tables(run, 5, "cancelled")


def test_what_is_known_of_a_run_that_goes_on(
    start: Any, app: Any, stack: dict[str, str], tmp_path: Path
) -> None:
    with worker(APP, tmp_path / "log", **{**stack, "SCYTHE_WORKER_SLOTS": "2"}):
        run, _ = start(held(tmp_path, 3, 3), runnable=app.hold)
        assert run.errors().num_rows == 0
        wait_until(lambda: run.results(partial=True).num_rows == 3, "three are known", DEADLINE)
        assert numbers(run.results("scalars", partial=True)) == [0, 1, 2]
        assert numbers(run.results("leaves", partial=True)) == [0, 1, 2]
        with pytest.raises(ResultNotFoundError):
            run.results("scalars")


@pytest.mark.timeout(600)  # Hatchet waits 30 s after each death
def test_a_leaf_that_kills_its_worker_process_each_time_is_found(
    start: Any, app: Any, stack: dict[str, str], tmp_path: Path
) -> None:
    with worker(APP, tmp_path / "log", **{**stack, "SCYTHE_WORKER_SLOTS": "2"}):
        runs: list[Any] = []
        for name, options in (("singles", {}), ("batches", {"batch_size": 4})):
            folder = tmp_path / name
            folder.mkdir()
            specs = held(folder, 7, 1)
            specs[2]["mode"] = "kills the worker process"
            run, _ = start(specs, runnable=app.hold, version="bumppatch", **options)
            runs.append(run)
        wait_until(
            lambda: all((tmp_path / n / "began-2").exists() for n in ("singles", "batches")),
            "both kill",
            DEADLINE,
        )
        for name in ("singles", "batches"):
            (tmp_path / name / "go").touch()
        for run in runs:
            status = run.wait(timeout=600)
            assert (status.state, status.done, status.failed) == ("done", 7, 1)
            errors = check_tables(run, 8, "worker_crash")
            assert numbers(run.results("errors")) == [2]
            assert "died each time" in errors["message"].iloc[0]
