"""Start a run: check every spec, store all that the run needs, and only then start the root."""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from scythe.artifacts import InputArtifacts
from scythe.base import ExperimentInputSpec
from scythe.codec import describe_validation_error, encode_spec
from scythe.errors import ExperimentSpecsMismatchError, RegistrationError, SpecError, StorageError
from scythe.experiment import Experiment
from scythe.files import S3Url
from scythe.layout import RunLayout
from scythe.manifest import (
    ExperimentRunManifest,
    InputArtifactLocations,
    io_schema,
    to_yaml,
)
from scythe.references import RunRef, start_root, workflow_reference
from scythe.scatter_gather import RecursionMap, ScatterGatherInput
from scythe.semver import SemVer, VersioningStrategy
from scythe.specs_file import specs_table
from scythe.store import Store
from scythe.tree import plan_tree

if TYPE_CHECKING:
    from scythe.experiments import BaseExperiment, ExperimentRun

logger = logging.getLogger(__name__)

_CLAIM_TRIES = 60


@dataclass(frozen=True, slots=True)
class _Prepared:
    """All specs of a run, checked and written as text, in sort order."""

    specs: list[ExperimentInputSpec]
    texts: list[str]
    artifacts: InputArtifacts


class Allocation:
    """Starts one run of an experiment.

    Args:
        experiment: The experiment.
        store: Its bucket.
    """

    def __init__(self, experiment: BaseExperiment[Any, Any], store: Store) -> None:
        self._experiment, self._store = experiment, store
        self._runnable = experiment.runnable
        self._plain = not isinstance(self._runnable, Experiment)

    def start(
        self,
        specs: Any,
        version: SemVer | VersioningStrategy,
        *,
        overwrite_sort_index: bool,
        overwrite_experiment_id: bool,
        recursion_map: RecursionMap | None,
    ) -> tuple[ExperimentRun[Any, Any], RunRef[Any]]:
        """Check, store and start; see `BaseExperiment.allocate`."""
        single = isinstance(specs, (BaseModel, Mapping))
        given = cast(list[Any], [specs] if single else list(cast(Iterable[Any], specs)))
        self._check_kind(given, single=single)
        given = [self._as_spec(index, spec) for index, spec in enumerate(given)]
        resolved = self._experiment.resolve_next_version(version, self._store.client)
        run = self._new_run(resolved)
        while True:
            prepared = self._prepare(
                given,
                run.layout,
                overwrite_sort_index=overwrite_sort_index,
                overwrite_experiment_id=overwrite_experiment_id,
            )
            claimed = self._claim(run)
            if claimed.timestamp == run.timestamp:
                break
            run = claimed
        logger.info("allocating %d spec(s) as %s", len(given), run.experiment_id)
        tree = recursion_map or plan_tree(len(given))
        manifest = self._store_run(run, prepared, tree, single=single)
        return run, self._start_root(run, prepared, tree, manifest)

    def _check_kind(self, specs: list[Any], *, single: bool) -> None:
        if not specs:
            raise SpecError("There are no specs to run: pass at least one.")
        if self._plain and not single:
            from scythe.engine import is_hatchet_workflow

            if is_hatchet_workflow(self._runnable):
                raise RegistrationError(
                    "Workflows do not yet support batching: "
                    f"{self._runnable.name} is a Hatchet workflow, so allocate one spec at a time."
                )

    def _as_spec(self, index: int, spec: Any) -> ExperimentInputSpec:
        expected = self._runnable.input_validator_type
        if isinstance(spec, Mapping):
            values = {"experiment_id": "placeholder", "sort_index": index, **spec}
            try:
                return expected.model_validate(values)
            except ValidationError as error:
                raise SpecError(f"Spec {index}: {describe_validation_error(error)}.") from error
        if not isinstance(spec, expected):
            raise ExperimentSpecsMismatchError(expected, type(spec), index)
        return cast(ExperimentInputSpec, spec)

    def _new_run(self, version: SemVer) -> ExperimentRun[Any, Any]:
        from scythe.experiments import ExperimentRun, VersionedExperiment

        now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        versioned = VersionedExperiment(base_experiment=self._experiment, version=version)
        return ExperimentRun(versioned_experiment=versioned, timestamp=now)

    def _prepare(
        self,
        given: list[ExperimentInputSpec],
        layout: RunLayout,
        *,
        overwrite_sort_index: bool,
        overwrite_experiment_id: bool,
    ) -> _Prepared:
        artifacts = InputArtifacts(layout)
        rows: list[tuple[ExperimentInputSpec, str]] = []
        for index, spec in enumerate(given):
            update: dict[str, Any] = {
                name: S3Url(self._store.uri(artifacts.add(name, path, index)))
                for name, path in spec.local_artifact_file_paths.items()
            }
            if overwrite_sort_index:
                update["sort_index"] = index
            if overwrite_experiment_id:
                update["experiment_id"] = layout.experiment_id
            copy = spec.model_copy(update=update)
            rows.append((copy, self._encode(index, copy)))
        rows.sort(key=lambda row: row[0].sort_index)
        return _Prepared([spec for spec, _ in rows], [text for _, text in rows], artifacts)

    def _encode(self, index: int, spec: ExperimentInputSpec) -> str:
        try:
            text = encode_spec(spec)
            return spec.model_dump_json() if self._plain else text
        except ValidationError as error:
            reason = describe_validation_error(error)
        except SpecError as error:
            reason = str(error).rstrip(".")
        raise SpecError(f"Spec {index}: {reason}. Nothing was uploaded or started.")

    def _claim(self, run: ExperimentRun[Any, Any]) -> ExperimentRun[Any, Any]:
        """Take the run's folder for this allocation, or that of a later second.

        Whoever sees anything but its own claim in the folder goes on to the next second: of two
        that claim at one time at most one sees itself alone, as each writes before it looks.
        """
        for _ in range(_CLAIM_TRIES):
            layout = run.layout
            claim = f"{layout.claims}{uuid.uuid4()}"
            if not any(True for _ in self._store.list_keys(layout.prefix)):
                self._store.put_bytes(claim, b"")
                if list(self._store.list_keys(layout.prefix)) == [claim]:
                    return run
                self._store.delete(claim)
            run = run.model_copy(update={"timestamp": run.timestamp + timedelta(seconds=1)})
        raise StorageError(
            f"No free folder for a run below {run.versioned_experiment.prefix} within "
            f"{_CLAIM_TRIES} s: allocate again in a minute."
        )

    def _store_run(
        self, run: ExperimentRun[Any, Any], prepared: _Prepared, tree: RecursionMap, *, single: bool
    ) -> ExperimentRunManifest:
        """Store input files, specs, schema and manifest, in this order."""
        import pyarrow.parquet as pq

        layout, store = run.layout, self._store
        prepared.artifacts.upload(store, logger.info)
        table = specs_table([spec.index_data() for spec in prepared.specs], prepared.texts)
        with tempfile.TemporaryDirectory(prefix="scythe-specs-") as folder:
            file = Path(folder) / "specs.pq"
            pq.write_table(table, file, compression="zstd", row_group_size=100_000)
            store.put_file(layout.specs, file)
        output_type = getattr(self._runnable, "output_validator_type", None)
        schema = io_schema(self._runnable.input_validator_type, output_type)
        store.put_bytes(layout.io_spec, to_yaml(schema))
        uris = prepared.artifacts.uris(store)
        if uris:
            locations = InputArtifactLocations.model_validate({"files": uris})
            store.put_bytes(layout.input_artifacts, to_yaml(locations))
        if single:
            document = prepared.specs[0].model_dump(mode="json")
            store.put_bytes(layout.workflow_spec, to_yaml(document))
        manifest = ExperimentRunManifest(
            workflow_run_id=None,
            experiment_id=run.experiment_id,
            experiment_name=self._runnable.name,
            specs_uri=run.as_uri(layout.specs),
            io_spec=run.as_uri(layout.io_spec),
            input_artifacts=run.as_uri(layout.input_artifacts) if uris else None,
            n_specs=len(prepared.specs),
            recursion_map=tree.model_dump(exclude_none=True),
        )
        store.put_bytes(layout.manifest, to_yaml(manifest))
        return manifest

    def _start_root(
        self,
        run: ExperimentRun[Any, Any],
        prepared: _Prepared,
        tree: RecursionMap,
        manifest: ExperimentRunManifest,
    ) -> RunRef[Any]:
        """Start the root in Hatchet, then add its id to the manifest."""
        metadata = {"experiment_id": run.experiment_id, "experiment_name": self._runnable.name}
        reference: RunRef[Any]
        if self._plain and self._is_workflow():
            started = self._runnable.run(
                prepared.specs[0], additional_metadata=metadata, wait_for_result=False
            )
            reference = workflow_reference(started)
        else:
            reference = start_root(self._root_input(run, tree), metadata)
        layout = run.layout
        started_manifest = manifest.model_copy(
            update={"workflow_run_id": reference.workflow_run_id}
        )
        self._store.put_bytes(layout.manifest, to_yaml(started_manifest))
        for claim in list(self._store.list_keys(layout.claims)):
            self._store.delete(claim)
        logger.info("started %s as %s", run.experiment_id, reference.workflow_run_id)
        return reference

    def _root_input(self, run: ExperimentRun[Any, Any], tree: RecursionMap) -> ScatterGatherInput:
        from scythe.engine import task_name_of

        return ScatterGatherInput(
            experiment_id=run.experiment_id,
            task_name=task_name_of(self._runnable) if self._plain else self._runnable.name,
            specs_uri=run.as_uri(run.layout.specs),
            storage_settings=run.storage_settings,
            recursion_map=tree,
            leaf_format="plain" if self._plain else "scythe",
        )

    def _is_workflow(self) -> bool:
        from scythe.engine import is_hatchet_workflow

        return is_hatchet_workflow(self._runnable)
