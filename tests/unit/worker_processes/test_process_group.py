"""Parts that share a place, and parts that are replaced while they serve."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scythe.leaf_classes import LeafClass
from scythe.worker_processes.process_spec import ProcessSpec
from tests.unit.worker_processes import supervised_processes as entries
from tests.unit.worker_processes.test_supervisor import Running, is_gone, wait_until

GPU = LeafClass("has_gpu")
HERE = {"address": "here"}
YES = {"has_gpu": "yes"}


class Place:
    """The capacity that the worker processes report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def offers(self, slots: int, labels: dict[str, str], shared: dict[str, str]) -> None:
        offer = {"slots": slots, "labels": labels, "shared": shared, "source": f"{slots} CPUs"}
        (self.folder / "new").write_text(json.dumps(offer))
        (self.folder / "new").rename(self.folder / "offer")

    def starts(self, title: str) -> list[tuple[int, dict[str, str]]]:
        """Return the process of each start of a part, and the place that it was given."""
        file = self.folder / f"{title}-starts"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(line.split(" ", 1)[0]), json.loads(line.split(" ", 1)[1])) for line in lines]

    def wait_starts(self, title: str, count: int) -> list[tuple[int, dict[str, str]]]:
        wait_until(lambda: len(self.starts(title)) >= count, f"{count} starts of {title}")
        assert len(self.starts(title)) == count
        return self.starts(title)


@pytest.fixture
def place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Place:
    caplog.set_level(logging.INFO, "scythe")
    return Place(tmp_path)


@pytest.fixture
def running(place: Place) -> Iterator[Any]:
    started: list[Running] = []

    def start(guest: bool = True) -> Running:
        common: dict[str, Any] = {"executor": str(place.folder), "shutdown_timeout": 20.0}
        plans = [
            ProcessSpec("w", "leaf", 0, **common),
            ProcessSpec("w--gpu", "leaf", 1, leaf_class=GPU, guest=True, needs=YES, **common),
        ]
        started.append(Running(plans if guest else plans[:1], entries.telling))
        return started[0]

    yield start
    for one in started:
        one.supervisor.stop()
        one.finish()
        assert one.error is None


def test_a_guest_starts_when_the_place_is_known(place: Place, running: Any) -> None:
    place.offers(2, YES, HERE)
    worker = running()
    pids = worker.wait_ready()
    assert place.starts("leaf") == [(pids[0], {})]
    assert place.starts("gpu") == [(pids[1], HERE)]


def test_a_guest_that_no_leaf_would_reach_is_not_started(place: Place, running: Any) -> None:
    place.offers(2, {"has_gpu": "no"}, HERE)
    worker = running()
    assert worker.wait_ready()[1] == 0
    assert place.starts("gpu") == []
    place.offers(2, YES, HERE)
    place.wait_starts("gpu", 1)


def test_a_guest_follows_the_first_part_to_another_place(place: Place, running: Any) -> None:
    place.offers(2, YES, HERE)
    pids = running().wait_ready()
    place.offers(2, YES, {"address": "there"})
    first, second = place.wait_starts("gpu", 2)
    assert first == (pids[1], HERE)
    assert second[1] == {"address": "there"}
    assert is_gone(pids[1])
    assert place.starts("leaf") == [(pids[0], {})]


def test_a_guest_waits_for_the_first_part_to_be_back(
    place: Place, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place.offers(2, YES, HERE)
    pids = running().wait_ready()
    os.kill(pids[0], signal.SIGKILL)
    place.wait_starts("leaf", 2)
    wait_until(lambda: "is ready again" in caplog.text, "the first part is back")
    assert place.starts("gpu") == [(pids[1], HERE)], "its place is the same"


def test_a_part_with_other_slots_is_replaced_without_losing_a_leaf(
    place: Place, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place.offers(2, YES, HERE)
    worker = running(guest=False)
    (old,) = worker.wait_ready()
    (place.folder / "leaf-runs").touch()
    place.offers(3, YES, HERE)
    new = place.wait_starts("leaf", 2)[1][0]
    wait_until(lambda: f"pid {new}) is ready." in caplog.text, "the successor is ready")
    assert not is_gone(old), "its leaf was lost"
    # While one leaves, there is no further one: it would have the place of the first.
    place.offers(4, YES, HERE)
    (place.folder / "leaf-runs").unlink()
    wait_until(lambda: is_gone(old), "the part has left")
    assert (place.folder / "leaf-ends").exists(), "it was ended in the middle"
    stopped = f"(w, pid {old}) has stopped (exit code 0)"
    wait_until(lambda: stopped in caplog.text, "the log says so")
    assert "from 2 to 3 slots (3 CPUs)" in caplog.text
    assert "died" not in caplog.text


def test_a_successor_that_does_not_start_leaves_the_part(
    place: Place, running: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.offers(2, YES, HERE)
    worker = running(guest=False)
    (old,) = worker.wait_ready()
    monkeypatch.setattr(
        "multiprocessing.context.SpawnProcess.start", lambda *_: (_ for _ in ()).throw(OSError(11))
    )
    place.offers(3, YES, HERE)
    wait_until(lambda: "could not start" in caplog.text, "the log says so")
    assert not is_gone(old)


def test_a_part_that_dies_while_its_successor_starts_is_replaced_by_it(
    place: Place, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place.offers(2, YES, HERE)
    worker = running(guest=False)
    (old,) = worker.wait_ready()
    place.offers(3, YES, HERE)
    wait_until(lambda: "starting a replacement process" in caplog.text, "a successor")
    os.kill(old, signal.SIGKILL)
    place.wait_starts("leaf", 2)
    wait_until(lambda: "is ready." in caplog.text, "the successor is ready")
