"""TaskReuse: the driver's end and the process's, over real sockets; a thread is the Ray task."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from scythe_ray.on_node import reused_task as process_side
from scythe_ray.on_node.reused_task import ReusedTaskLoop
from scythe_ray.submit import task_reuse as driver_side
from scythe_ray.submit.task_reuse import ReusedTask, TaskReuse

Body = Callable[[ReusedTaskLoop], bytes]
WITHIN = 20.0


class Task:
    """A stand-in for a Ray task: its reference gives what the body returns or raises."""

    def __init__(self, folder: Path, token: str | None, body: Body) -> None:
        self._future: Future[bytes] = Future()
        self._folder, self._token, self._body = folder, token, body
        self._thread = threading.Thread(target=self._run, daemon=True)

    def future(self) -> Future[bytes]:
        return self._future

    def start(self) -> Task:
        self._thread.start()
        return self

    def join(self) -> None:
        self._thread.join(WITHIN)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with ReusedTaskLoop(self._folder, self._token) as lessee:
                result = self._body(lessee)
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


def echo(lessee: ReusedTaskLoop) -> bytes:
    """Do as `run_envelope` does: the outcome of a job is the job in capitals."""
    job: bytes | None = b"first"
    while job is not None:
        outcome = job.upper()
        if not lessee.hand_over(outcome):
            return outcome
        job = lessee.next_job()
    return b""


class Bed:
    def __init__(self, folder: Path, leases: TaskReuse) -> None:
        self.folder, self.leases, self._number = folder, leases, 0

    def add(self, body: Body = echo, *, kind: str | None = "a", start: bool = True) -> ReusedTask:
        self._number += 1
        token = f"token-{self._number}"
        self.task = Task(self.folder, token if kind else None, body)
        lease = self.leases.add(token, self.task, kind)
        if start:
            self.task.start()
        return lease


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Bed]:
    leases = TaskReuse(folder)
    await leases.open()
    try:
        yield Bed(folder, leases)
    finally:
        await leases.close()


async def ended(awaitable: Awaitable[bytes]) -> bytes:
    async with asyncio.timeout(WITHIN):
        return await awaitable


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110 - of any kind
            await asyncio.sleep(0.005)


def in_loop(scenario: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function, whose fixtures it takes."""

    @functools.wraps(scenario)
    def test(**fixtures: Any) -> None:
        asyncio.run(scenario(**fixtures))

    return test


@in_loop
async def test_leaves_follow_each_other_into_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_side, "_SOON", 0.0)  # nobody waits for it
    async with opened(tmp_path) as bed:
        lease = bed.add()
        assert await ended(lease.result) == b"FIRST"
        for job in (b"second", b"third", b"x" * 3_000_000):
            assert await bed.leases.take("a") is lease
            lease.send(job)
            assert await bed.leases.take("a") is None  # it has a leaf
            assert await ended(lease.result) == job.upper()
        lease.close()
        assert await ended(lease.over) == b""


@in_loop
async def test_a_short_leaf_waits_for_the_place_of_one_that_is_about_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_side, "_SOON", WITHIN)
    async with opened(tmp_path) as bed:
        lease = bed.add()
        await ended(lease.result)
        assert await bed.leases.take("a") is lease
        lease.send(b"second")
        results = list[bytes]()

        async def follow(job: bytes) -> None:
            assert await bed.leases.take("a") is lease
            lease.send(job)
            results.append(await ended(lease.result))

        async with asyncio.timeout(WITHIN):
            await asyncio.gather(*[follow(job) for job in (b"third", b"fourth", b"fifth")])
        assert results == [b"THIRD", b"FOURTH", b"FIFTH"]


