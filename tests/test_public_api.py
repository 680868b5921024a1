"""The public names exist where scripts of scythe-engine 1.3 look for them."""

from __future__ import annotations

import enum
import importlib
import inspect
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from scythe import errors

# What scythe-engine 1.3 has under these names, and scripts use.
NAMES = """
scythe.base: BaseSpec ExperimentInputSpec ExperimentOutputSpec ComputedFeatureValue
scythe.base: ExperimentIndexNotSerializableError ScalarInDataframesError
scythe.base: ExperimentIndexAdditionalDataDoesNotMatchNRowsError ResultFileRefsInDataframesError
scythe.base: ExperimentIndexAdditionalDataOverlapsWithSpecError
scythe.registry: ExperimentRegistry ExperimentTypeExists ExperimentTypeNotFound
scythe.registry: ExperimentFunction TInput TOutput
scythe.experiments: BaseExperiment VersionedExperiment ExperimentRun SemVer SerializableRunnable
scythe.experiments: ExperimentRunManifest InputArtifactLocations VersioningStrategy DatetimeFormat
scythe.experiments: ExperimentSpecsMismatchError BaseNotFoundError ExperimentNotFoundError
scythe.experiments: ExperimentVersionNotFoundError ExperimentRunNotFoundError
scythe.scatter_gather: RecursionMap RecursionSpec scatter_gather
scythe.scatter_gather: ScatterGatherInput ScatterGatherResult
scythe.worker: ScytheWorkerConfig ScytheWorkerLabel WorkerNameConfig
scythe.settings: ScytheStorageSettings TimeoutSettings
scythe.utils.filesys: FileReference OptionalFileReference S3Url fetch_uri
scythe.hatchet: hatchet
scythe.errors: ScytheError
"""
EVERY_NAME = [
    (line.split(":")[0], name)
    for line in NAMES.strip().splitlines()
    for name in line.split(":")[1].split()
]
MEMBERS = """
scythe.base.BaseSpec: experiment_id fetch_uri local_path log remote_artifact_file_paths
scythe.base.ExperimentInputSpec: sort_index workflow_run_id root_workflow_run_id storage_settings
scythe.base.ExperimentInputSpec: computed_features prefix make_multiindex construct_output_key
scythe.base.ExperimentOutputSpec: dataframes
scythe.registry.ExperimentRegistry: Register Include get_runnable experiments
scythe.experiments.BaseExperiment: runnable run_name storage_settings base_id prefix allocate
scythe.experiments.BaseExperiment: list_versions latest_version latest_run latest_results
scythe.experiments.BaseExperiment: latest_results_for_version resolve_next_version
scythe.experiments.BaseExperiment: check_spec_type check_spec_types
scythe.experiments.VersionedExperiment: base_experiment version base_id prefix list_runs latest_run
scythe.experiments.VersionedExperiment: latest_run_results
scythe.experiments.ExperimentRun: versioned_experiment timestamp dt_str experiment_id prefix
scythe.experiments.ExperimentRun: artifact_prefix construct_artifact_key specs_filekey as_uri
scythe.experiments.ExperimentRun: manifest_filekey io_spec_filekey input_artifacts_filekey
scythe.experiments.ExperimentRun: workflow_spec_filekey final_results_dirkey scalars_filekey
scythe.experiments.ExperimentRun: list_results_files status wait results errors manifest
scythe.experiments.SemVer: major minor patch FromString next_major_version next_minor_version
scythe.experiments.SemVer: next_patch_version
scythe.scatter_gather.RecursionMap: path factor max_depth is_root
scythe.scatter_gather.RecursionSpec: factor offset
scythe.scatter_gather.ScatterGatherInput: task_name specs_uri storage_settings recursion_map
scythe.scatter_gather.ScatterGatherInput: save_errors
scythe.scatter_gather.ScatterGatherResult: uris
scythe.scatter_gather.scatter_gather: run aio_run run_no_wait name
scythe.worker.ScytheWorkerConfig: executor name slots durable_slots high_memory high_cpu has_gpu
scythe.worker.ScytheWorkerConfig: does_fan does_leaf labels computed_slots computed_durable_slots
scythe.worker.ScytheWorkerConfig: computed_name start
scythe.settings.ScytheStorageSettings: BUCKET BUCKET_PREFIX
scythe.settings.TimeoutSettings: SCATTER_GATHER_SCHEDULE SCATTER_GATHER_EXECUTION
scythe.settings.TimeoutSettings: EXPERIMENT_SCHEDULE EXPERIMENT_EXECUTION
"""
EVERY_MEMBER = [
    (line.split(":")[0], name)
    for line in MEMBERS.strip().splitlines()
    for name in line.split(":")[1].split()
]
# Parameters with their defaults, as text; `…` where there is none.
SIGNATURES = {
    "scythe.base.BaseSpec.fetch_uri": "uri=… use_cache=True",
    "scythe.base.BaseSpec.local_path": "pth=…",
    "scythe.base.BaseSpec.log": "msg=… level=20",
    "scythe.base.ExperimentInputSpec.make_multiindex": (
        "additional_index_data=None n_rows=1 include_sort_subindex=True "
        "additional_excludes=frozenset()"
    ),
    "scythe.base.ExperimentInputSpec.construct_output_key": "field_name=… fpath=…",
    "scythe.registry.ExperimentRegistry.Register": (
        "function=None worker=None description=None name=None desired_worker_labels=None "
        "schedule_timeout=None execution_timeout=None retries=1 inject_workflow_run_id=True "
        "auto_fetch_files=True local_file_location='cache' resources=None batch_size=None "
        "reusable=True max_running=None "
        "task_config=…"
    ),
    "scythe.registry.ExperimentRegistry.get_runnable": "name=…",
    "scythe.experiments.BaseExperiment.allocate": (
        "specs=… version='bumpmajor' overwrite_sort_index=True overwrite_experiment_id=True "
        "recursion_map=None s3_client=None batch_size=None strict=False reuse=None description='' "
        "tags=() priority=None max_failures=None dry_run=False"
    ),
    "scythe.experiments.BaseExperiment.list_versions": "s3_client=None",
    "scythe.experiments.BaseExperiment.latest_version": "s3_client=None from_cache=True",
    "scythe.experiments.BaseExperiment.latest_results_for_version": "version=…",
    "scythe.experiments.BaseExperiment.resolve_next_version": "version=… s3_client=None",
    "scythe.experiments.VersionedExperiment.list_runs": "s3_client=None",
    "scythe.experiments.ExperimentRun.list_results_files": "s3_client=None",
    "scythe.experiments.ExperimentRun.wait": (
        "progress=False timeout=None raise_on_failure=False on_progress=None"
    ),
    "scythe.utils.filesys.fetch_uri": "uri=… local_path=… use_cache=True s3=None store=None",
    "scythe.worker.ScytheWorkerConfig.start": "experiments=None additional_workflows=None",
}


