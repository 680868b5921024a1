"""Allocation: all is checked before anything is written, and stored before anything is started."""

from __future__ import annotations

import copy
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import (
    EngineError,
    ExperimentNotFoundError,
    ExperimentRunNotFoundError,
    ExperimentVersionNotFoundError,
    RegistrationError,
    SpecError,
)
from scythe.experiments import BaseExperiment, SemVer, VersionedExperiment
from scythe.registry import ExperimentRegistry
from scythe.scatter_gather import RecursionMap
from scythe.settings import ScytheStorageSettings
from scythe.specs.codec import decode_spec
from scythe.specs.file import SPEC_COLUMN
from scythe.storage.files import FileReference, split_s3_uri
from scythe.storage.store import Store

V1 = SemVer(major=1)
Ended = Callable[[Any], Any]


class Wall(ExperimentInputSpec):
    width: float = 1.0
    tags: dict[Any, Any] | None = None
    weather: FileReference | None = None

    @property
    def computed_features(self) -> dict[str, int | float | str]:
        return {"area": 2 * self.width}


class Load(ExperimentOutputSpec):
    load: float = 0


@ExperimentRegistry.Register(name="integration_allocate_walls")
def walls(spec: Wall) -> Load:
    return Load(load=spec.width)


def wall(index: int = 0, **fields: Any) -> Wall:
    return Wall(experiment_id="given", sort_index=index, **fields)


@pytest.fixture
def experiment(folder: str) -> BaseExperiment[Any, Any]:
    return BaseExperiment(runnable=walls, run_name=folder)


def keys_of(store: Store, folder: str) -> list[str]:
    """The keys below the folder of a test, without the folder."""
    root = f"{store.config.prefix}/{folder}/"
    return [key.removeprefix(root) for key in store.list_keys(root)]


def specs_of(store: Store, run: Any) -> pd.DataFrame:
    return pq.read_table(io.BytesIO(store.get_bytes(run.specs_filekey))).to_pandas()


def test_what_a_run_stores(
    experiment: Any, store: Store, folder: str, ended: Ended, tmp_path: Path
) -> None:
    file = tmp_path / "ü oslo#1.epw"
    file.write_text("cold")
    tree = RecursionMap(factor=2, max_depth=1)
    specs = [wall(9, width=0.5, tags={1: None}), wall(9, weather=file)]
    run, ref = ended(experiment.allocate(specs, version=V1, recursion_map=tree))
    run_folder = f"v1.0.0/{run.dt_str}"
    assert keys_of(store, folder) == [
        f"{run_folder}/artifacts/weather/ü oslo#1.epw",
        f"{run_folder}/experiment_io_spec.yml",
        f"{run_folder}/input_artifacts.yml",
        f"{run_folder}/input_digests.json",
        f"{run_folder}/manifest.yml",
        f"{run_folder}/specs.pq",
    ]
    manifest = yaml.safe_load(store.get_bytes(run.manifest_filekey))
    code = manifest.pop("code")
    assert len(code["fingerprint"]) == 16
    assert manifest == {
        "workflow_run_id": ref.workflow_run_id,
        "experiment_id": f"{folder}/v1.0.0/{run.dt_str}",
        "experiment_name": "integration_allocate_walls",
        "specs_uri": str(run.as_uri(run.specs_filekey)),
        "io_spec": str(run.as_uri(run.io_spec_filekey)),
        "input_artifacts": str(run.as_uri(run.input_artifacts_filekey)),
        "n_specs": 2,
        "recursion_map": {"factor": 2, "max_depth": 1},
        "batch_size": 1,
        "codes": None,
        "code_mismatches": None,
        "description": "",
        "labels": {},
        "sources": [],
        "tags": [],
    }
    assert run.manifest().workflow_run_id == ref.workflow_run_id
    schema = yaml.safe_load(store.get_bytes(run.io_spec_filekey))
    assert {"width", "weather"} <= set(schema["$defs"]["Wall"]["properties"])
    uris = yaml.safe_load(store.get_bytes(run.input_artifacts_filekey))["files"]["weather"]
    assert [store.get_bytes(split_s3_uri(uri)[1]) for uri in uris] == [b"cold"]
    rows = specs_of(store, run)
    assert rows["sort_index"].tolist() == [0, 1]
    assert rows["width"].tolist() == [0.5, 1.0]
    assert rows["area"].tolist() == [1.0, 2.0]
    assert rows["weather"].tolist()[1] == uris[0]
    first, second = (decode_spec(Wall, text) for text in rows[SPEC_COLUMN])
    assert first.tags == {1: None}
    assert (first.experiment_id, first.sort_index) == (run.experiment_id, 0)
    assert str(second.weather) == uris[0]
    assert run.status().total == 2
    assert run.status().state == "queued"


