"""Requests of an executor to its worker."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from scythe.engine import running_worker
from scythe.worker_processes import callbacks as part_host
from scythe.worker_processes.callbacks import ProcessCallbacks
from scythe.worker_processes.process_spec import ProcessFailed


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_engine_is_told_until_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bool]] = []

    def set_taking(worker: str, *, taking: bool) -> None:
        told.append((worker, taking))
        if len(told) == 1:
            raise ConnectionError("the engine is away")

    monkeypatch.setattr(running_worker, "set_taking", set_taking)
    monkeypatch.setattr(part_host, "_AGAIN", 0.0)
    host = ProcessCallbacks(lambda message: None)
    host.tell_engine("w")
    host.offer(taking=False)

    def tell(count: int) -> Callable[[], bool]:
        def once_more() -> bool:
            host.tell_engine("w")
            return len(told) >= count

        return once_more

    wait_until(tell(2))
    assert told == [("w", False)] * 2
    host.offer(taking=True)
    wait_until(tell(3))
    assert told[2:] == [("w", True)]


def test_a_lost_place_is_a_message_to_the_supervisor() -> None:
    sent: list[ProcessFailed] = []
    ProcessCallbacks(sent.append).leave("Ray is gone: start it.")
    assert sent == [ProcessFailed("Ray is gone: start it.", for_good=True)]


def test_a_worker_that_steps_back_takes_leaves_again_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(running_worker, "set_taking", lambda _, *, taking: told.append(taking))
    monkeypatch.setattr(part_host, "_AGAIN", 0.0)
    host = ProcessCallbacks(lambda message: None)

    def tell(expected: list[bool]) -> Callable[[], bool]:
        def once_more() -> bool:
            host.tell_engine("w")
            return told == expected

        return once_more

    host.step_back(0.3)
    wait_until(tell([False]))
    wait_until(tell([False, True]))
    host.step_back(60)
    host.step_back(0)  # a shorter time does not end a longer one
    wait_until(tell([False, True, False]))
    host.offer(taking=True)
    host.tell_engine("w")
    assert told == [False, True, False]