@in_loop
async def test_nobody_waits_longer_than_ray_takes_for_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    def second_is_long(lessee: ReusedTaskLoop) -> bytes:
        assert lessee.hand_over(b"quick")
        assert lessee.next_job() == b"second"
        assert goes_on.wait(WITHIN)
        assert lessee.hand_over(b"long")
        while lessee.next_job() is not None:
            assert lessee.hand_over(b"quick")
        return b""

    monkeypatch.setattr(driver_side, "_IDLE", WITHIN)
    async with opened(tmp_path) as bed:
        lease = bed.add(second_is_long)
        await ended(lease.result)
        bed.leases._pace["a"] = 0.001  # whatever this machine did
        assert await bed.leases.take("a") is lease
        lease.send(b"second")
        assert await bed.leases.take("a") is None
        # One that is ended while it waits costs nobody the place.
        monkeypatch.setattr(driver_side, "_SOON", WITHIN)
        waiting = asyncio.create_task(bed.leases.take("a"))
        await asyncio.sleep(0)
        waiting.cancel()
        goes_on.set()
        assert await ended(lease.result) == b"long"
        assert await bed.leases.take("a") is lease


@in_loop
async def test_nobody_waits_for_leaves_that_take_as_long_as_a_task_of_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_side, "_IDLE", WITHIN)
    async with opened(tmp_path) as bed:
        lease = bed.add()
        await ended(lease.result)
        assert await bed.leases.take("a") is lease
        for pace in (0.01, 0.0051):  # the second one is short enough for one that waits, not two
            bed.leases._pace["a"] = pace
            lease.send(b"second")
            asked = [asyncio.create_task(bed.leases.take("a")) for _ in range(2)]
            await asyncio.sleep(0)
            assert [one.done() for one in asked] == [pace == 0.01, True]
            await asyncio.gather(*asked)
            await ended(lease.result)
            lease = await bed.leases.take("a") or lease
        assert await bed.leases.take("b") is None


@in_loop
async def test_a_place_that_nobody_uses_goes_back_to_ray(tmp_path: Path) -> None:
    async with opened(tmp_path) as bed:
        lease = bed.add()
        await ended(lease.result)
        assert await ended(lease.over) == b""
        assert await bed.leases.take("a") is None
        assert lease.result.result() == b"FIRST"  # Ray's word does not replace it


@in_loop
async def test_leases_that_are_over_are_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as bed:
        for _ in range(3):
            lease = bed.add()
            await ended(lease.result)
            lease.close()
            await ended(lease.over)
        await until(lambda: len(bed.leases._idle["a"]) == 1)
        assert not bed.leases._leases


@in_loop
async def test_another_kind_of_leaf_may_need_the_place(tmp_path: Path) -> None:
    async with opened(tmp_path) as bed:
        lease = bed.add()
        await ended(lease.result)
        await until(lambda: lease.is_waiting)
        assert await bed.leases.take("b") is None
        assert not lease.is_waiting
        assert await ended(lease.over) == b""


@in_loop
async def test_a_task_that_waits_for_the_place_gets_it_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_side, "_IDLE", 1e6)
    monkeypatch.setattr(process_side, "_PATIENCE", 1e6)
    async with opened(tmp_path) as bed:
        bed.add(start=False)
        waiting = bed.task
        lease = bed.add()
        assert await ended(lease.result) == b"FIRST"
        assert await ended(lease.over) == b""
        waiting.start().join()


@in_loop
async def test_ray_decides_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as bed:
        lease = bed.add()
        assert await ended(lease.result) == b"FIRST"
        assert await bed.leases.take("a") is lease
        monkeypatch.setattr(process_side, "TERM", 0)
        lease.send(b"second")
        assert await ended(lease.over) == b"SECOND"
        assert await ended(lease.result) == b"SECOND"
        assert not lease.is_waiting


@in_loop
async def test_without_the_drivers_socket_ray_gets_the_outcome(tmp_path: Path) -> None:
    leases = TaskReuse(None)
    await leases.open()
    lease = Bed(tmp_path, leases).add()
    assert await ended(lease.result) == b"FIRST"
    assert await leases.take("a") is None


@in_loop
async def test_a_socket_that_cannot_be_made_costs_only_time(tmp_path: Path) -> None:
    leases = TaskReuse(tmp_path / "not" / "there")
    await leases.open()
    await leases.open()
    assert await ended(Bed(tmp_path, leases).add().result) == b"FIRST"


@in_loop
async def test_a_process_of_a_single_leaf_does_not_connect(tmp_path: Path) -> None:
    async with opened(tmp_path) as bed:
        with ReusedTaskLoop(tmp_path, None) as lessee:
            assert not lessee.hand_over(b"outcome")
            assert lessee.next_job() is None
        assert await ended(bed.add(lambda _: b"outcome", kind=None).result) == b"outcome"


