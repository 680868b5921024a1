"""Experiments, their versions and their runs in the bucket."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, Self, Unpack, overload

from pydantic import BaseModel, Field, field_validator

from scythe.errors import (
    BaseNotFoundError,
    DuplicateInputArtifactsError,
    ExperimentNotFoundError,
    ExperimentRunNotFoundError,
    ExperimentSpecsMismatchError,
    ExperimentVersionNotFoundError,
)
from scythe.experiment import TInput, TOutput, batch_size_of
from scythe.runnable import AbsentExperiment, SerializableRunnable, find_runnable
from scythe.runs.allocate import Allocation
from scythe.runs.allocation_options import AllocationOptions
from scythe.runs.control import RunControl
from scythe.runs.explain import LeafTask
from scythe.runs.exports import RunExports
from scythe.runs.keys import RunKeys
from scythe.runs.leaves import RunLeaves
from scythe.runs.prepared import AllocationPlan
from scythe.runs.reading import RunReader
from scythe.runs.repeats import RunOptions, RunRepeats, find_reused, finished_runs
from scythe.runs.versions import DatetimeFormat, next_version, run_times_in, versions_in
from scythe.scatter.references import RunRef
from scythe.scatter_gather import RecursionMap, ScatterGatherResult
from scythe.semver import SemVer, VersioningStrategy
from scythe.settings import ScytheStorageSettings, default_storage_settings, store_config
from scythe.storage.layout import RunLayout, check_path
from scythe.storage.manifest import ExperimentRunManifest, InputArtifactLocations
from scythe.storage.store import Store, check_client, open_store

__all__ = [
    "BaseExperiment",
    "BaseNotFoundError",
    "DatetimeFormat",
    "DuplicateInputArtifactsError",
    "ExperimentNotFoundError",
    "ExperimentRun",
    "ExperimentRunManifest",
    "ExperimentRunNotFoundError",
    "ExperimentSpecsMismatchError",
    "ExperimentVersionNotFoundError",
    "InputArtifactLocations",
    "SemVer",
    "SerializableRunnable",
    "VersionedExperiment",
    "VersioningStrategy",
]


class BaseExperiment(SerializableRunnable[TInput, TOutput]):
    """An experiment in the bucket, with all its versions.

    Attributes:
        runnable: The experiment, or its name.
        run_name: The folder in the bucket; the experiment's name by default.
        storage_settings: The bucket.
    """

    run_name: str | None = None
    storage_settings: ScytheStorageSettings = Field(default_factory=default_storage_settings)

    @property
    def experiment(self) -> Any:
        """The runnable, as it was called before scythe-engine 1.1."""
        return self.runnable

    @field_validator("run_name")
    @classmethod
    def _check_run_name(cls, value: str | None) -> str | None:
        if value is not None:
            check_path("run_name", value)
        return value

    @property
    def base_id(self) -> str:
        """The folder of the experiment below the bucket's prefix."""
        return self.run_name or str(self.runnable.name)

    @property
    def prefix(self) -> str:
        """The key below which all versions are, with a slash at its end."""
        return f"{RunLayout.below_prefix(self.storage_settings.BUCKET_PREFIX, self.base_id)}/"

    def store(self, s3_client: Any = None) -> Store:
        """Return the store of this experiment.

        Args:
            s3_client: A boto3 client to use instead of Scythe's own.
        """
        config = store_config(self.storage_settings)
        if s3_client is None:
            return open_store(config)
        check_client(config, s3_client)
        return Store(config, s3_client)

    def list_versions(self, s3_client: Any = None) -> list[VersionedExperiment[TInput, TOutput]]:
        """Return all versions of the experiment that the bucket has.

        Folders that are not named like a version are passed over.
        """
        found = versions_in(self.store(s3_client), self.prefix)
        return [VersionedExperiment(base_experiment=self, version=version) for version in found]

    def latest_version(
        self,
        s3_client: Any = None,
        from_cache: bool = True,  # noqa: ARG002 - kept for scythe-engine
    ) -> VersionedExperiment[TInput, TOutput] | None:
        """Return the highest version, or None when there is none.

        Args:
            s3_client: A boto3 client to use instead of Scythe's own.
            from_cache: Kept for scythe-engine; the bucket is always asked.
        """
        return max(self.list_versions(s3_client), key=lambda item: item.version, default=None)

    @property
    def latest_run(self) -> ExperimentRun[TInput, TOutput]:
        """The latest run of the highest version."""
        return self._latest_version_or_raise().latest_run

    @property
    def latest_results(self) -> dict[str, str]:
        """The keys of the final tables of the latest run of the highest version, by name."""
        return self._latest_version_or_raise().latest_run_results

    def latest_results_for_version(self, version: SemVer) -> dict[str, str]:
        """Return the keys of the final tables of the latest run of a version, by name."""
        return VersionedExperiment(base_experiment=self, version=version).latest_run_results

    def resolve_next_version(
        self, version: SemVer | VersioningStrategy | str, s3_client: Any = None
    ) -> SemVer:
        """Return a version as given (`1.2.0`), or where a strategy leads; at first to `v1.0.0`."""
        return next_version(version, self.store(s3_client), self.prefix)

    def check_spec_type(self, spec: Any, index: int | None = None) -> None:
        """Raise unless a spec is of the type that the experiment takes."""
        expected = self.runnable.input_validator_type
        if not isinstance(spec, expected):
            raise ExperimentSpecsMismatchError(expected, type(spec), index)

    def check_spec_types(self, specs: Iterable[Any]) -> None:
        """Raise unless all specs are of the type that the experiment takes."""
        for index, spec in enumerate(specs):
            self.check_spec_type(spec, index)

    @overload
    def allocate(
        self,
        specs: TInput,
        version: SemVer | VersioningStrategy | str = "bumpmajor",
        overwrite_sort_index: bool = True,
        overwrite_experiment_id: bool = True,
        recursion_map: RecursionMap | None = None,
        s3_client: Any = None,
        batch_size: int | Literal["auto"] | None = None,
        strict: bool = False,
        *,
        dry_run: Literal[False] = False,
        **options: Unpack[RunOptions],
    ) -> tuple[ExperimentRun[TInput, TOutput], RunRef[Any]]: ...

    @overload
    def allocate(
        self,
        specs: Iterable[TInput],
        version: SemVer | VersioningStrategy | str = "bumpmajor",
        overwrite_sort_index: bool = True,
        overwrite_experiment_id: bool = True,
        recursion_map: RecursionMap | None = None,
        s3_client: Any = None,
        batch_size: int | Literal["auto"] | None = None,
        strict: bool = False,
        *,
        dry_run: Literal[False] = False,
        **options: Unpack[RunOptions],
    ) -> tuple[ExperimentRun[TInput, TOutput], RunRef[ScatterGatherResult]]: ...

    @overload
    def allocate(
        self,
        specs: Any,
        version: SemVer | VersioningStrategy | str = "bumpmajor",
        overwrite_sort_index: bool = True,
        overwrite_experiment_id: bool = True,
        recursion_map: RecursionMap | None = None,
        s3_client: Any = None,
        batch_size: int | Literal["auto"] | None = None,
        strict: bool = False,
        *,
        dry_run: Literal[True],
        **options: Unpack[RunOptions],
    ) -> AllocationPlan: ...

    def allocate(
        self,
        specs: Any,
        version: SemVer | VersioningStrategy | str = "bumpmajor",
        overwrite_sort_index: bool = True,
        overwrite_experiment_id: bool = True,
        recursion_map: RecursionMap | None = None,
        s3_client: Any = None,
        batch_size: int | Literal["auto"] | None = None,
        strict: bool = False,
        *,
        reuse: RunRepeats | str | None = None,
        description: str = "",
        tags: Iterable[str] = (),
        priority: Literal[1, 2, 3] | None = None,
        max_failures: float | None = None,
        dry_run: bool = False,
    ) -> tuple[ExperimentRun[TInput, TOutput], RunRef[Any]] | AllocationPlan:
        """Start a run of these specs.

        All specs are checked before any is uploaded; all that the run needs is stored before
        anything is started. The specs themselves are not changed.

        Args:
            specs: One or many specs: models or dicts, listed or from an iterator; a table with one
                row for each (Arrow, pandas, polars); or a Parquet file's path or URI.
            version: The version of the run, or how to get it from the latest one.
            overwrite_sort_index: Whether specs are numbered in the order given.
            overwrite_experiment_id: Whether specs get the id of the run.
            recursion_map: The tree in which the specs are run; by default one whose nodes have at
                most about 1,000 children.
            s3_client: A boto3 client to use instead of Scythe's own.
            batch_size: The number of leaves that one Hatchet task runs one after another, in
                place of that in `Register`; "auto": so many that they take a few seconds.
            strict: Whether unknown fields of specs are refused; else a warning names them.
            reuse: A run, its id, or "latest" for the latest that is over. Its leaves that ended
                well are taken over where spec, input files and code are the same, and only the
                others are run; that run must be kept.
            description: Words about the run, for its manifest.
            tags: Words to find it by.
            priority: 3 for leaves that pass those of runs with 2 or 1 (the default) in the queue
                of the experiment.
            max_failures: How many leaves may fail, or which share of all (0.1); with more, the run
                stops and ends as `failed`, with its tables.
            dry_run: Whether all is only checked; nothing is stored or started.

        Returns:
            The run, and a reference with `result()` and `aio_result()`; with `dry_run` its size.

        Raises:
            SpecError: A spec is wrong: the message names its index and field.
            RunGoesOnError: The run whose leaves are to be reused is not over.
        """
        asked = AllocationOptions(
            overwrite_sort_index=overwrite_sort_index,
            overwrite_experiment_id=overwrite_experiment_id,
            recursion_map=recursion_map,
            batch_size=batch_size_of(self.runnable, batch_size),
            strict=strict,
            reuse=find_reused(self, reuse, s3_client),
            description=description,
            tags=tuple(tags),
            priority=priority,
            max_failures=max_failures,
        )
        run = self._new_run(self.resolve_next_version(version, s3_client))
        allocation = Allocation(self.runnable, self.store(s3_client), asked)
        if dry_run:
            return allocation.dry_run(specs, run, next(finished_runs(self, s3_client), None))
        return allocation.start(specs, run)

    def _new_run(self, version: SemVer) -> ExperimentRun[TInput, TOutput]:
        versioned = VersionedExperiment(base_experiment=self, version=version)
        return ExperimentRun(versioned_experiment=versioned, timestamp=_now())

    def _latest_version_or_raise(self) -> VersionedExperiment[TInput, TOutput]:
        latest = self.latest_version()
        if latest is None:
            raise ExperimentNotFoundError(self.base_id)
        return latest


