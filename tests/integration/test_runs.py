"""Runs on the real engine: a worker as users start one, trees, failures, and what is large."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scythe.errors import EngineError, LeafFailed, RunTimeoutError
from scythe.outcomes import FailureKind
from scythe.scatter_gather import RecursionMap
from scythe.settings import ScytheStorageSettings
from scythe.storage.files import split_s3_uri
from scythe.storage.store import Store
from tests.acceptance.running import wait_until, worker
from tests.integration.conftest import APP
from tests.integration.database import query

DEADLINE = 180  # another process of tests may run beside this one


@pytest.fixture(scope="module", autouse=True)
def running(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One worker for all tests of this module, with two slots."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with worker(APP, log, SCYTHE_WORKER_SLOTS="2", **stack_env):
        yield


def frame(run: Any, name: str) -> pd.DataFrame:
    return run.results(name).to_pandas()


def level(table: pd.DataFrame, name: str) -> list[Any]:
    return table.index.get_level_values(name).tolist()


def test_a_tree_gives_all_rows_in_order(start: Any, store: Store) -> None:
    run, ref = start(
        [{"x": i} for i in range(21)], recursion_map=RecursionMap(factor=2, max_depth=2)
    )
    result = ref.result(timeout=DEADLINE)
    assert result.summary == "21 leaves, 21 done, 0 failed"
    scalars = frame(run, "scalars")
    assert scalars["y"].tolist() == [2.0 * i for i in range(21)]
    assert level(scalars, "sort_index") == list(range(21))
    assert level(scalars, "x") == [float(i) for i in range(21)]
    assert level(scalars, "half") == [i / 2 for i in range(21)]
    assert len(set(level(scalars, "workflow_run_id"))) == 21
    assert set(level(scalars, "root_workflow_run_id")) == {ref.workflow_run_id}
    assert len(frame(run, "errors")) == 0
    leaves = frame(run, "leaves")
    assert leaves["attempts"].tolist() == [1] * 21
    assert (leaves["started"] >= leaves["queued"]).all()
    assert (leaves["finished"] >= leaves["started"]).all()
    assert leaves["peak_rss"].min() > 10**7
    assert {name: str(uri) for name, uri in result.uris.items()} == {
        name: str(run.as_uri(key)) for name, key in run.list_results_files().items()
    }
    status = run.status()
    assert (status.state, status.done, status.failed, status.total) == ("done", 21, 0, 21)
    assert list(store.list_keys(run.layout.intermediate)) == []


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_longest_limits_are_none(
    start: Any, app: Any, stack_home: Path, batch_size: int
) -> None:
    run, ref = start([{"x": i} for i in range(6)], app.unlimited, batch_size=batch_size)
    assert run.wait(timeout=DEADLINE).done == 6
    limits = query(
        stack_home,
        "SELECT DISTINCT schedule_timeout, step_timeout FROM v1_task WHERE "
        f"additional_metadata->>'experiment_id' = '{run.experiment_id}'",
    )
    # Of the root, which has the default limits, and of the leaves, which may wait and run so long.
    assert sorted(limits) == ["876000h|1752000h", "876000h|876000h"]


def test_failed_leaves_are_rows_and_are_counted(
    start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path)
    modes = [
        *[{"mode": ""}, {"mode": "raise", "text": "wall 1"}, {"mode": "flaky", "size": 3}],
        *[{"mode": "raise", "text": "wall 3"}, {"mode": "flaky", "size": 2}, {"mode": ""}],
    ]
    run, ref = start([{"folder": folder, **mode} for mode in modes])
    status = run.wait(progress=True, timeout=DEADLINE)
    result = ref.result(timeout=DEADLINE)
    assert result.summary == "6 leaves, 4 done, 2 failed"
    assert "2 failed" in str(status)
    assert "2 failed" in capsys.readouterr().err
    assert level(frame(run, "scalars"), "sort_index") == [0, 2, 4, 5]
    errors = frame(run, "errors")
    assert level(errors, "sort_index") == [1, 3]
    assert level(errors, "text") == ["wall 1", "wall 3"]
    row = errors.iloc[0]
    assert (row["kind"], row["type"]) == ("application_error", "ValueError")
    assert row["message"] == "attempt 3 of wall 1"
    assert row["attempts"] == 3
    assert row["traceback"].splitlines()[0] == "Traceback (most recent call last):"
    assert "main.py" in row["traceback"]
    assert row["node"] == os.uname().nodename
    leaves = frame(run, "leaves")
    assert leaves["state"].tolist() == ["done", "failed", "done", "failed", "done", "done"]
    assert leaves["attempts"].tolist() == [1, 3, 3, 3, 2, 1]


def test_what_leaves_print_is_in_their_logs_in_hatchet(start: Any, app: Any) -> None:
    run, _ = start([{"text": "well"}, {"text": "before the end", "size": 3}], runnable=app.say)
    run.wait(timeout=DEADLINE)
    leaves = frame(run, "leaves")
    assert leaves["gpus"].tolist() == ["", ""]
    assert (leaves["queue_seconds"] > 0).all()
    ids = level(leaves, "workflow_run_id")
    assert _log_of(ids[0], 3) == ["leaf 0 says", "é\\x00", "well"]
    assert _log_of(ids[1], 9) == ["leaf 1 says", "é\\x00", "before the end"] * 3


def test_hatchet_is_told_once_when_a_leaf_began(
    start: Any, stack_home: Path, tmp_path: Path
) -> None:
    run, _ = start([{"mode": "wait", "folder": str(tmp_path)}] * 2)
    wait_until(lambda: run.status().running == 2, "two leaves run", DEADLINE)
    (tmp_path / "go").touch()
    run.wait(timeout=DEADLINE)
    leaves = frame(run, "leaves")
    for began, run_id in zip(leaves["started"], level(leaves, "workflow_run_id"), strict=True):
        told = query(
            stack_home,
            "SELECT EXTRACT(epoch FROM e.event_timestamp) FROM v1_task_events_olap e "
            "JOIN v1_tasks_olap t ON t.id = e.task_id "
            f"WHERE t.external_id = '{run_id}' AND e.event_type = 'STARTED'",
        )
        assert len(told) == 1
        assert began.timestamp() - 10 < float(told[0]) < began.timestamp() + 0.1


def _log_of(workflow_run_id: str, lines: int) -> list[str]:
    """Return the log of a run of one task once it has so many lines."""
    from scythe.engine.client import client

    task = client().runs.get(workflow_run_id).tasks[0].task_external_id
    deadline = time.monotonic() + 20
    while True:
        found = client().logs.list(task).rows or []
        if len(found) >= lines or time.monotonic() > deadline:
            return [row.message for row in sorted(found, key=lambda row: row.created_at)]
        time.sleep(0.1)


def test_all_leaves_fail(start: Any) -> None:
    run, ref = start([{"mode": "exit"}] * 2)
    assert ref.result(timeout=DEADLINE).summary == "2 leaves, 0 done, 2 failed"
    assert frame(run, "errors")["type"].tolist() == ["SystemExit"] * 2
    assert len(frame(run, "scalars")) == 0


def test_odd_errors_arrive_whole(start: Any) -> None:
    run, _ = start([{"mode": "odd error", "text": "end"}])
    run.wait(timeout=DEADLINE)
    row = frame(run, "errors").iloc[0]
    assert row["message"].startswith("scythe-failure: QUJD\x00\né😀é😀")
    assert len(row["message"]) == 5000
    assert row["traceback"].rstrip().endswith("end")
    assert row["attempts"] == 3


ODD = [math.nan, None, math.inf, "a\x00b\u2028😀", {1: "x", "1": []}, {}, 2**70, (1, 2)]


def test_odd_values_travel_both_ways(start: Any) -> None:
    run, ref = start([{"anything": value, "text": "\x00 ü", "x": math.inf} for value in ODD])
    assert ref.result(timeout=DEADLINE).n_failed == 0
    scalars = frame(run, "scalars")
    assert scalars["y"].tolist() == [math.inf] * len(ODD)
    assert set(scalars["text"]) == {"\x00 ü"}
    assert scalars["anything"].tolist()[3] in ("a\x00b\u2028😀", '"a\\u0000b\\u2028\\ud83d\\ude00"')


def test_what_is_large_passes(start: Any, store: Store) -> None:
    specs = [
        {"text": "x" * 5_000_000},
        {"text": "中" * 100_000, "mode": "values", "size": 400_000},
        {"mode": "tables", "size": 100_000},
        {"mode": "tables", "size": 3},
    ]
    run, ref = start(specs)
    assert ref.result(timeout=DEADLINE).n_failed == 0
    scalars = frame(run, "scalars")
    assert [len(text) for text in scalars["text"]] == [5_000_000, 100_000, 0, 0]
    values = scalars["values"].tolist()[1]
    assert len(values) == 400_001
    assert math.isnan(values[0])
    loads = frame(run, "loads")
    assert loads["v"].tolist() == [*range(100_000), 0, 1, 2]
    assert set(level(loads, "sort_index")) == {2, 3}
    assert set(loads["x"]) == {"column"}
    assert level(loads, "x")[0] == 1.0
    assert len(frame(run, "user_errors")) == 2
    assert len(frame(run, "errors")) == 0


def test_many_wide_specs_go_in_messages_that_the_engine_takes(start: Any) -> None:
    run, ref = start([{"text": "中" * 60_000, "x": i} for i in range(60)])
    assert ref.result(timeout=DEADLINE).n_failed == 0
    assert frame(run, "scalars")["y"].tolist() == [2.0 * i for i in range(60)]


def test_input_and_output_files(start: Any, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "ü 100%#1.epw"
    file.write_text("cold")
    run, ref = start([{"mode": "file", "weather": file}, {"mode": "file"}, {}])
    assert ref.result(timeout=DEADLINE).n_failed == 0
    refs = frame(run, "result_file_refs")
    assert level(refs, "sort_index") == [0, 1]
    keys = [split_s3_uri(uri)[1] for uri in refs["report"]]
    assert [store.get_bytes(key) for key in keys] == [b"report 0 cold", b"report 1 "]
    ids = level(refs, "workflow_run_id")
    assert keys == [f"{run.prefix}results/report/{run_id}.txt" for run_id in ids]


def test_sort_indices_of_the_users_own(start: Any) -> None:
    specs = [{"sort_index": i, "x": i} for i in (7, 3, 7, 100, 0)]
    run, _ = start(
        specs, overwrite_sort_index=False, recursion_map=RecursionMap(factor=2, max_depth=1)
    )
    run.wait(timeout=DEADLINE)
    scalars = frame(run, "scalars")
    assert level(scalars, "sort_index") == [0, 3, 7, 7, 100]
    assert scalars["y"].tolist() == [0.0, 6.0, 14.0, 14.0, 200.0]


def test_an_id_of_the_users_own(start: Any, folder: str, store: Store) -> None:
    own = f"{folder}/own"
    spec = {"experiment_id": own, "mode": "file"}
    run, _ = start([spec], overwrite_experiment_id=False)
    run.wait(timeout=DEADLINE)
    assert level(frame(run, "scalars"), "experiment_id") == [own]
    uri = frame(run, "result_file_refs")["report"].iloc[0]
    assert split_s3_uri(uri)[1].startswith(f"scythe/{own}/results/report/")


def test_leaves_that_are_hatchet_tasks_of_the_users(start: Any, app: Any) -> None:
    specs = [{"x": 1}, {"x": 2, "mode": "raise"}, {"x": 3}]
    run, ref = start(specs, runnable=app.plain_leaf)
    assert ref.result(timeout=DEADLINE).summary == "3 leaves, 2 done, 1 failed"
    assert frame(run, "scalars")["y"].tolist() == [3.0, 9.0]
    assert frame(run, "t")["a"].tolist() == [1.0, 3.0]
    errors = frame(run, "errors")
    assert level(errors, "sort_index") == [1]
    assert (errors["type"].iloc[0], errors["message"].iloc[0]) == ("ValueError", "plain 2.0")


def test_a_hatchet_workflow_with_one_spec(start: Any, app: Any) -> None:
    spec = app.Work(experiment_id="x", sort_index=0, x=4)
    run, ref = start(spec, runnable=app.two_steps)
    output = ref.result(timeout=DEADLINE)
    assert output["second"] == {"y": 50.0}
    assert run.manifest().workflow_run_id == ref.workflow_run_id
    assert run.wait(timeout=DEADLINE).state == "done"


def test_single_leaves(app: Any, store: Store, tmp_path: Path) -> None:
    def spec(**fields: Any) -> Any:
        return app.Work(experiment_id=f"single-{uuid.uuid4().hex}", sort_index=4, **fields)

    done = app.work.run(spec(x=5, anything={"a": math.nan}))
    assert (type(done), done.y) == (app.Done, 10.0)
    assert math.isnan(done.anything["a"])
    large = spec(mode="tables", size=50_000)
    done = asyncio.run(app.work.aio_run(large))
    assert len(done.dataframes["loads"]) == 50_000
    reference = app.work.run_no_wait(spec(mode="file"))
    report = reference.result(timeout=DEADLINE).report
    assert store.get_bytes(split_s3_uri(str(report))[1]) == b"report 4 "
    values = app.work.run(spec(mode="values", size=20_000)).values
    assert values[1:] == [float(i) for i in range(20_000)]
    with pytest.raises(LeafFailed, match="ValueError: attempt 3 of a wall") as error:
        app.work.run(spec(mode="raise", text="a wall", folder=str(tmp_path)))
    assert error.value.failure.kind is FailureKind.APPLICATION


def test_a_single_leaf_in_a_bucket_of_its_own(app: Any, second_bucket: Store) -> None:
    settings = ScytheStorageSettings(BUCKET=second_bucket.bucket, BUCKET_PREFIX="p")
    spec = app.Work(
        experiment_id="one", sort_index=0, mode="tables", size=50_000, storage_settings=settings
    )
    assert len(app.work.run(spec).dataframes["loads"]) == 50_000
    assert any(key.startswith("p/one/") for key in second_bucket.list_keys(""))


def test_a_result_inside_a_running_loop(app: Any) -> None:
    async def as_in_a_notebook() -> float:
        reference = app.work.run_no_wait(app.Work(experiment_id="loop", sort_index=0, x=2))
        return reference.result(timeout=DEADLINE).y

    assert asyncio.run(as_in_a_notebook()) == 4.0


def test_no_worker_has_the_label(start: Any, app: Any) -> None:
    run, ref = start([{}, {}], runnable=app.on_no_worker)
    assert ref.result(timeout=DEADLINE).n_failed == 2
    errors = frame(run, "errors")
    assert errors["kind"].tolist() == ["cancelled"] * 2
    assert (
        "check that a worker serves this experiment and has its labels" in errors["message"].iloc[0]
    )
    assert errors["attempts"].tolist() == [0, 0]
    with pytest.raises(EngineError, match=r"was cancelled.*schedule timeout"):
        app.on_no_worker.run(app.Work(experiment_id="x", sort_index=0))


def test_the_status_while_it_runs_and_a_run_that_is_cancelled(start: Any, tmp_path: Path) -> None:
    from scythe.engine.client import cancel_run

    waiting = [{"mode": "wait", "folder": str(tmp_path), "x": i} for i in range(4)]
    run, ref = start([{"x": 9}, *waiting])
    deadline = time.monotonic() + 30
    while True:
        status = run.status()
        if (status.done, status.running) == (1, 2):
            break
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    assert (status.state, status.total, status.failed, status.waiting) == ("running", 5, 0, 2)
    assert status.rate > 0
    with pytest.raises(RunTimeoutError, match="the run goes on"):
        run.wait(timeout=0.5)
    with pytest.raises(RunTimeoutError, match="has not ended"):
        ref.result(timeout=0.5)
    cancel_run(ref.workflow_run_id)
    status = run.wait(timeout=60)
    assert (status.state, status.done, status.failed) == ("cancelled", 1, 4)
    assert "cancelled" in status.message
    with pytest.raises(EngineError):
        ref.result(timeout=30)
    assert leaves_in_progress(run.experiment_id, within=20) == []  # none holds a slot any more


def leaves_in_progress(experiment_id: str, within: float) -> list[str]:
    from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus

    from scythe.engine.client import client

    deadline = time.monotonic() + within
    while True:
        found = client().runs.list(
            statuses=[V1TaskStatus.RUNNING, V1TaskStatus.QUEUED],
            additional_metadata={"experiment_id": experiment_id},
            only_tasks=True,
        )
        if not found.rows or time.monotonic() > deadline:
            return [item.metadata.id for item in found.rows]
        time.sleep(0.3)


def test_a_batch_of_leaves_in_one_task(start: Any, app: Any, tmp_path: Path) -> None:
    specs = [
        {"x": i, "folder": str(tmp_path), "mode": "raise" if i == 3 else ""} for i in range(10)
    ]
    run, ref = start(specs, batch_size=4)
    assert ref.result(timeout=DEADLINE).summary == "10 leaves, 9 done, 1 failed"
    assert level(frame(run, "scalars"), "sort_index") == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert frame(run, "errors")["attempts"].tolist() == [3]


EARLY = """
    import sys
    from tests.acceptance.running import load_app
    app = load_app(sys.argv[1])
    from scythe.engine.client import cancel_run, run_state
    from scythe.experiments import BaseExperiment
    from tests.integration.test_runs import wait_for_state
    experiment = BaseExperiment(runnable=app.work, run_name=sys.argv[2])
    run, ref = experiment.allocate([{"x": 1}])
    single = app.work.run_no_wait(app.Work(experiment_id="x", sort_index=0))
    print(*[wait_for_state(item.workflow_run_id) for item in (ref, single)])
    for item in (ref, single):
        cancel_run(item.workflow_run_id)
"""


def wait_for_state(workflow_run_id: str) -> str:
    """Wait until the engine tells the state of a new run."""
    from scythe.engine.client import run_state

    deadline = time.monotonic() + 15
    while (state := run_state(workflow_run_id)) == "UNKNOWN" and time.monotonic() < deadline:
        time.sleep(0.1)
    return state


def test_an_engine_that_knows_none_of_the_tasks_keeps_their_runs(
    stack: dict[str, str], folder: str
) -> None:
    # Hatchet drops a run of a task that no worker has registered, without a word. Here the tasks
    # have names that nobody has used.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(EARLY), APP, folder],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HATCHET_CLIENT_NAMESPACE": f"early{uuid.uuid4().hex[:8]}_"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() in (["QUEUED", "QUEUED"], ["RUNNING", "QUEUED"])
