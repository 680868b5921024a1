"""Start a run: check every spec, store all that the run needs, and only then start the root."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from scythe.artifacts import InputArtifacts
from scythe.base import ExperimentInputSpec
from scythe.codec import describe_validation_error, encode_spec
from scythe.errors import ExperimentSpecsMismatchError, RegistrationError, SpecError
from scythe.experiment import Experiment
from scythe.files import S3Url
from scythe.layout import RunLayout, check_path
from scythe.manifest import (
    ExperimentRunManifest,
    InputArtifactLocations,
    io_schema,
    to_yaml,
)
from scythe.node_models import ScatterGatherInput
from scythe.references import RunRef, start_root, workflow_reference
from scythe.run_folder import FolderT, RunFolder, claim, release
from scythe.specs_file import specs_table
from scythe.store import Store
from scythe.tree import RecursionMap, RunPlan, plan_tree

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """One spec, the same as text, and its scalars."""

    spec: ExperimentInputSpec
    text: str
    index: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """All specs of a run, checked, in sort order: as a table, and the first one as it is."""

    first: ExperimentInputSpec
    table: pa.Table
    artifacts: InputArtifacts


@dataclass(frozen=True, slots=True)
class CheckedSpecs:
    """Specs of the right type.

    Attributes:
        specs: The specs, in the order given.
        single: Whether one spec was given, not a list.
    """

    specs: list[ExperimentInputSpec]
    single: bool


class Allocation:
    """Starts one run of an experiment.

    Args:
        runnable: The experiment, or the Hatchet task or workflow.
        store: Its bucket.
    """

    def __init__(self, runnable: Any, store: Store) -> None:
        self._runnable, self._store = runnable, store
        self._plain = not isinstance(runnable, Experiment)

    def check(self, specs: Any) -> CheckedSpecs:
        """Check that specs are of the type that the experiment takes.

        Raises:
            SpecError: There are none, or one is of another type, or does not validate.
            RegistrationError: The runnable takes one spec at a time.
        """
        single = isinstance(specs, (BaseModel, Mapping))
        one = single or not isinstance(specs, Iterable)
        given = cast("list[Any]", [specs] if one else list(cast("Iterable[Any]", specs)))
        self._check_kind(given, single=single)
        return CheckedSpecs([self._as_spec(i, spec) for i, spec in enumerate(given)], single)

    def start(
        self,
        specs: CheckedSpecs,
        run: FolderT,
        *,
        overwrite_sort_index: bool,
        overwrite_experiment_id: bool,
        recursion_map: RecursionMap | None,
        batch_size: int | None = None,
    ) -> tuple[FolderT, RunRef[Any]]:
        """Store and start a run, in the folder given or that of one of the next seconds."""

        def prepare(layout: RunLayout) -> _Prepared:
            return self._prepare(
                specs.specs,
                layout,
                overwrite_sort_index=overwrite_sort_index,
                overwrite_experiment_id=overwrite_experiment_id,
            )

        prepared = prepare(run.layout)  # before anything is written
        claimed = claim(self._store, run)
        if claimed.experiment_id != run.experiment_id:
            run, prepared = claimed, prepare(claimed.layout)
        logger.info("allocating %d spec(s) as %s", len(specs.specs), run.experiment_id)
        size = 1 if batch_size is None else batch_size
        plan = RunPlan(recursion_map or plan_tree(len(specs.specs), size), size)
        manifest = self._store_run(run, prepared, plan, single=specs.single)
        return run, self._start_root(run, prepared, plan, manifest)

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
        return cast("ExperimentInputSpec", spec)

    def _prepare(
        self,
        given: list[ExperimentInputSpec],
        layout: RunLayout,
        *,
        overwrite_sort_index: bool,
        overwrite_experiment_id: bool,
    ) -> _Prepared:
        artifacts = InputArtifacts(layout)
        rows: list[_Row] = []
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
            rows.append(self._row(index, copy))
        rows.sort(key=lambda row: row.spec.sort_index)
        table = specs_table([row.index for row in rows], [row.text for row in rows])
        return _Prepared(rows[0].spec, table, artifacts)

    def _row(self, number: int, spec: ExperimentInputSpec) -> _Row:
        try:
            check_path("experiment_id", spec.experiment_id)
            text = encode_spec(spec)
            if self._plain:
                text = spec.model_dump_json(by_alias=True, round_trip=True)
            return _Row(spec, text, spec.index_data())
        except ValidationError as error:
            reason = describe_validation_error(error)
        except SpecError as error:
            reason = str(error).rstrip(".")
        raise SpecError(f"Spec {number}: {reason}. Nothing was uploaded or started.")

    def _store_run(
        self, run: RunFolder, prepared: _Prepared, plan: RunPlan, *, single: bool
    ) -> ExperimentRunManifest:
        """Store input files, specs, schema and manifest, in this order."""
        import pyarrow.parquet as pq

        layout, store = run.layout, self._store
        prepared.artifacts.upload(store, logger.info)
        with tempfile.TemporaryDirectory(prefix="scythe-specs-") as folder:
            file = Path(folder) / "specs.pq"
            pq.write_table(prepared.table, file, compression="zstd", row_group_size=100_000)
            store.put_file(layout.specs, file)
        output_type = getattr(self._runnable, "output_validator_type", None)
        schema = io_schema(self._runnable.input_validator_type, output_type)
        store.put_bytes(layout.io_spec, to_yaml(schema))
        uris = prepared.artifacts.uris(store)
        if uris:
            locations = InputArtifactLocations.model_validate({"files": uris})
            store.put_bytes(layout.input_artifacts, to_yaml(locations))
        if single:
            document = prepared.first.model_dump(mode="json")
            store.put_bytes(layout.workflow_spec, to_yaml(document))
        manifest = ExperimentRunManifest(
            workflow_run_id=None,
            experiment_id=run.experiment_id,
            experiment_name=self._runnable.name,
            specs_uri=self._uri(layout.specs),
            io_spec=self._uri(layout.io_spec),
            input_artifacts=self._uri(layout.input_artifacts) if uris else None,
            n_specs=prepared.table.num_rows,
            recursion_map=plan.tree.model_dump(exclude_none=True),
            batch_size=plan.batch_size,
        )
        store.put_bytes(layout.manifest, to_yaml(manifest))
        return manifest

    def _start_root(
        self,
        run: RunFolder,
        prepared: _Prepared,
        plan: RunPlan,
        manifest: ExperimentRunManifest,
    ) -> RunRef[Any]:
        """Start the root in Hatchet, then add its id to the manifest."""
        from scythe.known_tasks import make_experiment_known, make_nodes_known, make_task_known

        metadata = {"experiment_id": run.experiment_id, "experiment_name": self._runnable.name}
        make_nodes_known()
        (make_task_known if self._plain else make_experiment_known)(self._runnable)
        reference: RunRef[Any]
        if self._plain and self._is_workflow():
            started = self._runnable.run(
                prepared.first, additional_metadata=metadata, wait_for_result=False
            )
            reference = workflow_reference(started)
        else:
            reference = start_root(self._root_input(run, plan), metadata)
        started_manifest = manifest.model_copy(
            update={"workflow_run_id": reference.workflow_run_id}
        )
        self._store.put_bytes(run.layout.manifest, to_yaml(started_manifest))
        release(self._store, run)
        logger.info("started %s as %s", run.experiment_id, reference.workflow_run_id)
        return reference

    def _root_input(self, run: RunFolder, plan: RunPlan) -> ScatterGatherInput:
        from scythe.engine import task_name_of

        return ScatterGatherInput(
            experiment_id=run.experiment_id,
            task_name=task_name_of(self._runnable) if self._plain else self._runnable.name,
            specs_uri=self._uri(run.layout.specs),
            storage_settings=run.storage_settings,
            recursion_map=plan.tree,
            batch_size=plan.batch_size,
            leaf_format="plain" if self._plain else "scythe",
        )

    def _uri(self, key: str) -> S3Url:
        return S3Url(self._store.uri(key))

    def _is_workflow(self) -> bool:
        from scythe.engine import is_hatchet_workflow

        return is_hatchet_workflow(self._runnable)