class VersionedExperiment(BaseModel, Generic[TInput, TOutput]):
    """One version of an experiment."""

    base_experiment: BaseExperiment[TInput, TOutput]
    version: SemVer

    @property
    def base_id(self) -> str:
        """The folder of the version below the bucket's prefix."""
        return f"{self.base_experiment.base_id}/{self.version}"

    @property
    def prefix(self) -> str:
        """The key below which all runs are, with a slash at its end."""
        return f"{self.base_experiment.prefix}{self.version}/"

    def list_runs(self, s3_client: Any = None) -> list[ExperimentRun[TInput, TOutput]]:
        """Return all runs of the version that the bucket has."""
        found = run_times_in(self.base_experiment.store(s3_client), self.prefix)
        return [ExperimentRun(versioned_experiment=self, timestamp=time) for time in found]

    @property
    def latest_run(self) -> ExperimentRun[TInput, TOutput]:
        """The latest run of the version."""
        runs = self.list_runs()
        if not runs:
            raise ExperimentVersionNotFoundError(self.base_experiment.base_id, self.version)
        return max(runs, key=lambda run: run.timestamp)

    @property
    def latest_run_results(self) -> dict[str, str]:
        """The keys of the final tables of the latest run, by name."""
        return self.latest_run.list_results_files()