def test_one_spec_has_a_document_of_its_own(experiment: Any, store: Store, ended: Ended) -> None:
    run, _ = ended(experiment.allocate(wall(width=2), version=V1))
    document = yaml.safe_load(store.get_bytes(run.workflow_spec_filekey))
    assert (document["width"], document["sort_index"]) == (2.0, 0)
    assert document["experiment_id"] == run.experiment_id
    assert run.manifest().n_specs == 1
    assert run.manifest().input_artifacts is None


def test_specs_as_dicts_and_from_a_generator(experiment: Any, store: Store, ended: Ended) -> None:
    run, _ = ended(experiment.allocate(({"width": i} for i in range(3)), version=V1))
    assert specs_of(store, run)["width"].tolist() == [0.0, 1.0, 2.0]


def test_the_callers_specs_are_not_changed(experiment: Any, ended: Ended, tmp_path: Path) -> None:
    file = tmp_path / "a.epw"
    file.write_text("x")
    specs = [wall(7, weather=file, tags={"deep": [1]}), wall(3)]
    before = copy.deepcopy(specs)
    ended(experiment.allocate(specs, version=V1))
    assert specs == before
    assert specs[0].weather == file


def test_sort_index_and_id_are_kept_if_wanted(experiment: Any, store: Store, ended: Ended) -> None:
    specs = [wall(7), wall(2, width=2), wall(7, width=3), wall(4)]
    run, _ = ended(
        experiment.allocate(
            specs, version=V1, overwrite_sort_index=False, overwrite_experiment_id=False
        )
    )
    rows = specs_of(store, run)
    assert rows["sort_index"].tolist() == [2, 4, 7, 7]
    assert rows["width"].tolist() == [2.0, 1.0, 1.0, 3.0]
    assert set(rows["experiment_id"]) == {"given"}


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        (lambda: [wall(), {"width": "wide"}], "Spec 1: field 'width'"),
        (lambda: [wall(), wall(tags={"a": object()})], "Spec 1: Field 'tags'"),
        (
            lambda: [wall(weather=Path(__file__)), wall(weather=Path("/no/file"))],
            "Spec 1: the file",
        ),
    ],
    ids=["field", "value", "file"],
)
def test_wrong_specs_write_nothing(
    specs: Callable[[], Any], reason: str, experiment: Any, store: Store, folder: str
) -> None:
    with pytest.raises(SpecError, match=reason):
        experiment.allocate(specs(), version=V1)
    assert keys_of(store, folder) == []