def find(path: str) -> Any:
    """Return what a dotted path names."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return getattr(find(module), name)


@pytest.mark.parametrize(("module", "name"), EVERY_NAME)
def test_every_name_is_at_its_place(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name, None) is not None


@pytest.mark.parametrize(("owner", "name"), EVERY_MEMBER)
def test_every_member_is_there(owner: str, name: str) -> None:
    found = find(owner)
    fields = found.model_fields if isinstance(found, type) and issubclass(found, BaseModel) else {}
    assert name in fields or hasattr(found, name)


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures(path: str) -> None:
    parameters = inspect.signature(find(path)).parameters
    texts = [
        f"{name}={'…' if item.default is item.empty else repr(item.default)}"
        for name, item in parameters.items()
        if name != "self"
    ]
    assert " ".join(texts) == SIGNATURES[path]


def test_classes_are_of_the_kind_that_scripts_need() -> None:
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.storage.files import FileReferenceMixin
    from scythe.worker import ScytheWorkerLabel

    assert issubclass(ExperimentInputSpec, FileReferenceMixin)
    assert issubclass(ExperimentOutputSpec, FileReferenceMixin)
    assert issubclass(ScytheWorkerLabel, str)
    assert issubclass(ScytheWorkerLabel, enum.Enum)


def test_file_references_take_what_scythe_engine_takes() -> None:
    from pathlib import Path

    from pydantic import HttpUrl

    from scythe.utils.filesys import FileReference, OptionalFileReference, S3Url

    union, optional = get_args(FileReference)[0], get_args(OptionalFileReference)[0]
    assert {S3Url, HttpUrl, Path} <= set(get_args(union))
    assert set(get_args(optional)) == {*get_args(union), type(None)}


def error_classes() -> list[type[BaseException]]:
    return [
        item
        for item in vars(errors).values()
        if isinstance(item, type) and issubclass(item, BaseException)
    ]


@pytest.mark.parametrize("cls", error_classes(), ids=lambda cls: cls.__name__)
def test_all_errors_have_one_root_and_are_in_the_tree(cls: type[BaseException]) -> None:
    assert issubclass(cls, errors.ScytheError)
    assert cls.__doc__
    tree = errors.__doc__ or ""
    assert cls.__name__ in tree


def test_errors_of_other_modules_have_the_root_too() -> None:
    from scythe.locate import CodeNotFoundError

    assert issubclass(CodeNotFoundError, errors.ScytheError)


def test_errors_that_scripts_catch_under_pythons_own_names() -> None:
    assert issubclass(errors.SpecError, ValueError)
    assert issubclass(errors.SettingsError, ValueError)
    assert issubclass(errors.RegistrationError, TypeError)
    assert issubclass(errors.BaseNotFoundError, LookupError)
    assert issubclass(errors.RunTimeoutError, TimeoutError)