class ExperimentRun(
    RunRepeats,
    RunLeaves,
    RunExports,
    RunControl,
    RunReader,
    RunKeys,
    BaseModel,
    Generic[TInput, TOutput],
):
    """One run of a version of an experiment.

    Attributes:
        versioned_experiment: The version.
        timestamp: When it was allocated, in UTC, by which its folder is named.
    """

    versioned_experiment: VersionedExperiment[TInput, TOutput]
    timestamp: datetime

    @property
    def runnable(self) -> Any:
        """The experiment, or the Hatchet task or workflow, or its name where it is not here."""
        runnable = self.versioned_experiment.base_experiment.runnable
        if isinstance(runnable, AbsentExperiment):
            return find_runnable(self.manifest().experiment_name)
        return runnable

    @property
    def storage_settings(self) -> ScytheStorageSettings:
        """The bucket of the run."""
        return self.versioned_experiment.base_experiment.storage_settings

    @property
    def dt_str(self) -> str:
        """The timestamp, as it names the folder of the run."""
        return self.timestamp.strftime(DatetimeFormat)

    @property
    def experiment_id(self) -> str:
        """The folder of the run below the bucket's prefix: `<name>/<version>/<datetime>`."""
        return f"{self.versioned_experiment.base_id}/{self.dt_str}"

    @property
    def layout(self) -> RunLayout:
        """The keys of the run."""
        return RunLayout(self.storage_settings.BUCKET_PREFIX, self.experiment_id)

    @property
    def leaf_task(self) -> LeafTask:
        """Requirements of the run's leaves on a worker."""
        runnable = self.runnable
        if not isinstance(runnable, AbsentExperiment):
            return LeafTask.of(runnable)
        found = self.manifest()
        is_alone = found.code is None and found.n_specs == 1
        return LeafTask(found.experiment_name, found.labels or {}, is_alone=is_alone)

    def another(self) -> Self:
        """Return a run of the same version that is allocated now."""
        return self.model_copy(update={"timestamp": _now()})

    def a_second_later(self) -> Self:
        """Return the run that would be allocated one second later."""
        return self.model_copy(update={"timestamp": self.timestamp + timedelta(seconds=1)})

    def store(self, s3_client: Any = None) -> Store:
        """Return the store of the run."""
        return self.versioned_experiment.base_experiment.store(s3_client)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)
