"""Experiments, versions and runs, as far as no bucket is needed."""

from __future__ import annotations

import copy
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import (
    ExperimentSpecsMismatchError,
    ExperimentTypeNotFound,
    RegistrationError,
    SpecError,
)
from scythe.experiment import Experiment, batch_size_of
from scythe.experiments import BaseExperiment, ExperimentRun, SemVer, VersionedExperiment
from scythe.outcomes import LeafResources
from scythe.registry import ExperimentRegistry
from scythe.settings import ScytheStorageSettings
from scythe.storage.files import FileReference

STORAGE = ScytheStorageSettings(BUCKET="b", BUCKET_PREFIX="p")
V1 = SemVer(major=1)


class In(ExperimentInputSpec):
    x: float
    weather: FileReference | None = None


class Out(ExperimentOutputSpec):
    y: float = 0


@ExperimentRegistry.Register(name="experiments_walls")
def walls(spec: In) -> Out:
    return Out(y=spec.x)


class Featured(In):
    @property
    def computed_features(self) -> dict[str, int | float | str]:
        return {"x": 1}


@ExperimentRegistry.Register(name="experiments_featured")
def featured(spec: Featured) -> Out:
    return Out(y=spec.x)


def base(runnable: Any = walls, **fields: Any) -> BaseExperiment[Any, Any]:
    return BaseExperiment(runnable=runnable, storage_settings=STORAGE, **fields)


def run_of(experiment: BaseExperiment[Any, Any]) -> ExperimentRun[Any, Any]:
    versioned = VersionedExperiment(base_experiment=experiment, version=SemVer(major=1, minor=2))
    return ExperimentRun(versioned_experiment=versioned, timestamp=datetime(2025, 1, 2, 3, 4, 5))


def test_ids_and_keys() -> None:
    run = run_of(base())
    root = "p/experiments_walls/v1.2.0/2025-01-02_03-04-05/"
    assert run.experiment_id == "experiments_walls/v1.2.0/2025-01-02_03-04-05"
    assert run.prefix == root
    assert run.scalars_filekey == f"{root}final/scalars.pq"
    assert run.specs_filekey == f"{root}specs.pq"
    assert run.manifest_filekey == f"{root}manifest.yml"
    assert run.io_spec_filekey == f"{root}experiment_io_spec.yml"
    assert run.input_artifacts_filekey == f"{root}input_artifacts.yml"
    assert run.workflow_spec_filekey == f"{root}workflow_spec.yml"
    assert run.final_results_dirkey == f"{root}final/"
    assert run.artifact_prefix == f"{root}artifacts/"
    assert run.construct_artifact_key("f", "a.csv") == f"{root}artifacts/f/a.csv"
    assert run.versioned_experiment.prefix == "p/experiments_walls/v1.2.0/"
    assert run.versioned_experiment.base_experiment.prefix == "p/experiments_walls/"
    assert run.a_second_later().dt_str == "2025-01-02_03-04-06"


@pytest.mark.parametrize("name", ["my runs", "team/a/walls", "ü 100%#?"])
def test_run_names(name: str) -> None:
    run = run_of(base(run_name=name))
    assert run.experiment_id.startswith(f"{name}/v1.2.0/")
    assert run.prefix.startswith(f"p/{name}/")


@pytest.mark.parametrize("name", ["", "..", "/etc", "a/../b", "a//b", "x\n", "a/"])
def test_run_names_that_leave_the_prefix(name: str) -> None:
    with pytest.raises(ValidationError, match="is not a plain relative path"):
        base(run_name=name)


def test_a_registered_name_that_leaves_the_prefix() -> None:
    experiment = Experiment(walls.fn, "../../walls")
    with pytest.raises(SpecError, match="is not a plain relative path"):
        _ = base(experiment).prefix
    with pytest.raises(SpecError, match="is not a plain relative path"):
        _ = run_of(base(experiment)).layout


def test_an_experiment_by_its_name() -> None:
    assert base("experiments_walls").runnable is walls
    with pytest.raises(ExperimentTypeNotFound, match="nobody"):
        base("nobody")
    with pytest.raises(RegistrationError, match="is not an experiment"):
        base(walls.fn)


