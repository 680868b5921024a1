"""Leaves that need a GPU, and leaves that do not, on one worker with two CPUs and one GPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("ray")

from tests.acceptance.running import load_app, pointed_at
from tests.acceptance.workers import WorkerProcess, running

APP = "classes"
NAME = "classes-of-leaves"


@pytest.fixture(scope="module")
def app(stack_env: dict[str, str]) -> Generator[Any]:
    with pointed_at(stack_env):
        yield load_app(APP)


@pytest.fixture(scope="module")
def worker(app: Any, tmp_path_factory: pytest.TempPathFactory) -> Generator[WorkerProcess]:
    log = tmp_path_factory.mktemp("logs") / "worker"
    variables = {
        "SCYTHE_WORKER_NAME": NAME,
        "SCYTHE_WORKER_EXECUTOR": "ray",
        "SCYTHE_WORKER_SLOTS": "2",
        "SCYTHE_WORKER_HAS_GPU": "True",
        "SCYTHE_RAY_NUM_GPUS": "1",
    }
    with running(APP, "main.py", log=log, **variables) as worker:
        worker.wait_ready(180)
        yield worker
        worker.stop()


def allocate(app: Any, experiment: Any, count: int, seconds: float) -> tuple[Any, Any]:
    from scythe.experiments import BaseExperiment

    specs = [
        app.Input(experiment_id="classes/v1.0.0/now", sort_index=number, seconds=seconds)
        for number in range(count)
    ]
    return BaseExperiment(runnable=experiment).allocate(specs, version="bumppatch")


def spans(allocated: tuple[Any, Any]) -> list[tuple[float, float]]:
    """Wait for a run, and return when its leaves ran."""
    run, reference = allocated
    result = reference.result(timeout=180)
    assert result.n_failed == 0
    leaves = run.results("leaves").to_pandas()
    return sorted(
        (start.timestamp(), end.timestamp())
        for start, end in zip(leaves["started"], leaves["finished"], strict=True)
    )


def most_at_once(*groups: list[tuple[float, float]]) -> int:
    events = [event for group in groups for a, b in group for event in ((a, 1), (b, -1))]
    running = most = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most


def test_each_class_has_a_hatchet_worker_with_slots_of_its_own(worker: WorkerProcess) -> None:
    slots = {row.name: row.slot_config for row in worker.rows()}
    assert set(slots) == {NAME, f"{NAME}--fan", f"{NAME}--gpu"}
    assert slots[NAME]["default"].limit == 2
    assert slots[f"{NAME}--gpu"]["default"].limit == 1
    served = {
        row.name: {action.split(":")[0] for action in row.actions}
        for row in worker.rows()
        if not row.name.endswith("--fan")
    }
    assert served == {NAME: {"classes_cpu"}, f"{NAME}--gpu": {"classes_gpu"}}
    # Nothing here has much memory: no process waits for such leaves.
    assert "classes_memory needs high_memory=yes, which this worker does not have" in worker.text


def test_leaves_of_both_classes_run_beside_each_other_and_no_cpu_is_used_twice(
    app: Any, worker: WorkerProcess
) -> None:
    runs = [allocate(app, app.on_cpus, 20, 0.3), allocate(app, app.on_gpus, 6, 0.3)]
    on_cpus, on_gpus = map(spans, runs)
    assert all(one[1] <= other[0] for one, other in pairwise(on_gpus)), "two had the one GPU"
    assert most_at_once(on_cpus, on_gpus) == 2, "there are two CPUs"
    beside = [one for one in on_gpus if most_at_once(on_cpus, [one]) > most_at_once(on_cpus) - 1]
    assert beside
    gpus = runs[1][0].results("scalars").to_pandas()["gpus"]
    assert set(gpus) == {"0"}
    assert set(runs[0][0].results("scalars").to_pandas()["gpus"]) == {""}


def test_no_cpu_is_idle_for_a_class_without_leaves(app: Any, worker: WorkerProcess) -> None:
    assert most_at_once(spans(allocate(app, app.on_cpus, 12, 0.5))) == 2


def test_all_classes_go_on_when_the_part_with_the_cluster_dies(
    app: Any, worker: WorkerProcess
) -> None:
    os.kill(worker.part("leaf"), signal.SIGKILL)
    worker.wait_for_line(r"The leaf worker process .* died \(killed by SIGKILL\)")
    worker.wait_for_line(rf"The leaf worker process \({NAME}, .* is ready again", 120)
    worker.wait_for_line(rf"The leaf worker process \({NAME}--gpu, .* is ready again", 120)
    assert [len(spans(allocate(app, one, 2, 0.0))) for one in (app.on_gpus, app.on_cpus)] == [2, 2]
