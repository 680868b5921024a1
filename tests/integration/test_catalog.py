"""Runs that are found by what a user calls them, listed, and deleted."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

import scythe
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import ExperimentTypeNotFound, RunGoesOnError, RunNotFoundError, SpecError
from scythe.processes.identity import description_of_self
from scythe.registry import ExperimentRegistry
from scythe.runnable import AbsentExperiment
from scythe.status import RunStatus
from scythe.storage.manifest import to_yaml
from scythe.storage.store import Store


class In(ExperimentInputSpec):
    pass


class Out(ExperimentOutputSpec):
    pass


@ExperimentRegistry.Register(name="integration_catalog")
def experiment(spec: In) -> Out:
    return Out()


def put_run(store: Store, run_id: str, name: str = "elsewhere", **fields: Any) -> str:
    """Store what makes a run that is over."""
    prefix = f"{store.config.prefix}/{run_id}"
    manifest = {"workflow_run_id": None, "experiment_id": run_id, "experiment_name": name}
    manifest |= {"specs_uri": f"s3://{store.bucket}/{prefix}/specs.pq", "n_specs": 3}
    manifest |= {"io_spec": f"s3://{store.bucket}/{prefix}/io.yml"}
    store.put_bytes(f"{prefix}/manifest.yml", to_yaml({**manifest, **fields}))
    status = RunStatus(experiment_id=run_id, state="done", total=3, done=2, failed=1)
    store.put_bytes(f"{prefix}/status.json", status.model_dump_json().encode())
    return run_id


@pytest.fixture
def three(store: Store, folder: str) -> list[str]:
    """Two runs of one version, and a later one of a lower version, the latest last."""
    return [
        put_run(store, f"{folder}/v1.10.0/2026-01-01_00-00-00"),
        put_run(store, f"{folder}/v1.10.0/2026-01-02_00-00-00"),
        put_run(store, f"{folder}/v1.9.0/2026-01-03_00-00-00"),
    ]


def ids(runs: list[Any]) -> list[str]:
    return [run.experiment_id for run in runs]


def test_runs_are_listed_the_latest_first(three: list[str], folder: str, store: Store) -> None:
    deeper = put_run(store, f"{folder}/walls/south/v1.0.0/2026-01-04_00-00-00")
    store.put_bytes(f"{store.config.prefix}/{folder}/v1.9.0/notes/readme.txt", b"x")
    store.put_bytes(f"{store.config.prefix}/{folder}/v1.9/2026-01-03_00-00-00/x", b"x")
    assert ids(scythe.list_runs(folder)) == [deeper, *reversed(three)]
    everything = ids(scythe.list_runs())
    assert [one for one in everything if one.startswith(folder)] == [deeper, *reversed(three)]
    assert scythe.list_runs("no-such-experiment") == []


def test_a_run_by_each_of_its_names(three: list[str], folder: str, store: Store) -> None:
    names = {
        three[0]: three[0],
        f"s3://{store.bucket}/{store.config.prefix}/{three[0]}/": three[0],
        folder: three[2],
        f"{folder}@latest": three[2],
        f"{folder}@v1.10.0": three[1],
        f"{folder}@1.10": three[1],
        f"{folder}/v1.10.0": three[1],
        f" {folder}@v1.9.0\n": three[2],
    }
    assert {name: scythe.open_run(name).experiment_id for name in names} == names


def test_the_latest_of_all(store: Store, folder: str) -> None:
    latest = put_run(store, f"{folder}/v1.0.0/2999-01-01_00-00-00")
    assert scythe.open_run("@latest").experiment_id == latest
    assert scythe.open_run().experiment_id == latest


def test_the_name_of_a_function_will_do(store: Store, folder: str) -> None:
    run = put_run(store, f"scythe_experiment_{folder}/v1.0.0/2026-01-01_00-00-00")
    try:
        for name in (folder, f"{folder}@v1.0.0", run.removeprefix("scythe_experiment_")):
            assert scythe.open_run(name).experiment_id == run
        assert ids(scythe.list_runs(folder)) == [run]
    finally:
        scythe.open_run(run).delete()


def test_names_that_are_close_are_told(three: list[str], folder: str) -> None:
    with pytest.raises(RunNotFoundError, match=rf"(?s)No run '{folder}x'.*Did you mean '{folder}'"):
        scythe.open_run(f"{folder}x")
    for wrong in (f"{folder}@v3.0.0", f"{folder}/v1.9.0/2026-01-03_00-00-01"):
        with pytest.raises(RunNotFoundError, match=f"Did you mean '{three[2]}' or '{three[1]}'"):
            scythe.open_run(wrong)
    with pytest.raises(RunNotFoundError, match="no runs in s3://.*/nothing-here"):
        scythe.open_run("roof", prefix="nothing-here")
    with pytest.raises(RunNotFoundError, match=r"after '@' comes a version such as v1\.2\.0"):
        scythe.open_run("roof@newest")


@pytest.mark.parametrize("name", ["", "/", "../x", "a//b", "a/./b", "..@v1.0.0", "a\x00b"])
def test_names_that_lead_elsewhere_are_refused(name: str, stack: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="plain relative path"):
        scythe.open_run(name)


def test_another_user_has_another_prefix(three: list[str], store: Store, folder: str) -> None:
    run_id = "roof/v1.0.0/2026-01-01_00-00-00"
    store.put_bytes(f"{folder}-b/{run_id}/manifest.yml", to_yaml({"experiment_name": "roof"}))
    try:
        assert ids(scythe.list_runs(prefix=f"{folder}-b")) == [run_id]
        opened = scythe.open_run("roof", prefix=f"/{folder}-b/")
        assert opened.layout.prefix == f"{folder}-b/{run_id}/"
        assert run_id not in ids(scythe.list_runs())
    finally:
        store.delete_all(f"{folder}-b/")


def test_a_run_whose_code_is_not_here_can_be_read(three: list[str]) -> None:
    run = scythe.open_run(three[0])
    assert isinstance(run.runnable, AbsentExperiment)
    assert run.last_status().failed == 1
    assert run.leaf_task.name == "elsewhere"
    with pytest.raises(ExperimentTypeNotFound, match="elsewhere.*Import the module"):
        run.spec(0)


def test_a_run_whose_code_is_here_has_it(store: Store, folder: str) -> None:
    run_id = put_run(store, f"{folder}/v1.0.0/2026-01-01_00-00-00", "integration_catalog")
    assert scythe.open_run(run_id).runnable is experiment


def test_what_has_no_manifest_was_not_started(three: list[str], store: Store, folder: str) -> None:
    left = f"{folder}/v2.0.0/2026-02-01_00-00-00"
    store.put_bytes(f"{store.config.prefix}/{left}/specs.pq", b"x")
    assert scythe.open_run(folder).experiment_id == three[2]  # the latest that was started
    run = scythe.open_run(left)
    assert run.last_status().state == "not_started"
    claim = f"{run.layout.claims}one"
    for process in (b"", description_of_self().encode()):
        store.put_bytes(claim, process)
        with pytest.raises(RunGoesOnError, match=r"is being allocated, .* Try again in 10 min"):
            run.delete()
    with subprocess.Popen(["true"]) as ended:
        machine, _, birth = json.loads(description_of_self())
    store.put_bytes(claim, json.dumps([machine, ended.pid, birth]).encode())
    run.delete()
    assert list(store.list_keys(run.layout.claims)) == []
    assert left not in ids(scythe.list_runs(folder))


def test_a_deleted_run_leaves_nothing_and_the_others(
    three: list[str], store: Store, folder: str
) -> None:
    store.put_bytes(f"{store.config.prefix}/{three[1]}/final/scalars.pq", b"x")
    scythe.open_run(three[1]).delete()
    assert ids(scythe.list_runs(folder)) == [three[2], three[0]]
    keys = list(store.list_keys(f"{store.config.prefix}/{folder}/"))
    assert not [key for key in keys if three[1] in key]


def test_a_run_that_goes_on_is_not_deleted(store: Store, folder: str) -> None:
    run_id = put_run(store, f"{folder}/v1.0.0/2026-01-01_00-00-00")
    status = RunStatus(experiment_id=run_id, state="running", total=3, started=1.0)
    key = f"{store.config.prefix}/{run_id}/status.json"
    store.put_bytes(key, status.model_dump_json().encode())
    with pytest.raises(RunGoesOnError, match=f"running, .* scythe cancel {run_id}"):
        scythe.open_run(run_id).delete()
    assert store.find_bytes(key)
