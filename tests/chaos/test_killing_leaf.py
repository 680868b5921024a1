"""A leaf that kills its worker process each time. No other worker may take it."""

from __future__ import annotations

import time
from pathlib import Path

from tests.chaos.bed import Bed
from tests.chaos.report import Report
from tests.chaos.runs import TracedRun, check_failures

POISON = 9


def test_a_leaf_that_kills_its_worker_process_each_time(
    services: dict[str, str], tmp_path: Path, report: Report
) -> None:
    from tests.chaos.app.main import plain

    with Bed(services) as bed:
        node = bed.add("a")
        worker = node.start_worker(CHAOS_EXECUTOR="local", SCYTHE_WORKER_SLOTS="2")
        worker.wait_ready()
        run = TracedRun(plain, tmp_path, 60, lambda n: {"is_poison": n == POISON}, batch_size=1)
        run.wait_began(POISON)
        outcome = run.outcome(time.time(), within=400)
        report.add("a leaf kills its worker process each time", outcome)
        check_failures(run, outcome, bed, "worker_crash")
        assert run.numbers("errors") == [POISON]
        worker.stop()
