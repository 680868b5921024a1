"""A node that is short of memory: Ray ends leaves, by a threshold that is set low here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.bed import Bed
from tests.chaos.report import Report
from tests.chaos.runs import TracedRun, wait_clean

LEAVES = 60
HOG = 20
FREE = 1.0  # GB until the threshold
ASKED = 4.0  # GB; what runs beside this test may give back some of it


def test_a_leaf_that_takes_all_memory(
    services: dict[str, str], tmp_path: Path, report: Report
) -> None:
    from tests.chaos.app.main import plain

    def fields(number: int) -> dict[str, Any]:
        return {"gigabytes": ASKED, "seconds": 20.0} if number == HOG else {}

    with Bed(services) as bed:
        node = bed.add("a")
        # All that the cluster and the worker need themselves is in use when the leaf begins.
        memory = psutil.virtual_memory()
        share = (memory.total - memory.available + (FREE + 1.5) * 2**30) / memory.total
        node.start_ray(
            "--num-cpus=2",
            RAY_memory_usage_threshold=f"{share:.4f}",
            RAY_memory_monitor_refresh_ms="100",
        )
        worker = node.start_worker()
        worker.wait_ready()
        run = TracedRun(plain, tmp_path, LEAVES, fields)
        run.wait_began(HOG)
        outcome = run.outcome(time.time(), within=180)
        wait_clean(bed)
        worker.stop()
    report.add("a leaf takes all memory", outcome)
    assert (outcome.lost, outcome.twice) == (0, 0)
    errors = run.run.errors().to_pandas().reset_index()
    assert HOG in errors["sort_index"].tolist()
    assert set(errors["kind"]) == {"out_of_memory"}, errors[["kind", "message"]].to_string()
    assert "in use" in errors["message"].iloc[0]
