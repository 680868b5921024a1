"""A node hears of its children's ends, and asks when it hears nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from scythe.engine.children import OpenChildren, Output

DEADLINE = 20


class Engine:
    """Tells of some children by itself, and knows of others only when it is asked."""

    def __init__(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.runs = [f"run-{number}" for number in range(count)]
        self.waits: dict[str, asyncio.Future[Output]] = {
            run: loop.create_future() for run in self.runs
        }
        self.known: dict[str, Output] = {}
        self.asked: Counter[str] = Counter()
        self.asks_at_once = self._now = 0
        self.asked_at: list[float] = []
        self.answered = asyncio.Event()

    async def find_end(self, run: str) -> Output | None:
        self._now += 1
        self.asks_at_once = max(self.asks_at_once, self._now)
        self.asked[run] += 1
        self.asked_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        self._now -= 1
        self.answered.set()
        return self.known.get(run)

    def tell(self, *numbers: int) -> None:
        for number in numbers:
            self.waits[self.runs[number]].set_result({"told": number})

    def lose(self, *numbers: int) -> None:
        for number in numbers:
            self.known[self.runs[number]] = {"asked": number}

    def children(self, *, quiet: float = 0.02, longest: float = 0.1) -> OpenChildren:
        return OpenChildren(self.waits, self.find_end, quiet=quiet, longest=longest)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(DEADLINE):
            return await work()

    return asyncio.run(limited())


def told(numbers: Sequence[int]) -> list[Output]:
    return [{"told": number} for number in numbers]


def test_children_that_the_engine_tells_of_are_not_asked_after() -> None:
    async def work() -> None:
        engine = Engine(30)
        waiting = asyncio.create_task(engine.children(quiet=DEADLINE).outputs())
        engine.tell(*reversed(range(30)))
        assert await waiting == told(range(30))
        assert not engine.asked

    run(work)


def test_a_node_without_children_waits_for_none() -> None:
    async def work() -> None:
        assert await Engine(0).children(quiet=DEADLINE).outputs() == []

    run(work)


def test_ends_that_were_lost_are_found_and_all_are_in_order() -> None:
    async def work() -> None:
        engine = Engine(40)
        engine.tell(*range(0, 40, 2))
        engine.lose(*range(1, 40, 2))
        began = asyncio.get_running_loop().time()
        outputs = await engine.children(quiet=0.5, longest=DEADLINE).outputs()
        took = asyncio.get_running_loop().time() - began
        assert outputs == [{"asked" if n % 2 else "told": n} for n in range(40)]
        assert set(engine.asked.values()) == {1}
        assert took < 2  # one pause, and not one for each of the five questions
        assert engine.asks_at_once <= 4

    run(work)


def test_each_open_child_is_asked_after_in_turn() -> None:
    async def work() -> None:
        engine = Engine(10)
        waiting = asyncio.create_task(engine.children().outputs())
        while len(engine.asked) < 10:
            engine.answered.clear()
            await engine.answered.wait()
        assert max(engine.asked.values()) - min(engine.asked.values()) <= 1
        engine.lose(7)
        engine.tell(*(n for n in range(10) if n != 7))
        outputs = await waiting
        assert outputs[7] == {"asked": 7}
        assert outputs[:7] == told(range(7))

    run(work)


def test_it_is_asked_less_often_the_longer_nothing_ends() -> None:
    async def work() -> None:
        engine = Engine(1)
        waiting = asyncio.create_task(engine.children(quiet=0.05, longest=0.2).outputs())
        while engine.asked["run-0"] < 6:
            engine.answered.clear()
            await engine.answered.wait()
        at = engine.asked_at
        assert at[5] - at[4] > 0.19  # an event loop may be late, and is not early
        assert at[1] - at[0] > 0.07
        engine.tell(0)
        assert await waiting == told([0])

    run(work)


@pytest.mark.parametrize("how", ["cancelled", "broken"])
def test_a_wait_that_broke_is_not_the_end_of_its_child(how: str) -> None:
    async def work() -> None:
        engine = Engine(2)
        waiting = asyncio.create_task(engine.children().outputs())
        wait = engine.waits["run-0"]
        _ = wait.cancel() if how == "cancelled" else wait.set_exception(OSError("stream"))
        engine.tell(1)
        while engine.asked["run-0"] < 2:
            engine.answered.clear()
            await engine.answered.wait()
        assert not waiting.done()
        engine.lose(0)
        assert await waiting == [{"asked": 0}, {"told": 1}]

    run(work)


def test_a_child_that_failed_is_an_exception_among_the_outputs() -> None:
    async def work() -> None:
        engine = Engine(2)
        failed, lost = ValueError("told"), ValueError("lost")
        engine.waits["run-0"].set_result(failed)
        engine.known["run-1"] = lost
        assert await engine.children().outputs() == [failed, lost]

    run(work)


def test_what_is_told_while_it_is_asked_counts_once() -> None:
    async def work() -> None:
        engine = Engine(1)

        async def slow(run: str) -> Output | None:
            engine.tell(0)
            await asyncio.sleep(0)
            return {"asked": 0}

        children = OpenChildren(engine.waits, slow, quiet=0.01, longest=0.1)
        assert await children.outputs() == told([0])

    run(work)


def test_the_waits_are_left_to_whoever_made_them() -> None:
    async def work() -> None:
        engine = Engine(1)
        engine.lose(0)
        await engine.children().outputs()
        assert not engine.waits["run-0"].done()
        engine.waits["run-0"].set_exception(OSError("later"))
        await asyncio.sleep(0)  # nobody is told that this exception was never read

    run(work)
