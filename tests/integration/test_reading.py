"""The read side: tables, status and waiting, from what a run has stored."""

from __future__ import annotations

import io
import time
import uuid
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import (
    ExperimentRunNotFoundError,
    ResultNotFoundError,
    RunTimeoutError,
    SpecError,
    StorageError,
)
from scythe.experiments import BaseExperiment, ExperimentRun, SemVer, VersionedExperiment
from scythe.registry import ExperimentRegistry
from scythe.settings import ScytheStorageSettings
from scythe.status import RunStatus
from scythe.storage.manifest import to_yaml
from scythe.storage.store import Store
from scythe.tables.pandas_index import with_pandas_index


class In(ExperimentInputSpec):
    pass


class Out(ExperimentOutputSpec):
    pass


@ExperimentRegistry.Register(name="integration_reading")
def experiment(spec: In) -> Out:
    return Out()


@pytest.fixture
def run(folder: str) -> ExperimentRun[Any, Any]:
    base = BaseExperiment[Any, Any](runnable=experiment, run_name=folder)
    versioned = VersionedExperiment[Any, Any](base_experiment=base, version=SemVer(major=1))
    return ExperimentRun(versioned_experiment=versioned, timestamp=datetime(2025, 1, 2, 3, 4, 5))


def put_table(store: Store, run: Any, name: str, **columns: Any) -> None:
    sink = io.BytesIO()
    pq.write_table(with_pandas_index(pa.table(columns), [next(iter(columns))]), sink)
    store.put_bytes(run.layout.final_table(name), sink.getvalue())


def put_status(store: Store, run: Any, **fields: Any) -> None:
    status = RunStatus(experiment_id=run.experiment_id, **fields)
    store.put_bytes(run.layout.status, status.model_dump_json().encode())


def put_manifest(store: Store, run: Any, **fields: Any) -> None:
    store.put_bytes(run.manifest_filekey, to_yaml(fields))


def test_tables(run: Any, store: Store) -> None:
    put_table(store, run, "scalars", sort_index=[0, 1], y=[1.5, None])
    put_table(store, run, "errors", sort_index=[2], kind=["timeout"])
    put_table(store, run, "my loads ü", sort_index=[0], a=["x"])
    scalars = run.results()
    assert scalars.column("y").to_pylist() == [1.5, None]
    frame = scalars.to_pandas()
    assert frame.index.names == ["sort_index"]
    assert run.results("my loads ü").num_rows == 1
    assert run.errors().column("kind").to_pylist() == ["timeout"]
    assert run.list_results_files() == {
        name: run.layout.final_table(name) for name in ("my loads ü", "scalars")
    }
    base = run.versioned_experiment.base_experiment
    assert base.latest_results == run.list_results_files()
    assert base.latest_results_for_version(SemVer(major=1)) == run.list_results_files()
    assert run.list_results_files(store.client) == run.list_results_files()


def test_errors_show_what_went_wrong_first_and_failures_count_it(run: Any, store: Store) -> None:
    kinds, messages = ["timeout", "application_error", "timeout"], ["slow", "no", "slow"]
    put_table(
        store,
        run,
        "errors",
        sort_index=[2, 4, 5],
        wall=["a", "b", "c"],
        kind=kinds,
        type=["T", "E", "T"],
        message=messages,
        traceback=["x"] * 3,
    )
    errors = run.errors().to_pandas()
    assert errors.columns.tolist() == [
        *("kind", "type", "message", "leaf", "traceback", "sort_index", "wall"),
    ]
    assert str(errors).split()[:4] == ["kind", "type", "message", "leaf"]
    assert run.failures().to_pylist() == [
        {"kind": "timeout", "type": "T", "message": "slow", "count": 2, "leaf": 2},
        {"kind": "application_error", "type": "E", "message": "no", "count": 1, "leaf": 4},
    ]


def test_a_table_that_is_not_there(run: Any, store: Store) -> None:
    with pytest.raises(ResultNotFoundError, match=r"has no table 'scalars' \(it has: none yet\)"):
        run.results()
    put_table(store, run, "loads", sort_index=[0])
    with pytest.raises(ResultNotFoundError, match=r"has no table 'errors' \(it has: loads\)"):
        run.errors()
    with pytest.raises(SpecError, match="not a plain relative path"):
        run.results("../../secret")