@in_loop
async def test_a_process_that_dies_gives_its_leaf_rays_error(tmp_path: Path) -> None:
    def dies(lessee: ReusedTaskLoop) -> bytes:
        lessee.hand_over(b"done")
        lessee.next_job()
        raise RuntimeError("killed")

    async with opened(tmp_path) as bed:
        lease = bed.add(dies)
        assert await ended(lease.result) == b"done"
        assert await bed.leases.take("a") is lease
        lease.send(b"second")
        with pytest.raises(RuntimeError, match="killed"):
            await ended(lease.result)


@in_loop
async def test_a_process_that_dies_may_have_forked_another(tmp_path: Path) -> None:
    """Which keeps the socket open; the outcome that was sent counts all the same."""
    kept: list[socket.socket] = []

    def dies(lessee: ReusedTaskLoop) -> bytes:
        kept.append(lessee._socket.dup())
        lessee.hand_over(b"done")
        if lessee.next_job():
            raise RuntimeError("killed")
        return b""

    async with opened(tmp_path) as bed:
        lease = bed.add(dies)
        assert await ended(lease.result) == b"done"
        assert await bed.leases.take("a") is lease
        lease.send(b"second")
        with pytest.raises(RuntimeError, match="killed"):
            await ended(lease.result)
    kept[0].close()


@in_loop
async def test_a_process_that_dies_between_leaves_costs_none(tmp_path: Path) -> None:
    def dies(lessee: ReusedTaskLoop) -> bytes:
        lessee.hand_over(b"done")
        raise RuntimeError("killed")

    async with opened(tmp_path) as bed:
        lease = bed.add(dies)
        assert await ended(lease.result) == b"done"
        await until(lambda: not lease.is_waiting)
        assert await bed.leases.take("a") is None


@in_loop
async def test_an_outcome_counts_although_ray_says_first_that_the_task_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_side, "_PATIENCE", 0.01)
    async with opened(tmp_path) as bed:
        release = threading.Event()

        def slow(lessee: ReusedTaskLoop) -> bytes:
            release.wait(WITHIN)
            return echo(lessee)

        lease = bed.add(slow)
        await until(lambda: not lease.is_pending)
        release.set()
        bed.task.join()  # the loop stands still: it has read nothing, and the task is over
        assert await ended(lease.result) == b"FIRST"


@in_loop
async def test_a_leaf_that_comes_too_late_was_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_side, "_PATIENCE", 0.01)
    async with opened(tmp_path) as bed:
        lease = bed.add()
        assert await ended(lease.result) == b"FIRST"
        assert lease.is_waiting
        bed.task.join()  # it has given up, and the loop does not know
        lease.send(b"second")
        assert await ended(lease.result) == b""


@in_loop
async def test_a_driver_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_side, "_ANSWER_WAIT", 0.05)
    async with opened(tmp_path) as bed:
        lease = bed.add()
        bed.task.join()  # the loop stands still
        assert await ended(lease.result) == b"FIRST"
        await until(lambda: bed.leases._writers)  # it sees now that somebody was there


@in_loop
async def test_a_folder_with_a_long_name(tmp_path: Path) -> None:
    async with opened(tmp_path / ("x" * 120)) as bed:
        lease = bed.add()
        assert await ended(lease.result) == b"FIRST"
        await until(lambda: lease.is_waiting)


@in_loop
async def test_a_process_that_nobody_knows_is_sent_away(tmp_path: Path) -> None:
    async with opened(tmp_path):
        started = time.monotonic()
        with ReusedTaskLoop(tmp_path, "a stranger") as lessee:
            assert not await asyncio.to_thread(lessee.hand_over, b"outcome")
        assert time.monotonic() - started < process_side.TERM


@in_loop
async def test_closing_ends_all_that_have_no_leaf(tmp_path: Path) -> None:
    async with opened(tmp_path) as bed:
        lease = bed.add()
        await ended(lease.result)
        await bed.leases.close()
        assert await ended(lease.over) == b""
        assert not lease.is_waiting
