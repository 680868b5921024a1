"""The page about workers, sentence by sentence, with real workers (executor `local`).

The types, defaults and names that need no engine are in tests/unit/test_worker.py.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.running import APPS, load_app, pointed_at
from tests.acceptance.workers import WorkerProcess, running
from tests.example_modules import folder_on_path

APP = "worker_page"


@pytest.fixture(scope="module")
def stack_here(stack_env: dict[str, str]) -> Generator[None]:
    with pointed_at(stack_env), folder_on_path(APPS / APP):
        yield


@pytest.fixture(scope="module")
def app(stack_here: None) -> Any:
    load_app(APP)
    import experiments  # the app's

    return experiments


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def spec(app: Any, seconds: float = 0.0, number: int = 0) -> Any:
    return app.PageInput(experiment_id="page/v1.0.0/now", sort_index=number, seconds=seconds)


def allocate(experiment: Any, app: Any, count: int, seconds: float = 0.0) -> tuple[Any, Any]:
    from scythe.experiments import BaseExperiment

    specs = [spec(app, seconds, number) for number in range(count)]
    return BaseExperiment(runnable=experiment).allocate(specs, version="bumppatch")


def labels_of(row: Any) -> dict[str, str]:
    """Return the labels of a worker, without the one from which `scythe workers` reads its code."""
    return {label.key: label.value for label in row.labels or [] if label.key != "scythe_code"}


def test_dynamic_registration(stack_here: None, app: Any, logs: Path) -> None:
    """You can also register experiments at worker start time instead of at import time.

    The script of the page does not guard its start.
    """
    from my_experiments import my_simulation_fn  # the app's

    from scythe.experiment import Experiment

    with running(APP, "dynamic.py", log=logs / "dynamic", AWS_BATCH_JOB_ARRAY_INDEX="1") as worker:
        worker.wait_ready()
        assert Experiment(my_simulation_fn).run(spec(app)).worker == worker.tag
        assert [row.name for row in worker.rows()] == [
            "ScytheWorker--AWSBatch0001",
            "ScytheWorker--AWSBatch0001--fan",
        ]
        worker.stop()


def test_additional_workflows(stack_here: None, logs: Path) -> None:
    """These workflows are registered with the Hatchet worker alongside the others."""
    import my_workflows  # the app's

    name = {"SCYTHE_WORKER_NAME": "pipelines"}
    with running(APP, "pipelines.py", log=logs / "pipelines", **name) as worker:
        worker.wait_ready()
        assert [row.name for row in worker.rows()] == ["pipelines", "pipelines--fan"]
        result = my_workflows.my_pipeline_workflow.run()
        assert result["second"] == {"number": 21}
        assert my_workflows.my_task.run() == {"number": 7}
        worker.stop()


def test_with_uv(stack_here: None, app: Any, logs: Path) -> None:
    """Running workers: with uv."""
    command = ("run", "--python", sys.executable, "--no-project", "main.py")
    uv = str(Path(sys.executable).with_name("uv"))
    with running(APP, *command, log=logs / "uv", program=uv) as worker:
        worker.wait_ready()
        assert app.simulation.run(spec(app)).worker == worker.tag
        worker.popen.send_signal(signal.SIGTERM)
        assert worker.wait_end() == 0


@pytest.fixture(scope="module")
def gpu_worker(stack_here: None, logs: Path) -> Generator[WorkerProcess]:
    """A leaf worker: one simulation at a time, with GPU and memory, hosted by Fly.io."""
    with running(
        APP,
        "main.py",
        log=logs / "gpu",
        SCYTHE_WORKER_DOES_FAN="False",
        SCYTHE_WORKER_SLOTS="1",
        SCYTHE_WORKER_HAS_GPU="True",
        SCYTHE_WORKER_HIGH_MEMORY="True",
        FLY_REGION="iad",
    ) as worker:
        worker.wait_ready()
        yield worker
        worker.stop()


@pytest.fixture(scope="class")
def worker(stack_here: None, logs: Path) -> Generator[WorkerProcess]:
    """The worker of the page's first example."""
    with running(APP, "main.py", log=logs / "basic") as worker:
        worker.wait_ready()
        yield worker
        worker.stop()


@pytest.fixture(scope="class")
def fan_worker(gpu_worker: WorkerProcess, stack_here: None, logs: Path) -> Generator[WorkerProcess]:
    """A fan worker, hosted by AWS Copilot."""
    with running(
        APP,
        "main.py",
        log=logs / "fan",
        SCYTHE_WORKER_DOES_LEAF="False",
        SCYTHE_WORKER_DURABLE_SLOTS="50",
        COPILOT_ENVIRONMENT_NAME="prod",
    ) as worker:
        worker.wait_ready()
        yield worker
        worker.stop()


