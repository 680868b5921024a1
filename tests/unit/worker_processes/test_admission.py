"""The turns of leaves that share CPUs with those of other parts."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import pytest

from scythe.worker_processes import admission as module
from scythe.worker_processes.admission import Admission
from scythe.worker_processes.shared_state import SharedState

GPU, CPU = 0, 1  # the parts
LONG = 60.0


async def reaches(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - whatever the condition is
            await asyncio.sleep(0.01)


class Leaves:
    """Leaves of one part, each of which runs until it is told to end."""

    def __init__(self, turns: Admission, total: float | None) -> None:
        self._turns, self._total = turns, total
        self.running: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, *names: str, cpus: float = 1.0, within: float = LONG) -> None:
        loop = asyncio.get_running_loop()
        self.tasks += [loop.create_task(self._run(name, cpus, within)) for name in names]

    async def _run(self, name: str, cpus: float, within: float) -> None:
        async with self._turns.taken(cpus, self._total, within):
            end = self.running[name] = asyncio.Event()
            await end.wait()
            del self.running[name]

    def end(self, name: str) -> None:
        self.running[name].set()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def run(
    scenario: Callable[[Leaves, Leaves, SharedState], Awaitable[None]], total: float | None = 2
) -> None:
    async def whole() -> None:
        board = SharedState(2)
        gpu = Leaves(Admission(board, GPU), total)
        cpu = Leaves(Admission(board, CPU, ahead=[GPU]), total)
        try:
            await scenario(gpu, cpu, board)
        finally:
            await gpu.close()
            await cpu.close()

    asyncio.run(whole())


def test_all_cpus_are_used_where_no_leaf_goes_first() -> None:
    async def scenario(gpu: Leaves, cpu: Leaves, board: SharedState) -> None:
        cpu.start("a", "b")
        await reaches(lambda: len(cpu.running) == 2)

    run(scenario)


def test_a_leaf_that_goes_first_keeps_its_cpu_between_two_of_its_kind() -> None:
    async def scenario(gpu: Leaves, cpu: Leaves, board: SharedState) -> None:
        gpu.start("1")
        await reaches(lambda: "1" in gpu.running)
        cpu.start("a", "b", "c")
        await reaches(lambda: set(cpu.running) == {"a"})
        gpu.end("1")
        await reaches(lambda: not gpu.running)
        cpu.end("a")
        await reaches(lambda: set(cpu.running) == {"b"})
        assert board.cpus_of([GPU], but=CPU) == 1, "given away before the next one could come"
        gpu.start("2")
        await reaches(lambda: "2" in gpu.running)
        assert set(cpu.running) == {"b"}

    run(scenario)


def test_cpus_are_free_again_when_no_leaf_goes_first_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LINGER", 0.1)

    async def scenario(gpu: Leaves, cpu: Leaves, board: SharedState) -> None:
        gpu.start("1")
        await reaches(lambda: "1" in gpu.running)
        cpu.start("a", "b")
        await reaches(lambda: set(cpu.running) == {"a"})
        gpu.end("1")
        await reaches(lambda: set(cpu.running) == {"a", "b"})
        assert board.cpus_of([GPU], but=CPU) == 0

    run(scenario)


def test_one_leaf_always_runs() -> None:
    async def scenario(gpu: Leaves, cpu: Leaves, board: SharedState) -> None:
        gpu.start("1")
        await reaches(lambda: "1" in gpu.running)
        cpu.start("a", "b")
        await reaches(lambda: set(cpu.running) == {"a"})
        cpu.end("a")
        await reaches(lambda: set(cpu.running) == {"b"})

    run(scenario, total=1)


def test_turns_are_in_the_order_of_coming_and_weigh_cpus() -> None:
    async def scenario(gpu: Leaves, cpu: Leaves, board: SharedState) -> None:
        gpu.start("1")
        await reaches(lambda: "1" in gpu.running)
        cpu.start("a")
        await reaches(lambda: set(cpu.running) == {"a"})
        cpu.start("large", cpus=3)
        cpu.start("small")
        await reaches(lambda: board.cpus_of([CPU], but=GPU) == 1)
        cpu.end("a")
        await reaches(lambda: set(cpu.running) == {"large"})

    run(scenario, total=4)


def test_a_wait_that_is_over_goes_on_to_the_executor() -> None:
    async def scenario(gpu: Leaves, cpu: Leaves, board: SharedState) -> None:
        gpu.start("1", "2")
        await reaches(lambda: len(gpu.running) == 2)
        cpu.start("a")
        await reaches(lambda: set(cpu.running) == {"a"})
        cpu.start("b", within=0.1)
        await reaches(lambda: set(cpu.running) == {"a", "b"})

    run(scenario)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def scenario(gpu: Leaves, cpu: Leaves, board: SharedState) -> None:
        gpu.start("1")
        await reaches(lambda: "1" in gpu.running)
        cpu.start("a", "b", "c")
        await reaches(lambda: set(cpu.running) == {"a"})
        cpu.tasks[1].cancel()
        cpu.end("a")
        await reaches(lambda: set(cpu.running) == {"c"})
        assert board.cpus_of([CPU], but=GPU) == 1

    run(scenario)


def test_nothing_is_waited_for_where_cpus_are_no_concern() -> None:
    async def scenario(gpu: Leaves, cpu: Leaves, board: SharedState) -> None:
        gpu.start("1", "2", "3")
        cpu.start("a", "b", "c")
        await reaches(lambda: len(cpu.running) == len(gpu.running) == 3)

    run(scenario, total=None)


def test_a_successor_leaves_the_cpus_of_the_part_that_it_replaces() -> None:
    board = SharedState(2)

    async def scenario() -> None:
        old, new = Leaves(Admission(board, CPU), 3), Leaves(Admission(board, board.other(CPU)), 3)
        old.start("a", "b")
        await reaches(lambda: len(old.running) == 2)
        new.start("c", "d")
        await reaches(lambda: set(new.running) == {"c"})
        await old.close()
        await reaches(lambda: set(new.running) == {"c", "d"})
        await new.close()

    asyncio.run(scenario())


def _use(board: SharedState, pipe: Connection) -> None:
    board.set_cpus(1, 2.5)
    board.set_in_use(1, True)
    pipe.send("set")
    pipe.recv()
    board.set_in_use(1, False)


def test_the_board_is_shared_by_processes() -> None:
    context = multiprocessing.get_context("spawn")
    board = SharedState(2)
    ours, theirs = context.Pipe()
    process = context.Process(target=_use, args=(board, theirs))
    process.start()
    try:
        assert ours.recv() == "set"
        assert board.cpus_of([1], but=0) == 2.5
        assert board.wait_alone(0, 0.1) is False
        assert board.wait_alone(1, 0.1) is True
        threading.Timer(0.1, ours.send, ["go on"]).start()
        started = time.monotonic()
        assert board.wait_alone(0, LONG) is True
        assert time.monotonic() - started < LONG / 2
    finally:
        process.join(LONG)
    board.clear(1)
    assert board.cpus_of([1], but=0) == 0
