"""A part's place that changes while the part serves."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from scythe.errors import EngineError
from scythe.executor import Capacity
from scythe.worker_processes import capacity_watch as module
from scythe.worker_processes.capacity_watch import CapacityWatch, offer_of
from scythe.worker_processes.process_spec import ProcessSpec

PLAN = ProcessSpec("w", labels={"has_gpu": "yes"})
THREE = Capacity(3, "3 CPUs", {"has_gpu": "yes"}, shared={"address": "here"})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Engine:
    """A fake of the engine that keeps the labels it was sent."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        self.is_away = False

    def update(self, labels: dict[str, str]) -> None:
        if self.is_away:
            raise EngineError("The engine is away: wait.")
        self.told.append(labels)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def watch(clock: Clock, engine: Engine) -> CapacityWatch:
    watch = CapacityWatch(PLAN, engine.update, offer_of(THREE, PLAN))
    assert watch.changed(THREE) is None
    clock.now += 60
    assert watch.changed(THREE) is None
    return watch


def test_a_label_is_withdrawn_at_once_even_if_a_flag_promised_it(
    watch: CapacityWatch, engine: Engine
) -> None:
    lost = replace(THREE, labels={"has_gpu": "no"})
    offer = watch.changed(lost)
    assert engine.told == [{"has_gpu": "no"}]
    assert offer is not None
    assert offer.labels == {"has_gpu": "no"}
    assert watch.changed(lost) is None
    assert len(engine.told) == 1


def test_labels_that_cannot_be_changed_are_tried_again(
    watch: CapacityWatch, engine: Engine, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scythe")
    lost = replace(THREE, labels={"has_gpu": "no"})
    engine.is_away = True
    watch.changed(lost)
    assert "Cannot update the labels of w, trying again: The engine is away: wait." in caplog.text
    engine.is_away = False
    watch.changed(lost)
    assert engine.told == [], "not so soon"
    clock.now += 5
    watch.changed(lost)
    assert engine.told == [{"has_gpu": "no"}]
    assert "Labels of w: has_gpu=no." in caplog.text


def test_slots_follow_once_they_stay(watch: CapacityWatch, clock: Clock) -> None:
    five, four = replace(THREE, slots=5), replace(THREE, slots=4)
    assert watch.changed(five) is None
    clock.now += 3
    assert watch.changed(four) is None
    clock.now += 3
    assert watch.changed(four) is None, "it has just changed"
    clock.now += 3
    offer = watch.changed(four)
    assert offer is not None
    assert offer.slots == 4
    clock.now += 10
    assert watch.changed(four) is None
    clock.now += 30
    assert watch.changed(four) == offer, "nobody did anything"


def test_a_node_that_comes_back_changes_nothing(watch: CapacityWatch, clock: Clock) -> None:
    assert watch.changed(replace(THREE, slots=2)) is None
    clock.now += 2
    assert watch.changed(THREE) is None
    clock.now += 60
    assert watch.changed(THREE) is None


def test_another_place_is_said_at_once(watch: CapacityWatch) -> None:
    offer = watch.changed(replace(THREE, slots=2, shared={"address": "there"}))
    assert offer is not None
    assert offer.shared == {"address": "there"}