class TestBasicWorker:
    def test_all_known_experiments_and_the_scatter_gather_workflow_are_registered(
        self, worker: WorkerProcess
    ) -> None:
        """The worker then registers all known experiments (and the scatter/gather workflow)."""
        leaf, fan = worker.rows()
        assert {action.split(":")[0] for action in leaf.actions} == {
            "page_simulation",
            "page_gpu_simulation",
            "page_heavy_gpu_simulation",
        }
        assert [action.split(":")[0] for action in fan.actions] == ["scythe_scatter_gather"]

    def test_the_name_and_slots_of_a_local_worker(self, worker: WorkerProcess) -> None:
        """Local: ScytheWorker--Local. If SCYTHE_WORKER_SLOTS is not set: the CPU count."""
        from scythe.worker import ScytheWorkerConfig

        leaf, fan = worker.rows()
        assert (leaf.name, fan.name) == ("ScytheWorker--Local", "ScytheWorker--Local--fan")
        assert leaf.slot_config["default"].limit == ScytheWorkerConfig().computed_slots
        assert "durable" not in leaf.slot_config
        assert fan.slot_config["durable"].limit == 1000
        assert labels_of(leaf) == {}

    def test_a_single_worker_can_handle_both_roles(self, worker: WorkerProcess, app: Any) -> None:
        """By default, a worker handles both."""
        run, ref = allocate(app.simulation, app, 6)
        result = ref.result(timeout=90)
        assert (result.n_leaves, result.n_failed) == (6, 0)
        assert set(run.results("scalars").to_pandas()["worker"]) == {worker.tag}

    def test_experiments_are_routed_to_appropriate_workers(
        self, worker: WorkerProcess, app: Any, request: pytest.FixtureRequest
    ) -> None:
        """…type-safe label specification when routing experiments to appropriate workers."""
        from scythe.engine.client import run_state

        waiting = [app.gpu_simulation, app.heavy_gpu_simulation]
        refs = [experiment.run_no_wait(spec(app)) for experiment in waiting]
        assert app.simulation.run(spec(app)).worker == worker.tag
        assert {run_state(ref.workflow_run_id) for ref in refs} == {"QUEUED"}
        assert "page_gpu_simulation needs has_gpu=yes, which this worker does not have" in (
            worker.text
        )
        gpu_worker = request.getfixturevalue("gpu_worker")
        assert [ref.result(timeout=60).worker for ref in refs] == [gpu_worker.tag] * 2


class TestSeparateRoles:
    def test_slots_1_means_one_simulation_at_a_time(
        self, gpu_worker: WorkerProcess, app: Any
    ) -> None:
        """Setting SLOTS=1 means each worker runs one simulation at a time."""
        refs = [app.gpu_simulation.run_no_wait(spec(app, 0.3)) for _ in range(3)]
        outputs = sorted((ref.result(timeout=60) for ref in refs), key=lambda out: out.started)
        for one, next_one in pairwise(outputs):
            assert one.finished <= next_one.started

    def test_flags_are_exposed_as_hatchet_worker_labels(self, gpu_worker: WorkerProcess) -> None:
        """The HIGH_MEMORY, HIGH_CPU, and HAS_GPU flags are exposed as Hatchet worker labels."""
        (row,) = gpu_worker.rows()
        assert labels_of(row) == {"high_memory": "yes", "has_gpu": "yes"}
        assert row.name == "ScytheWorker--FlyIAD"
        assert row.slot_config["default"].limit == 1

    def test_fan_workers_handle_multiple_concurrent_operations(
        self, gpu_worker: WorkerProcess, fan_worker: WorkerProcess, app: Any
    ) -> None:
        """Fan workers can handle multiple concurrent scatter/gather operations."""
        (row,) = fan_worker.rows()
        assert row.name == "ScytheWorker--AWSCopilotPROD"
        assert [action.split(":")[0] for action in row.actions] == ["scythe_scatter_gather"]
        assert row.slot_config["durable"].limit == 50
        with ThreadPoolExecutor(3) as threads:
            runs = list(threads.map(lambda _: allocate(app.gpu_simulation, app, 2, 0.1), range(3)))
            results = list(threads.map(lambda pair: pair[1].result(timeout=90), runs))
        assert [(result.n_leaves, result.n_failed) for result in results] == [(2, 0)] * 3
        for run, _ in runs:
            assert set(run.results("scalars").to_pandas()["worker"]) == {gpu_worker.tag}
