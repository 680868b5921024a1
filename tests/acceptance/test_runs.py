"""Whole runs as a user makes them: a real worker, the real engine, both executors."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.acceptance.running import load_app, pointed_at, wait_until, worker


def start(app: Any, specs: Any, **options: Any) -> tuple[Any, Any]:
    from scythe.experiments import BaseExperiment

    return BaseExperiment(runnable=app.mixed).allocate(specs, version="bumppatch", **options)


@pytest.fixture(scope="class", params=["local", "ray"])
def app(
    request: pytest.FixtureRequest,
    stack_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """The app whose worker runs, with each executor in turn."""
    variables = {
        "SCYTHE_WORKER_EXECUTOR": request.param,
        "SCYTHE_WORKER_SLOTS": "2",
        "SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION": "12",
    }
    log = tmp_path_factory.mktemp("worker") / "log"
    with pointed_at(stack_env), worker("mixed", log, **variables):
        yield load_app("mixed")


class TestOneWorker:
    """Many runs of one worker."""

    def test_a_tree_finishes_on_two_slots(self, app: Any) -> None:
        from scythe.scatter_gather import RecursionMap

        specs = [app.MixedInput(experiment_id="x", sort_index=i) for i in range(30)]
        run, ref = start(app, specs, recursion_map=RecursionMap(factor=2, max_depth=2))
        result = ref.result(timeout=120)
        assert (result.n_leaves, result.n_failed) == (30, 0)
        scalars = run.results("scalars").to_pandas()
        assert scalars.index.get_level_values("sort_index").tolist() == list(range(30))
        assert scalars["doubled"].tolist() == [2 * i for i in range(30)]
        leaves = run.results("leaves").to_pandas()
        assert leaves["pid"].nunique() >= 2

    def test_ten_of_fifty_leaves_fail(self, app: Any, capsys: pytest.CaptureFixture[str]) -> None:
        modes = ["good"] * 50
        modes[3:40:4] = ["raise"] * 7 + ["unpicklable", "exit", "segfault"]
        specs = [
            app.MixedInput(experiment_id="x", sort_index=i, mode=mode)
            for i, mode in enumerate(modes)
        ]
        run, ref = start(app, specs)
        status = run.wait(progress=True, timeout=150)
        result = ref.result(timeout=30)
        assert "10 failed" in str(status)
        assert "10 failed" in result.summary
        assert "10 failed" in capsys.readouterr().err
        scalars = run.results("scalars").to_pandas()
        assert len(scalars) == 40
        errors = run.errors().to_pandas().reset_index().set_index("mode")
        assert len(errors) == 10
        assert errors["attempts"].min() >= 1
        assert set(errors.loc["raise", "type"]) == {"ValueError"}
        assert errors.loc["raise", "message"].iloc[0] == "no solution for 3"
        assert "raise ValueError" in errors.loc["raise", "traceback"].iloc[0]
        assert errors.loc["unpicklable", "type"] == "UnpicklableError"
        assert errors.loc["unpicklable", "message"] == "lock: cannot travel"
        assert errors.loc["exit", "type"] == "SystemExit"
        assert "3" in errors.loc["exit", "message"]
        assert errors.loc["segfault", "kind"] == "worker_crash"
        assert "mixed" in errors.loc["segfault", "traceback"]
        leaves = run.results("leaves").to_pandas()
        assert leaves["state"].value_counts().to_dict() == {"done": 40, "failed": 10}

    def test_a_process_that_runs_leaves_is_killed(self, app: Any, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        specs = [
            app.MixedInput(
                experiment_id="x",
                sort_index=i,
                seconds=2.0 if i == 20 else 0.02,
                pid_file=str(pid_file) if i == 20 else "",
            )
            for i in range(200)
        ]
        run, ref = start(app, specs)
        wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", "leaf 20 runs")
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        result = ref.result(timeout=120)
        assert (result.n_leaves, result.n_failed) == (200, 0), run.errors().to_pylist()[:1]
        scalars = run.results("scalars").to_pandas()
        assert scalars["doubled"].tolist() == [2 * i for i in range(200)]

    def test_a_batch_fails_leaf_by_leaf(self, app: Any, tmp_path: Path) -> None:
        modes = dict.fromkeys(range(100, 200, 10), "raise") | {300: "segfault", 500: "hang"}
        trace = tmp_path / "trace"
        specs = [
            app.MixedInput(
                experiment_id="x",
                sort_index=i,
                mode="large" if i == 700 else modes.get(i, "good"),
                trace=str(trace),
            )
            for i in range(1000)
        ]
        run, ref = start(app, specs, batch_size=1000)
        result = ref.result(timeout=120)
        assert (result.n_leaves, result.n_failed) == (1000, 12), run.failures().to_pylist()
        good = [i for i in range(1000) if i not in modes]
        scalars = run.results("scalars").to_pandas()
        assert scalars["doubled"].tolist() == [2 * i for i in good]
        assert run.results("noise").num_rows == 1_000_000
        errors = run.errors().to_pandas()
        assert errors["leaf"].tolist() == list(modes)
        assert errors["kind"].tolist() == ["application_error"] * 10 + ["worker_crash", "timeout"]
        assert errors["attempts"].tolist() == [2] * 12
        assert "main.py" in errors["traceback"].iloc[10]  # where it crashed
        ids = run.results("leaves").to_pandas().index.get_level_values("workflow_run_id")
        assert len(set(ids)) == 1000
        assert len({one.rsplit("-", 1)[0] for one in ids}) == 1
        tries = Counter(int(line) for line in trace.read_text().splitlines())
        assert {tries[i] for i in good} == {1}, [i for i in good if tries[i] != 1]
        assert {tries[i] for i in modes} == {2}

    def test_batches_of_a_size_that_is_measured(self, app: Any) -> None:
        modes = {5: "raise", 900: "raise"}
        specs = ({"mode": modes.get(i, "good")} for i in range(2000))
        run, ref = start(app, specs, batch_size="auto")
        result = ref.result(timeout=120)
        assert (result.n_leaves, result.n_failed) == (2000, 2)
        good = [i for i in range(2000) if i not in modes]
        assert run.results("scalars").column("doubled").to_pylist() == [2 * i for i in good]
        leaves = run.results("leaves")
        assert leaves.column("sort_index").to_pylist() == list(range(2000))
        tasks = {one.rsplit("-", 1)[0] for one in leaves.column("workflow_run_id").to_pylist()[32:]}
        assert 1 < len(tasks) <= 64
        assert run.status().done == 1998


@pytest.mark.parametrize(("size", "done"), [(1, 10), ("auto", 40)])
def test_a_worker_that_stops_in_the_middle_of_a_run_is_quick(
    size: int | Literal["auto"], done: int, stack: dict[str, str], tmp_path: Path
) -> None:
    app = load_app("mixed")
    specs = [app.MixedInput(experiment_id="x", sort_index=i, seconds=0.2) for i in range(100)]
    with worker("mixed", tmp_path / "first"):
        run, ref = start(app, specs, batch_size=size)
        wait_until(lambda: run.status().done >= done, f"{done} leaves are done")
        asked = time.monotonic()
    assert time.monotonic() - asked < 25  # its nodes go back to the engine, they are not waited for
    assert not run.status().is_over
    with worker("mixed", tmp_path / "second"):
        result = ref.result(timeout=120)
    assert (result.n_leaves, result.n_failed) == (100, 0)


def test_the_example_of_the_engines_readme(stack: dict[str, str], tmp_path: Path) -> None:
    import shutil
    import subprocess
    import sys

    from tests.acceptance.running import APPS

    folder = tmp_path / "app"
    shutil.copytree(APPS / "building_energy", folder)
    with worker("building_energy", tmp_path / "log"):
        done = subprocess.run(
            [sys.executable, "allocate.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    for name in ("daily", "result_file_refs", "scalars"):
        assert name in lines["uris"]
        assert name in lines["latest"]
    assert lines["versions"].startswith("['v1.")
    assert "/final/scalars.pq" in lines["run"]


def test_the_tables_of_that_example(stack: dict[str, str], tmp_path: Path) -> None:
    import io

    import pandas as pd

    from scythe.experiments import BaseExperiment, SemVer
    from scythe.registry import ExperimentRegistry
    from scythe.storage.files import split_s3_uri
    from tests.acceptance.running import APPS

    app = load_app("building_energy", "experiments/building_energy.py")
    artifacts = APPS / "building_energy" / "artifacts"
    specs = [
        app.BuildingSimulationInput(
            experiment_id="placeholder",
            sort_index=0,
            r_value=1 + i,
            lpd=i,
            setpoint=20,
            economizer="NoEconomizer",
            weather_file=artifacts / f"{city}.epw",
            design_day_file=artifacts / f"{city}.ddy",
        )
        for i, city in enumerate(["Boston", "Oslo"] * 3)
    ]
    experiment = BaseExperiment(runnable="scythe_experiment_simulate_energy", run_name="tables")
    assert experiment.runnable is ExperimentRegistry.get_runnable(experiment.runnable.name)
    with worker("building_energy", tmp_path / "log"):
        run, ref = experiment.allocate(specs, version=SemVer(major=2))
        ref.result(timeout=120)
    store = run.store()

    def read(name: str) -> pd.DataFrame:
        return pd.read_parquet(io.BytesIO(store.get_bytes(experiment.latest_results[name])))

    scalars = read("scalars")
    assert scalars.index.names[:4] == [
        "experiment_id",
        "sort_index",
        "workflow_run_id",
        "root_workflow_run_id",
    ]
    assert scalars["lighting"].tolist() == [3.0 * i for i in range(6)]
    assert scalars.index.get_level_values("r_value").tolist() == [1.0 + i for i in range(6)]
    weather = scalars.index.get_level_values("weather_file")
    assert len(set(weather)) == 2
    assert all(uri.startswith("s3://") for uri in weather)
    files = read("result_file_refs")
    key = split_s3_uri(files["timeseries"].iloc[3])[1]
    hourly = pd.read_parquet(io.BytesIO(store.get_bytes(key)))
    assert hourly["heating"].sum() == pytest.approx(scalars["heating"].iloc[3])
    daily = read("daily")
    assert daily.index.names[-1] == "sort_subindex"
    assert len(daily) == 6 * 365
    sums = daily.groupby(level="sort_index")["heating"].sum()
    assert sums.tolist() == pytest.approx(scalars["heating"].tolist())