def test_a_bucket_that_is_not_there_is_no_missing_table(run: Any) -> None:
    settings = ScytheStorageSettings(BUCKET=f"none-{uuid.uuid4().hex}")
    base = run.versioned_experiment.base_experiment.model_copy(
        update={"storage_settings": settings}
    )
    versioned = run.versioned_experiment.model_copy(update={"base_experiment": base})
    with pytest.raises((StorageError, ResultNotFoundError), match=settings.BUCKET):
        run.model_copy(update={"versioned_experiment": versioned}).manifest()


def test_a_manifest_that_is_not_there(run: Any, folder: str) -> None:
    with pytest.raises(ExperimentRunNotFoundError, match=f"{folder}/v1.0.0/2025-01-02_03-04-05"):
        run.manifest()


@pytest.mark.parametrize("data", [b"", b"{", b'{"state": "running"}', b"[1]", b"\xff\x00"])
def test_a_status_that_a_failing_server_holds_damaged_is_none(
    store: Store, run: Any, data: bytes
) -> None:
    put_manifest(store, run, n_specs=7, workflow_run_id=None)
    store.put_bytes(run.layout.status, data)
    assert run.status().state == "queued"


def test_the_status_of_a_run_that_nobody_knows(run: Any) -> None:
    status = run.status()
    assert (status.state, status.total, status.workflow_run_id) == ("not_started", 0, None)
    assert "It has no manifest" in status.message


def test_stored_counts(run: Any, store: Store) -> None:
    put_status(
        store, run, state="running", total=9, done=3, failed=1, running=2, started=time.time()
    )
    assert str(run.status()).endswith("running, 3 done, 1 failed, 2 running of 9 leaves")


def test_a_status_without_news_is_checked_with_the_engine(run: Any, store: Store) -> None:
    unknown = str(uuid.uuid4())
    put_status(store, run, state="running", total=9, updated=1.0, workflow_run_id=unknown)
    assert run.status().state == "running"  # the engine does not know it: nothing is made up


def test_before_the_first_node_the_manifest_tells(run: Any, store: Store) -> None:
    put_manifest(store, run, n_specs=7, workflow_run_id=None)
    status = run.status()
    assert (status.state, status.total, status.waiting) == ("queued", 7, 7)


def test_a_run_that_allocate_left_before_its_start(
    run: Any, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_manifest(store, run, n_specs=7, workflow_run_id=None)
    assert run.status().state == "queued"  # allocate may be about to start it
    monkeypatch.setattr("scythe.runs.reading._START_SECONDS", 0.0)
    status = run.wait(progress=True)
    assert (status.state, status.total, status.waits_for) == ("not_started", 7, "")
    assert status.message.endswith("Allocate it again.")
    assert "the run was not started" in capsys.readouterr().err
    assert str(run.status()).endswith("of 7 leaves. " + status.message)


def test_a_started_run_whose_id_was_not_recorded(
    start: Any, ended: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe.runs.reading._START_SECONDS", 0.0)
    run, reference = ended(start([{"x": 1.0}]))
    store.put_bytes(
        run.manifest_filekey,
        store.get_bytes(run.manifest_filekey).replace(reference.workflow_run_id.encode(), b"null"),
    )
    assert run.manifest().workflow_run_id is None
    deadline = time.monotonic() + 20  # the engine shows a new run after a moment
    while (status := run.status()).state == "not_started" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (status.state, status.total) == ("queued", 1)
    assert (
        status.waits_for == "No worker is connected. Start one that serves 'work': python main.py."
    )


def test_waiting_ends_with_the_run(
    run: Any, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    put_status(store, run, state="done", total=9, done=7, failed=2)
    assert run.wait().failed == 2
    assert capsys.readouterr().err == ""
    run.wait(progress=True)
    assert "7 done, 2 failed" in capsys.readouterr().err
    put_status(store, run, state="failed", total=9, done=7, message="no bucket")
    assert run.wait(timeout=5).message == "no bucket"


def test_waiting_has_a_deadline(run: Any, store: Store) -> None:
    put_status(store, run, state="running", total=9, done=7)
    started = time.monotonic()
    with pytest.raises(RunTimeoutError, match=r"7 done.*after 1 s: the run goes on"):
        run.wait(timeout=1)
    assert time.monotonic() - started < 5
    with pytest.raises(RunTimeoutError):
        run.wait(timeout=0)
