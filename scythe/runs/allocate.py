"""Start a run: check every spec, store all that the run needs, and only then start the root."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from scythe.base import ExperimentInputSpec
from scythe.errors import RegistrationError, SpecError, StorageError
from scythe.experiment import Experiment
from scythe.outcomes import RunCode
from scythe.processes.interrupts import HeldInterrupt, RunInterrupted
from scythe.provenance.identity import CodeIdentity, identify
from scythe.runs.folder import FolderT, RunFolder, claim, discard, release
from scythe.scatter.models import ScatterGatherInput
from scythe.scatter.references import RunRef, start_root, workflow_reference
from scythe.scatter.tree import AUTO, PROBES, RecursionMap, RunPlan, plan_tree
from scythe.settings import check_limits, code_mismatch
from scythe.specs.source import is_single, iterate_specs
from scythe.specs.writer import CHUNK, Chunk, SpecChecker, SpecRules, SpecsWriter
from scythe.storage.artifacts import InputArtifacts
from scythe.storage.files import S3Url
from scythe.storage.manifest import (
    ExperimentRunManifest,
    InputArtifactLocations,
    from_yaml,
    io_schema,
    to_yaml,
)
from scythe.storage.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """All specs of a run, checked and written to a local file."""

    first: ExperimentInputSpec
    file: Path
    n_specs: int
    artifacts: InputArtifacts


@dataclass(frozen=True, slots=True)
class AllocationOptions:
    """The arguments of `allocate`, which describes them."""

    overwrite_sort_index: bool = True
    overwrite_experiment_id: bool = True
    recursion_map: RecursionMap | None = None
    batch_size: int = 1
    strict: bool = False


class Allocation:
    """Starts one run of an experiment.

    Args:
        runnable: The experiment, or the Hatchet task or workflow.
        store: Its bucket.
        options: What the caller asks for.
    """

    def __init__(self, runnable: Any, store: Store, options: AllocationOptions) -> None:
        self._runnable = runnable
        self._store = store
        self._options = options
        self._plain = not isinstance(runnable, Experiment)
        self._code = CodeIdentity()
        self._run_code = None
        if isinstance(runnable, Experiment):
            self._code = identify(runnable.fn)  # anew: its modules may have been reloaded
            schema = runnable.input_schema
            self._run_code = RunCode(self._code.fingerprint, schema, code_mismatch())

    def start(self, specs: Any, run: FolderT) -> tuple[FolderT, RunRef[Any]]:
        """Store and start a run, in the folder given or that of one of the next seconds.

        Args:
            specs: See `scythe.specs.source.iterate_specs`.
            run: The folder.

        Raises:
            SpecError: There are none, or one is wrong. Nothing was uploaded or started.
            RegistrationError: The runnable takes one spec at a time.
            SettingsError: A limit in the environment makes no sense.
            RunInterrupted: Somebody pressed Ctrl-C; the message says whether the run continues.
        """
        try:
            return self._start(specs, run)
        except RunInterrupted:
            raise
        except KeyboardInterrupt:
            raise RunInterrupted("allocate was interrupted: nothing was started.") from None

    def _start(self, specs: Any, run: FolderT) -> tuple[FolderT, RunRef[Any]]:
        from scythe.engine.client import client

        check_limits()
        single = is_single(specs)
        self._check_kind(single=single)
        source = iterate_specs(specs, self._store, self._runnable.input_validator_type)
        # What is wrong with the first specs is found before anything at all is written.
        first = list(islice(source, CHUNK))
        checker = self._checker(run)
        chunk = checker.chunk(first)
        if chunk is None:
            raise SpecError("There are no specs to run: pass at least one.")
        self._store.check()  # at once: nobody has to wait for a store that is not there
        claimed = claim(self._store, run)
        try:
            if claimed.experiment_id != run.experiment_id:
                run = claimed
                checker = self._checker(claimed)
                chunk = checker.chunk(first) or chunk
            del first
            with tempfile.TemporaryDirectory(prefix="scythe-specs-") as folder:
                prepared = self._prepare(chunk, source, checker, Path(folder))
                plan = self._plan(prepared.n_specs)
                logger.info("allocating %s: %s", run.experiment_id, plan.describe(prepared.n_specs))
                client()  # whose import takes seconds: the start is to follow the manifest at once
                manifest = self._store_run(run, prepared, plan, single=single)
        except BaseException:
            discard(self._store, run)
            raise
        try:
            self._make_tasks_known()
        except KeyboardInterrupt:
            discard(self._store, run)
            raise
        return run, self._start_at_once(run, prepared, plan, manifest)

    def _check_kind(self, *, single: bool) -> None:
        if self._plain and not single and self._is_workflow():
            raise RegistrationError(
                "Workflows do not yet support batching: "
                f"{self._runnable.name} is a Hatchet workflow, so allocate one spec at a time."
            )

    def _checker(self, run: RunFolder) -> SpecChecker:
        rules = SpecRules(
            cls=self._runnable.input_validator_type,
            plain=self._plain,
            overwrite_sort_index=self._options.overwrite_sort_index,
            overwrite_experiment_id=self._options.overwrite_experiment_id,
            strict=self._options.strict,
        )
        return SpecChecker(rules, run.layout, self._store)

    def _prepare(
        self, chunk: Chunk, source: Iterator[Any], checker: SpecChecker, folder: Path
    ) -> _Prepared:
        """Check all specs and write them to a local file."""
        writer = SpecsWriter(folder)
        first = chunk.first
        writer.add(chunk.table)
        while (following := checker.chunk(islice(source, CHUNK))) is not None:
            writer.add(following.table)
        checker.warn_of_unknown_fields()
        return _Prepared(first, writer.finish(), writer.n_specs, checker.artifacts)

    def _plan(self, n_specs: int) -> RunPlan:
        size = self._options.batch_size
        given = self._options.recursion_map
        if size == AUTO and n_specs <= PROBES:
            size = 1  # nothing would be left to put into batches
        return RunPlan(given or plan_tree(n_specs, size), size)

    def _store_run(
        self, run: RunFolder, prepared: _Prepared, plan: RunPlan, *, single: bool
    ) -> ExperimentRunManifest:
        """Store input files, specs, schema and manifest, in this order."""
        layout = run.layout
        store = self._store
        prepared.artifacts.upload(store, logger.info)
        store.put_file(layout.specs, prepared.file)
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
            n_specs=prepared.n_specs,
            recursion_map=plan.tree.model_dump(exclude_none=True),
            batch_size=plan.batch_size,
            code=None if self._plain else asdict(self._code),
        )
        store.put_bytes(layout.manifest, to_yaml(manifest))
        return manifest

    def _make_tasks_known(self) -> None:
        from scythe.scatter.registration import (
            make_experiment_known,
            make_nodes_known,
            make_task_known,
        )

        make_nodes_known()
        (make_task_known if self._plain else make_experiment_known)(self._runnable)

    def _start_at_once(
        self, run: RunFolder, prepared: _Prepared, plan: RunPlan, manifest: ExperimentRunManifest
    ) -> RunRef[Any]:
        """Start the root; somebody who presses Ctrl-C meanwhile is told what became of the run."""
        name = run.experiment_id
        try:
            with HeldInterrupt() as interrupt:
                reference = self._start_root(run, prepared, plan)
                self._record_start(run, manifest, reference)
        except KeyboardInterrupt:
            raise RunInterrupted(
                f"allocate was interrupted while it started {name}: run.status() tells whether the "
                "run continues."
            ) from None
        if interrupt.is_held:
            raise RunInterrupted(f"The run continues: {name}. Cancel it with run.cancel().")
        return reference

    def _start_root(self, run: RunFolder, prepared: _Prepared, plan: RunPlan) -> RunRef[Any]:
        metadata = {"experiment_id": run.experiment_id, "experiment_name": self._runnable.name}
        if self._plain and self._is_workflow():
            started = self._runnable.run(
                prepared.first, additional_metadata=metadata, wait_for_result=False
            )
            return workflow_reference(started)
        return start_root(self._root_input(run, plan, prepared.n_specs), metadata)

    def _record_start(
        self, run: RunFolder, manifest: ExperimentRunManifest, reference: RunRef[Any]
    ) -> None:
        """Add Hatchet's id of the run to the manifest."""
        try:
            stored = self._store.find_bytes(run.layout.manifest)  # the run may be over by now
            latest = ExperimentRunManifest.model_validate(from_yaml(stored)) if stored else manifest
            started = latest.model_copy(update={"workflow_run_id": reference.workflow_run_id})
            self._store.put_bytes(run.layout.manifest, to_yaml(started))
            release(self._store, run)
        except StorageError as error:  # the run has all that it needs
            logger.warning("The id of the run %s was not recorded: %s", run.experiment_id, error)
        logger.info("started %s as %s", run.experiment_id, reference.workflow_run_id)

    def _root_input(self, run: RunFolder, plan: RunPlan, n_specs: int) -> ScatterGatherInput:
        from scythe.engine.client import task_name_of

        return ScatterGatherInput(
            experiment_id=run.experiment_id,
            task_name=task_name_of(self._runnable) if self._plain else self._runnable.name,
            specs_uri=self._uri(run.layout.specs),
            storage_settings=run.storage_settings,
            recursion_map=plan.tree,
            batch_size=plan.batch_size,
            n_specs=n_specs,
            leaf_format="plain" if self._plain else "scythe",
            run_code=self._run_code,
        )

    def _uri(self, key: str) -> S3Url:
        return S3Url(self._store.uri(key))

    def _is_workflow(self) -> bool:
        from scythe.engine.client import is_hatchet_workflow

        return is_hatchet_workflow(self._runnable)
