"""A worker on a Ray cluster whose nodes come and go."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from tests.acceptance.running import load_app, wait_until
from tests.acceptance.workers import WorkerProcess, running
from tests.ray_bed import RayBed, ray_bed

APP = "classes"


@pytest.fixture
def app(stack: dict[str, str]) -> Generator[Any]:
    from scythe.engine.client import client

    client.cache_clear()
    yield load_app(APP)
    client.cache_clear()


@pytest.fixture
def bed() -> Generator[RayBed]:
    with ray_bed(num_cpus=1) as bed:
        yield bed


def offers(worker: WorkerProcess, name: str) -> tuple[int, bool]:
    """Return the slots of the newest Hatchet worker of a name, and whether it has a GPU."""
    rows = [row for row in worker.rows() if row.name == name and row.status == "ACTIVE"]
    if not rows:
        return 0, False
    row = max(rows, key=lambda one: one.metadata.created_at)
    labels = {label.key: label.value for label in row.labels or []}
    return row.slot_config["default"].limit, labels.get("has_gpu") == "yes"


def test_labels_and_slots_follow_nodes_and_no_leaf_is_lost(
    app: Any, bed: RayBed, tmp_path: Path
) -> None:
    from scythe.engine.client import run_state

    name = "nodes-come-and-go"
    variables = {
        "SCYTHE_WORKER_NAME": name,
        "SCYTHE_WORKER_EXECUTOR": "ray",
        "SCYTHE_WORKER_DOES_FAN": "False",
        "SCYTHE_RAY_SCOPE": "cluster",
        **bed.environment,
    }

    def waits_for(what: str, expected: tuple[int, bool], seconds: float = 60) -> None:
        wait_until(lambda: offers(worker, what) == expected, f"{what}: {expected}", seconds)

    with running(APP, "main.py", log=tmp_path / "log", **variables) as worker:
        worker.wait_ready(180)
        waits_for(name, (1, False))
        assert offers(worker, f"{name}--gpu") == (0, False)
        spec = app.Input(experiment_id="nodes/v1.0.0/now", sort_index=0, seconds=15.0)
        through = app.on_cpus.run_no_wait(spec)

        node = bed.add(num_cpus=1, num_gpus=1)
        waits_for(f"{name}--gpu", (1, True))
        waits_for(name, (2, True))  # another process, which its leaf outlived
        assert through.result(timeout=60).gpus == ""

        interrupted = app.on_gpus.run_no_wait(spec.model_copy(update={"seconds": 4.0}))
        wait_until(lambda: run_state(interrupted.workflow_run_id) == "RUNNING", "the leaf runs")
        bed.kill(node)
        waits_for(f"{name}--gpu", (1, False), 15)
        waits_for(name, (1, False))
        # Accepted for a label that is no more, it went back.
        wait_until(lambda: run_state(interrupted.workflow_run_id) == "QUEUED", "the leaf is back")
        bed.add(num_cpus=1, num_gpus=1)
        assert interrupted.result(timeout=90).gpus == "0"
        assert "died" not in worker.text
        worker.stop()