def test_files_of_one_name_from_two_folders_are_both_kept(
    experiment: Any, store: Store, folder: str, ended: Ended, tmp_path: Path
) -> None:
    files = [tmp_path / name / "a.epw" for name in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text(file.parent.name)
    run, _ = ended(experiment.allocate([wall(weather=file) for file in files], version=V1))
    uris = [str(decode_spec(Wall, text).weather) for text in specs_of(store, run)[SPEC_COLUMN]]
    assert [store.get_bytes(split_s3_uri(uri)[1]) for uri in uris] == [b"one", b"two"]
    listed = yaml.safe_load(store.get_bytes(run.input_artifacts_filekey))["files"]["weather"]
    assert listed == sorted(uris)


def test_one_file_of_a_thousand_specs_is_uploaded_once(
    experiment: Any, store: Store, folder: str, ended: Ended, tmp_path: Path
) -> None:
    file = tmp_path / "a.epw"
    file.write_text("x")
    run, _ = ended(experiment.allocate([wall(weather=file)] * 1000, version=V1))
    assert len([key for key in keys_of(store, folder) if "/artifacts/" in key]) == 1
    assert specs_of(store, run)["weather"].nunique() == 1
    assert run.manifest().n_specs == 1000


ALLOCATE = """
    import sys
    from tests.integration.test_allocate import walls, wall, V1
    from scythe.experiments import BaseExperiment
    experiment = BaseExperiment(runnable=walls, run_name=sys.argv[1])
    for i in range(int(sys.argv[2])):
        run, ref = experiment.allocate([wall()], version=V1)
        print(run.dt_str, ref.workflow_run_id, flush=True)
"""
ROOT = Path(__file__).parents[2]


def start_allocating(folder: str, count: int, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ALLOCATE), folder, str(count)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_runs_never_share_a_folder(experiment: Any, store: Store, folder: str) -> None:
    from scythe.engine.client import cancel_run

    processes = [start_allocating(folder, 3) for _ in range(2)]
    lines: list[list[str]] = []
    for process in processes:
        output, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors
        lines += [line.split() for line in output.splitlines()]
    for _, workflow_run_id in lines:
        cancel_run(workflow_run_id)
    assert len(lines) == 6
    assert len({name for name, _ in lines}) == 6
    assert len({workflow_run_id for _, workflow_run_id in lines}) == 6
    for name, workflow_run_id in lines:
        data = store.get_bytes(f"{store.config.prefix}/{folder}/v1.0.0/{name}/manifest.yml")
        assert yaml.safe_load(data)["workflow_run_id"] == workflow_run_id
    assert not any("/.claims/" in key for key in keys_of(store, folder))
    versions = experiment.list_versions()
    assert len(versions[0].list_runs()) == 6


def test_a_folder_that_is_claimed_by_another_is_left_as_it_was(
    experiment: Any, store: Store, folder: str, ended: Ended
) -> None:
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    prefix = f"{store.config.prefix}/{folder}/v1.0.0"
    taken = {f"{now + timedelta(seconds=i):%Y-%m-%d_%H-%M-%S}" for i in range(30)}
    for name in taken:
        store.put_bytes(f"{prefix}/.claims/{name}.another", b"")
    run, _ = ended(experiment.allocate([wall()], version=V1))
    assert run.dt_str not in taken
    assert [found.dt_str for found in experiment.list_versions()[0].list_runs()] == [run.dt_str]
    assert len([key for key in keys_of(store, folder) if "/.claims/" in key]) == len(taken)


@pytest.fixture
def silent_engine() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_process_that_dies_before_the_start_leaves_no_started_run(
    experiment: Any, store: Store, folder: str, silent_engine: str, ended: Ended
) -> None:
    process = start_allocating(folder, 1, HATCHET_CLIENT_HOST_PORT=silent_engine)
    deadline = time.monotonic() + 60
    while not any(key.endswith("/manifest.yml") for key in keys_of(store, folder)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    dead = experiment.latest_run
    assert dead.manifest().workflow_run_id is None
    assert (dead.status().state, dead.status().total) == ("queued", 1)
    assert started_runs(dead.experiment_id) == 0
    run, ref = ended(experiment.allocate([wall()], version="keep"))
    assert run.experiment_id != dead.experiment_id
    assert run.manifest().workflow_run_id == ref.workflow_run_id
    assert wait_for(lambda: started_runs(run.experiment_id) == 1)


def started_runs(experiment_id: str) -> int:
    from scythe.engine.client import client

    found = client().runs.list(additional_metadata={"experiment_id": experiment_id})
    return len(found.rows)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_an_engine_that_is_away_is_said_and_nothing_is_started(
    experiment: Any, folder: str, store: Store
) -> None:
    away = {"HATCHET_CLIENT_HOST_PORT": "127.0.0.1:1", "HATCHET_CLIENT_TENACITY_MAX_ATTEMPTS": "2"}
    process = start_allocating(folder, 1, **away)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"scythe.errors.{EngineError.__name__}: ")
    assert "127.0.0.1:1 cannot be reached" in last
    assert experiment.latest_run.manifest().workflow_run_id is None


def test_versions(experiment: Any, ended: Ended, store: Store, folder: str) -> None:
    assert experiment.list_versions() == []
    assert experiment.latest_version() is None
    expected = {
        "keep": "v1.0.0",
        "bumpminor": "v1.1.0",
        "bumppatch": "v1.1.1",
        "bumpmajor": "v2.0.0",
    }
    for strategy, version in expected.items():
        run, _ = ended(experiment.allocate([wall()], version=strategy))
        assert str(run.versioned_experiment.version) == version
    run, _ = ended(experiment.allocate([wall()]))
    assert str(run.versioned_experiment.version) == "v3.0.0"
    run, _ = ended(experiment.allocate([wall()], version=SemVer(major=10)))
    found = [str(item.version) for item in experiment.list_versions()]
    assert sorted(found) == ["v1.0.0", "v1.1.0", "v1.1.1", "v10.0.0", "v2.0.0", "v3.0.0"]
    assert str(experiment.latest_version().version) == "v10.0.0"
    assert experiment.latest_run.experiment_id == run.experiment_id


def test_stray_folders_are_no_versions_or_runs(
    experiment: Any, ended: Ended, store: Store, folder: str
) -> None:
    run, _ = ended(experiment.allocate([wall()], version=V1))
    root = f"{store.config.prefix}/{folder}/"
    for name in ("v9/x", "v9-0-0/x", "v01.0.0/x", "notes/x", "v2.0.0.bak/x", "v2.0.0", "vv3.0.0/x"):
        store.put_bytes(root + name, b"")
    for name in ("notes/x", "2025-1-2_3-4-5/x", "2025-01-02/x", "readme.md"):
        store.put_bytes(f"{root}v1.0.0/{name}", b"")
    assert [str(item.version) for item in experiment.list_versions()] == ["v1.0.0"]
    assert [item.dt_str for item in experiment.latest_version().list_runs()] == [run.dt_str]
    assert experiment.resolve_next_version("bumpmajor") == SemVer(major=2)


def test_what_is_not_there(experiment: Any, folder: str, ended: Ended) -> None:
    for look in (lambda: experiment.latest_run, lambda: experiment.latest_results):
        with pytest.raises(ExperimentNotFoundError, match=f"Experiment {folder} not found"):
            look()
    with pytest.raises(ExperimentVersionNotFoundError, match=f"{folder}/v4.0.0 not found"):
        experiment.latest_results_for_version(SemVer(major=4))
    run, _ = ended(experiment.allocate([wall()], version=V1))
    later = run.a_second_later()
    with pytest.raises(
        ExperimentRunNotFoundError, match=f"{folder}/v1.0.0/{later.dt_str} not found"
    ):
        later.manifest()
    assert experiment.latest_results == {}


def test_a_client_and_a_bucket_of_the_users_own(
    folder: str, second_bucket: Store, ended: Ended, store: Store
) -> None:
    settings = ScytheStorageSettings(BUCKET=second_bucket.bucket, BUCKET_PREFIX="deep/er")
    experiment: Any = BaseExperiment(runnable=walls, run_name=folder, storage_settings=settings)
    run, _ = ended(experiment.allocate([wall()], version=V1, s3_client=store.client))
    assert run.prefix == f"deep/er/{folder}/v1.0.0/{run.dt_str}/"
    assert all(key.startswith(run.prefix) for key in second_bucket.list_keys(""))
    assert run.manifest().specs_uri.host == second_bucket.bucket
    assert [str(v.version) for v in experiment.list_versions(store.client)] == ["v1.0.0"]
    assert keys_of(store, folder) == []


def test_an_empty_prefix(folder: str, second_bucket: Store, ended: Ended) -> None:
    settings = ScytheStorageSettings(BUCKET=second_bucket.bucket, BUCKET_PREFIX="")
    experiment: Any = BaseExperiment(runnable=walls, run_name=folder, storage_settings=settings)
    run, _ = ended(experiment.allocate([wall()], version=V1))
    assert run.prefix == f"{folder}/v1.0.0/{run.dt_str}/"
    assert experiment.latest_run.experiment_id == run.experiment_id


def test_a_hatchet_workflow_takes_one_spec(stack: dict[str, str], folder: str) -> None:
    from scythe.hatchet import hatchet

    workflow = hatchet.workflow(name="integration_allocate_flow", input_validator=Wall)
    experiment: Any = BaseExperiment(runnable=workflow, run_name=folder)
    with pytest.raises(RegistrationError, match="Workflows do not yet support batching"):
        experiment.allocate([wall(), wall()], version=V1)


def test_ids_come_from_one_version(experiment: Any, ended: Ended) -> None:
    run, _ = ended(experiment.allocate([wall()], version=V1))
    versioned = VersionedExperiment(base_experiment=experiment, version=V1)
    assert versioned.latest_run.experiment_id == run.experiment_id
    assert versioned.latest_run_results == {}