def test_a_run_as_json_and_copied() -> None:
    run = run_of(base())
    back = ExperimentRun[Any, Any].model_validate_json(run.model_dump_json())
    assert back.experiment_id == run.experiment_id
    assert back.versioned_experiment.base_experiment.runnable is walls
    assert copy.deepcopy(run.versioned_experiment.base_experiment).runnable is walls


def test_a_version_that_is_none() -> None:
    experiment = base()
    assert experiment.resolve_next_version(V1) is V1
    with pytest.raises(ValueError, match="version='bumpall' is unknown: use 'bumpmajor'"):
        experiment.resolve_next_version("bumpall")  # pyright: ignore[reportArgumentType]


def test_types_of_specs() -> None:
    experiment = base()
    experiment.check_spec_types([In(experiment_id="e", sort_index=0, x=1)])
    with pytest.raises(ExperimentSpecsMismatchError, match=r"Expected type In, got int for spec 1"):
        experiment.check_spec_types([In(experiment_id="e", sort_index=0, x=1), 2])
    with pytest.raises(ExperimentSpecsMismatchError, match="Expected type In, got dict"):
        experiment.check_spec_type({})


class NoBucket:
    """A client that nobody may use: what is refused before the first request passes by it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the bucket was asked for {name}")


def spec(index: int = 0, **fields: Any) -> In:
    return In(experiment_id="e", sort_index=index, x=fields.pop("x", 1), **fields)


def broken(**fields: Any) -> In:
    return spec().model_copy(update=fields)


class Other(ExperimentInputSpec):
    pass


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        ([], "There are no specs to run: pass at least one"),
        (iter(()), "There are no specs to run"),
        (5, "Expected type In, got int for spec 0"),
        ("text", "'text' is no spec: pass specs, or the path or URI of a Parquet file"),
        (
            [spec(), Other(experiment_id="e", sort_index=0)],
            "Expected type In, got Other for spec 1",
        ),
        ([spec(), {"x": "wide"}], r"Spec 1: field 'x': Input should be a valid number"),
        ([{"y": 1}], "Spec 0: field 'x': Field required"),
        (
            [spec(), spec(), broken(x="wide")],
            "Spec 2: field 'x': .*Nothing was uploaded or started",
        ),
        ([broken(x=object())], "Spec 0: Field 'x' has a value of type object"),
        (
            [spec(), spec(weather=Path("/not/there"))],
            "Spec 1: the file of field 'weather', '/not/there'",
        ),
        ({"x": None}, "Spec 0: field 'x'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_specs_are_refused_before_anything_is_written(specs: Any, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        base().allocate(specs, version=V1, s3_client=NoBucket())


def test_a_wrong_feature_is_refused_before_anything_is_written() -> None:
    specs = [Featured(experiment_id="e", sort_index=0, x=1)]
    with pytest.raises(SpecError, match="Spec 0: Additional index data overlaps .*'x'"):
        base(featured).allocate(specs, version=V1, s3_client=NoBucket())


def test_an_id_of_the_users_own_that_leaves_the_prefix() -> None:
    wrong = In(experiment_id="../../other", sort_index=0, x=1)
    with pytest.raises(SpecError, match="Spec 0: experiment_id '../../other' is not a plain"):
        base().allocate([wrong], version=V1, overwrite_experiment_id=False, s3_client=NoBucket())


@ExperimentRegistry.Register(
    name="experiments_fresh", resources=LeafResources(fresh_process=True), batch_size=10
)
def fresh(spec: In) -> Out:
    return Out()


def test_a_batch_of_leaves_that_want_a_process_each_is_refused() -> None:
    with pytest.raises(RegistrationError, match="experiments_fresh asks for a process of its own"):
        base(fresh).allocate([spec()], version=V1, s3_client=NoBucket())
    assert batch_size_of(fresh, 1) == 1
    assert batch_size_of(walls, "auto") == 0
    with pytest.raises(RegistrationError, match="batch_size='many' is not a number of leaves"):
        batch_size_of(walls, "many")  # pyright: ignore[reportArgumentType]
