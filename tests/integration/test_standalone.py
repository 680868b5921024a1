"""Experiments and `scatter_gather` as Hatchet standalones, as scripts of scythe-engine use them."""

from __future__ import annotations

import asyncio
import copy
import pickle
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scythe.errors import LeafFailed
from scythe.scatter_gather import RecursionMap, ScatterGatherInput, scatter_gather
from scythe.settings import default_storage_settings
from scythe.storage.store import Store
from scythe.utils.results import save_and_upload_parquets, transpose_dataframe_dict
from tests.acceptance.running import worker
from tests.integration.conftest import APP

DEADLINE = 180  # another process of tests may run beside this one


@pytest.fixture(scope="module", autouse=True)
def running(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One worker for all tests of this module, with two slots."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with worker(APP, log, SCYTHE_WORKER_SLOTS="2", **stack_env):
        yield


def spec(app: Any, number: int = 0, **fields: Any) -> Any:
    return app.Work(experiment_id=f"alone-{uuid.uuid4().hex}", sort_index=number, **fields)


def test_everything_public_of_a_standalone_is_there(app: Any) -> None:
    from hatchet_sdk.runnables.workflow import Standalone, Workflow

    for task in (app.work, scatter_gather):
        missing = [
            name for name in dir(Standalone) if not name.startswith("_") and not hasattr(task, name)
        ]
        assert missing == []
        assert isinstance(task, Standalone)
        assert not isinstance(task, Workflow)
        assert task.id == task.id
        assert [one.name for one in task.tasks]
        assert task.config.name == task.name
        assert copy.deepcopy(task) is task
    assert pickle.loads(pickle.dumps(app.Work(experiment_id="e", sort_index=1))).sort_index == 1
    assert app.work.is_async_function in (True, False)
    with pytest.raises(AttributeError, match="'Experiment' object has no attribute 'nothing'"):
        _ = app.work.nothing


def test_options_metadata_and_references(app: Any) -> None:
    from hatchet_sdk import TriggerWorkflowOptions

    mark = uuid.uuid4().hex
    options = TriggerWorkflowOptions(additional_metadata={"mark": mark})
    reference = app.work.run_no_wait(spec(app, x=2), options=options)
    assert reference.result(timeout=DEADLINE).y == 4.0
    later = app.work.get_result(reference.workflow_run_id)
    index = later.dataframes["scalars"].index
    assert index.get_level_values("x").tolist() == [2.0]
    assert index.get_level_values("workflow_run_id").tolist() == [reference.workflow_run_id]
    assert asyncio.run(app.work.aio_get_result(str(reference))).y == 4.0
    (found,) = app.work.list_runs(additional_metadata={"mark": mark})
    assert found.workflow_run_external_id == reference.workflow_run_id
    assert found.additional_metadata["experiment_name"] == app.work.name


def test_tables_come_as_pandas_has_them(app: Any) -> None:
    done = app.work.run(spec(app, 3, x=5, mode="tables", size=4))
    scalars, loads = done.dataframes["scalars"], done.dataframes["loads"]
    assert (scalars["y"].tolist(), scalars.index.get_level_values("x").tolist()) == ([10.0], [5.0])
    assert loads["v"].tolist() == [0, 1, 2, 3]
    assert set(loads.index.get_level_values("sort_index")) == {3}
    report = app.work.run(spec(app, mode="file"))
    assert report.dataframes["result_file_refs"]["report"].tolist() == [str(report.report)]


def test_many_runs_in_all_forms(app: Any) -> None:
    from hatchet_sdk import TriggerWorkflowOptions

    items = [
        app.work.create_bulk_run_item(
            input=spec(app, i, x=i, mode="raise" if i == 1 else "", folder="/nowhere" * (i == 1)),
            options=TriggerWorkflowOptions(additional_metadata={"index": i}),
        )
        for i in range(3)
    ]
    first, failed, last = asyncio.run(app.work.aio_run_many(items, return_exceptions=True))
    assert (first.y, last.y) == (0.0, 4.0)
    assert isinstance(failed, LeafFailed)
    with pytest.raises(LeafFailed):
        app.work.run_many(items)
    references = app.work.run_many_no_wait([items[0], items[2]])
    assert [one.result(timeout=DEADLINE).y for one in references] == [0.0, 4.0]
    outputs = app.work.run_many([items[0], items[2]])
    table = transpose_dataframe_dict([one.dataframes for one in outputs])["scalars"]
    assert table["y"].tolist() == [0.0, 4.0]


def test_schedules_and_crons(app: Any) -> None:
    from scythe.hatchet import hatchet

    version = app.work.schedule(datetime.now(UTC) + timedelta(hours=5), spec(app, x=1))
    for one in version.scheduled_workflows:
        hatchet.scheduled.delete(one.id)
    cron = app.work.create_cron(f"c-{uuid.uuid4().hex}", "0 0 1 1 *", spec(app, x=1))
    assert cron.cron == "0 0 1 1 *"
    hatchet.cron.delete(cron.metadata.id)


def test_scatter_gather_runs_a_table_of_specs_that_the_user_wrote(
    app: Any, store: Store, folder: str
) -> None:
    """As pipelines do: the specs are a Parquet file made with pandas, and not by `allocate`."""
    from hatchet_sdk import TriggerWorkflowOptions

    settings = default_storage_settings()
    specs = [spec(app, i, x=i, text="é") for i in range(5)]
    table = pd.DataFrame([one.model_dump(mode="json") for one in specs], index=list("abcde"))
    uris = save_and_upload_parquets(
        {"specs": table, "errors": table},
        store.client,
        settings.BUCKET,
        lambda name: f"{settings.BUCKET_PREFIX}/{folder}/in/{name}.pq",
    )
    assert list(uris) == ["specs"]
    payload = ScatterGatherInput(
        experiment_id=f"{folder}/v1.0.0/2026-01-02_03-04-05",
        task_name=app.work.name,
        specs_uri=uris["specs"],
        storage_settings=settings,
        recursion_map=RecursionMap(factor=2, max_depth=1),
    )
    options = TriggerWorkflowOptions(additional_metadata={"level": 7})
    result = scatter_gather.run(payload, options=options)
    assert set(result.uris) == {"scalars"}
    gathered = result.to_gathered_experiment_runs().success.dataframes["scalars"]
    assert gathered["y"].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert gathered.index.get_level_values("text").tolist() == ["é"] * 5
    assert gathered.index.get_level_values("experiment_id").tolist() == [
        one.experiment_id for one in specs
    ]


def test_scatter_gather_finds_a_run_again(app: Any, start: Any) -> None:
    run, reference = start([{"x": 1}, {"x": 2}])
    found = scatter_gather.get_result(reference.workflow_run_id)
    assert found == asyncio.run(scatter_gather.aio_get_result(reference.workflow_run_id))
    assert found.uris.keys() == run.list_results_files().keys() == {"scalars"}
    assert run.results("leaves").num_rows == 2
    assert run.errors().num_rows == run.failures().num_rows == 0


def test_a_mock_run_needs_no_engine(
    app: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HATCHET_CLIENT_TOKEN")
    outputs = [app.work.mock_run(spec(app, i, x=i, mode="tables", size=2)) for i in range(2)]
    tables = transpose_dataframe_dict([one.dataframes for one in outputs])
    assert tables["scalars"]["y"].tolist() == [0.0, 2.0]
    assert tables["loads"]["v"].tolist() == [0, 1, 0, 1]
    assert asyncio.run(app.work.aio_mock_run(spec(app, x=4))).y == 8.0
    with pytest.raises(ValueError, match="attempt 1"):
        app.work.mock_run(spec(app, mode="raise", folder=str(tmp_path)))


def test_a_mock_run_uploads_files_if_it_is_told_where_to(app: Any, store: Store) -> None:
    settings = default_storage_settings()
    done = app.work.mock_run(spec(app, mode="file", storage_settings=settings))
    assert str(done.report).startswith(f"s3://{settings.BUCKET}/{settings.BUCKET_PREFIX}/alone-")
    assert done.dataframes["result_file_refs"]["report"].tolist() == [str(done.report)]
