"""Runs that do not end by themselves: cancelled, or out of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.running import wait_until
from tests.chaos.bed import Bed
from tests.chaos.nodes import Node
from tests.chaos.report import Report
from tests.chaos.runs import TracedRun, check_failures

SLOTS = 32
WAITING = 2000
LIMIT = 40  # seconds
LONG = 300.0


@pytest.fixture(scope="module")
def bed(services: dict[str, str]) -> Generator[Bed]:
    with Bed(services) as made:
        node = made.add("a")
        node.start_ray(f"--num-cpus={SLOTS}")
        leaf = node.start_worker("leaf.log", SCYTHE_WORKER_DOES_FAN="false")
        leaf.wait_ready()
        yield made
        leaf.stop()


@pytest.fixture
def node(bed: Bed) -> Node:
    """The machine, on which leaves are served with Ray; scatter nodes are not served yet."""
    return bed.nodes["a"]


def by_python(run: TracedRun) -> None:
    """Cancel a run as its user does."""
    run.run.cancel()


def in_hatchet(run: TracedRun) -> None:
    """Cancel a run's root as Hatchet's dashboard does."""
    from scythe.engine.client import cancel_run

    cancel_run(run.ref.workflow_run_id)


CANCELS: dict[str, Callable[[TracedRun], None]] = {
    f"run cancelled with {SLOTS} leaves running, {WAITING:,} waiting": by_python,
    f"root cancelled in Hatchet, {SLOTS} leaves running, {WAITING:,} waiting": in_hatchet,
}


@pytest.mark.parametrize("case", CANCELS)
def test_a_cancelled_run(case: str, bed: Bed, node: Node, tmp_path: Path, report: Report) -> None:
    from tests.chaos.app.main import plain

    def fields(number: int) -> dict[str, Any]:  # Hatchet hands them out in its own order
        return {"seconds": LONG if number % 2 else 0.2}

    def long_ones() -> int:
        lines = [line.split() for line in run.trace.read_text().splitlines()]
        return sum(line[1] == "began" and int(line[0]) % 2 for line in lines)

    fan = node.start_worker("fan.log", SCYTHE_WORKER_DOES_LEAF="false")
    fan.wait_ready()
    run = TracedRun(plain, tmp_path, 3 * SLOTS + WAITING, fields, batch_size=1)
    wait_until(lambda: long_ones() == SLOTS, "all slots are in use", 240)
    began = time.time()
    CANCELS[case](run)
    outcome = run.outcome(began, within=120, state="cancelled")
    report.add(case, outcome)
    assert outcome.failed == run.count - len(run.times("ended"))
    check_failures(run, outcome, bed, "cancelled")
    fan.stop()


def test_a_run_that_reaches_its_limit(bed: Bed, node: Node, tmp_path: Path, report: Report) -> None:
    from tests.chaos.app.main import plain

    limit = {"SCYTHE_TIMEOUT_SCATTER_GATHER_EXECUTION": f"{LIMIT}s"}
    fan = node.start_worker("fan.log", SCYTHE_WORKER_DOES_LEAF="false", **limit)
    fan.wait_ready()
    run = TracedRun(plain, tmp_path, 1000, lambda _: {"seconds": 2.0}, batch_size=1)
    run.wait_began(0)
    outcome = run.outcome(time.time() + LIMIT, within=LIMIT + 120, state="failed")
    report.add(f"run limit of {LIMIT} s reached", outcome)
    assert outcome.failed < 1000
    check_failures(run, outcome, bed, "run_limit")
    fan.stop()
