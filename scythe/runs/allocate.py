"""Start a run: check every spec, store all that the run needs, and only then start the root."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from scythe.errors import RegistrationError, SpecError, StorageError
from scythe.experiment import Experiment
from scythe.options import ExperimentOptions
from scythe.outcomes import RunCode
from scythe.processes.interrupts import HeldInterrupt, RunInterrupted
from scythe.provenance.identity import CodeIdentity, identify
from scythe.runs.allocation_options import AllocationOptions
from scythe.runs.explain import LeafTask
from scythe.runs.folder import FolderT, RunFolder, claim, discard, release
from scythe.runs.interruption import announce, interruptible
from scythe.runs.matching import NewLeaves, reuse_leaves
from scythe.runs.prepared import AllocationPlan, Prepared, mean_seconds
from scythe.runs.retry import RetryChoice, prepare_retry
from scythe.runs.reuse import FinishedRun
from scythe.scatter.models import ScatterGatherInput
from scythe.scatter.references import RunRef, start_root, workflow_reference
from scythe.scatter.tree import AUTO, LEAST_BATCHES, PROBES, RunPlan, plan_tree
from scythe.settings import check_limits, code_mismatch
from scythe.specs.source import is_single, iterate_specs
from scythe.specs.writer import CHUNK, Chunk, SpecChecker, SpecRules, SpecsWriter
from scythe.storage.files import S3Url
from scythe.storage.layout import RunLayout
from scythe.storage.manifest import (
    ExperimentRunManifest,
    InputArtifactLocations,
    from_yaml,
    io_schema,
    to_yaml,
)
from scythe.storage.store import Store

logger = logging.getLogger(__name__)


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
        self._name: str = runnable.name
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
        with interruptible():
            return self._start(specs, run)

    def _start(self, specs: Any, run: FolderT) -> tuple[FolderT, RunRef[Any]]:
        single = is_single(specs)
        # What is wrong with the first specs is found before anything at all is written.
        source, first = self._first_specs(specs)
        checker = self._checker(run)
        chunk = _checked(checker, first)
        self._store.check()  # at once: nobody has to wait for a store that is not there
        claimed = claim(self._store, run)

        def prepare(folder: Path) -> Prepared:
            if claimed.experiment_id == run.experiment_id:
                return self._prepare(chunk, source, checker, folder)
            own = self._checker(claimed)
            return self._prepare(_checked(own, first), source, own, folder)

        return self._start_claimed(claimed, prepare, single=single)

    def dry_run(self, specs: Any, run: RunFolder, last: RunLayout | None) -> AllocationPlan:
        """Check all specs, and estimate what the run would take; nothing is stored or started.

        Args:
            specs: See `scythe.specs.source.iterate_specs`.
            run: The folder that it would have.
            last: A run that is over, by which its time is estimated.

        Raises:
            SpecError: There are none, or one is wrong.
        """
        source, first = self._first_specs(specs)
        checker = self._checker(run)
        with tempfile.TemporaryDirectory(prefix="scythe-specs-") as folder:
            prepared = self._prepare(_checked(checker, first), source, checker, Path(folder))
            options = getattr(self._runnable, "options", None)
            cpus = options.resources.cpus if isinstance(options, ExperimentOptions) else 1.0
            seconds = None if last is None else mean_seconds(self._store, last)
            return AllocationPlan.of(prepared, seconds, cpus)

    def _first_specs(self, specs: Any) -> tuple[Iterator[Any], list[Any]]:
        """Return an iterator of specs, and the first ones, which it does not yield any more."""
        check_limits()
        self._check_kind(single=is_single(specs))
        source = iterate_specs(specs, self._store, self._runnable.input_validator_type)
        return source, list(islice(source, CHUNK))

    def start_again(
        self, source: RunLayout, choice: RetryChoice, run: FolderT
    ) -> tuple[FolderT, RunRef[Any]]:
        """Start a run of some leaves of another run; it takes over the others.

        Args:
            source: The other run, which is over.
            choice: Which of its leaves run again.
            run: The folder.

        Raises:
            SpecError: There is nothing to run again.
            RunInterrupted: Somebody pressed Ctrl-C; the message says whether the run continues.
        """
        with interruptible(), tempfile.TemporaryDirectory(prefix="scythe-source-") as name:
            finished = FinishedRun(self._store, source, Path(name))
            is_chosen = choice.mask(finished)
            size = min(finished.manifest.batch_size, math.ceil(is_chosen.sum() / LEAST_BATCHES))
            kept = {"description": finished.manifest.description, "tags": finished.manifest.tags}
            self._options = replace(self._options, batch_size=size, **kept)
            self._code = CodeIdentity()
            self._run_code = finished.run_code
            self._name = finished.manifest.experiment_name
            self._plain = finished.is_plain
            claimed = claim(self._store, run)

            def prepare(folder: Path) -> Prepared:
                return prepare_retry(finished, is_chosen, claimed.layout, folder)

            return self._start_claimed(claimed, prepare)

    def _start_claimed(
        self, run: FolderT, prepare: Callable[[Path], Prepared], *, single: bool = False
    ) -> tuple[FolderT, RunRef[Any]]:
        """Store and start a run whose folder is claimed."""
        from scythe.engine.client import client

        try:
            with tempfile.TemporaryDirectory(prefix="scythe-specs-") as folder:
                prepared = prepare(Path(folder))
                plan = self._plan(prepared.n_to_run)
                logger.info(
                    "allocating %s: %s", run.experiment_id, plan.describe(prepared.n_to_run)
                )
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
    ) -> Prepared:
        """Check all specs and write them to a local file."""
        writer = SpecsWriter(folder)
        first = chunk.first
        writer.add(chunk.table)
        while (following := checker.chunk(islice(source, CHUNK))) is not None:
            writer.add(following.table)
        checker.warn_of_unknown_fields()
        output_type = getattr(self._runnable, "output_validator_type", None)
        io_spec = to_yaml(io_schema(self._runnable.input_validator_type, output_type))
        file = writer.finish()
        artifacts = checker.artifacts
        digests = artifacts.digests(self._store)
        new = NewLeaves(file, self._runnable, self._code.fingerprint, digests)
        known = self._options.reuse
        reuse = None if known is None else reuse_leaves(self._store, known, new, folder)
        return Prepared(first, file, writer.n_specs, io_spec, artifacts, digests, reuse)

    def _plan(self, n_specs: int) -> RunPlan:
        size = self._options.batch_size
        given = self._options.recursion_map
        if (size == AUTO and n_specs <= PROBES) or not n_specs:
            size = 1  # nothing would be left to put into batches
        return RunPlan(given or plan_tree(n_specs, size), size)

    def _store_run(
        self, run: RunFolder, prepared: Prepared, plan: RunPlan, *, single: bool
    ) -> ExperimentRunManifest:
        """Store input files, specs, schema and manifest, in this order."""
        layout = run.layout
        store = self._store
        prepared.artifacts.upload(store, logger.info)
        store.put_file(layout.specs, prepared.file)
        if prepared.reuse is not None:
            prepared.reuse.upload(store, layout)
        store.put_bytes(layout.io_spec, prepared.io_spec)
        uris = prepared.artifacts.uris(store)
        if uris:
            locations = InputArtifactLocations.model_validate({"files": uris})
            store.put_bytes(layout.input_digests, json.dumps(prepared.digests).encode())
            store.put_bytes(layout.input_artifacts, to_yaml(locations))
        if single and prepared.first is not None:
            document = prepared.first.model_dump(mode="json")
            store.put_bytes(layout.workflow_spec, to_yaml(document))
        manifest = ExperimentRunManifest(
            workflow_run_id=None,
            experiment_id=run.experiment_id,
            experiment_name=self._name,
            specs_uri=self._uri(layout.specs),
            io_spec=self._uri(layout.io_spec),
            input_artifacts=self._uri(layout.input_artifacts) if uris else prepared.input_artifacts,
            n_specs=prepared.n_specs,
            recursion_map=plan.tree.model_dump(exclude_none=True),
            batch_size=plan.batch_size,
            labels=self._labels(),
            code=None if self._plain else asdict(self._code),
            description=self._options.description,
            tags=list(self._options.tags),
            sources=[] if prepared.reuse is None else prepared.reuse.sources,
        )
        store.put_bytes(layout.manifest, to_yaml(manifest))
        return manifest

    def _make_tasks_known(self) -> None:
        from scythe.engine.client import is_hatchet_runnable
        from scythe.scatter.registration import (
            make_experiment_known,
            make_nodes_known,
            make_task_known,
        )

        make_nodes_known()
        if isinstance(self._runnable, Experiment):
            make_experiment_known(self._runnable)
        elif is_hatchet_runnable(self._runnable):
            make_task_known(self._runnable)  # else it is not here, and was known to start before

    def _start_at_once(
        self, run: RunFolder, prepared: Prepared, plan: RunPlan, manifest: ExperimentRunManifest
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
        announce(name, prepared.division)
        return reference

    def _start_root(self, run: RunFolder, prepared: Prepared, plan: RunPlan) -> RunRef[Any]:
        metadata = {"experiment_id": run.experiment_id, "experiment_name": self._name}
        if self._plain and self._is_workflow():
            started = self._runnable.run(
                prepared.first,
                additional_metadata=metadata,
                priority=self._options.priority,
                wait_for_result=False,
            )
            return workflow_reference(started)
        return start_root(self._root_input(run, plan, prepared), metadata)

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

    def _root_input(self, run: RunFolder, plan: RunPlan, prepared: Prepared) -> ScatterGatherInput:
        from scythe.engine.client import without_namespace

        layout = run.layout
        reuse = prepared.reuse
        return ScatterGatherInput(
            experiment_id=run.experiment_id,
            task_name=without_namespace(self._name) if self._plain else self._name,
            specs_uri=self._uri(layout.specs if reuse is None else layout.specs_to_run),
            storage_settings=run.storage_settings,
            recursion_map=plan.tree,
            batch_size=plan.batch_size,
            n_specs=prepared.n_to_run,
            reused=None if reuse is None else reuse.counts,
            leaf_format="plain" if self._plain else "scythe",
            run_code=self._run_code,
            priority=self._options.priority,
            max_failures=self._options.most_failures(prepared.n_specs),
        )

    def _labels(self) -> dict[str, str] | None:
        """Return the labels that a worker must have; None where the code is not here."""
        if not isinstance(self._runnable, Experiment):
            return None
        return dict(LeafTask.of(self._runnable).labels)

    def _uri(self, key: str) -> S3Url:
        return S3Url(self._store.uri(key))

    def _is_workflow(self) -> bool:
        from scythe.engine.client import is_hatchet_workflow

        return is_hatchet_workflow(self._runnable)


def _checked(checker: SpecChecker, first: list[Any]) -> Chunk:
    chunk = checker.chunk(first)
    if chunk is None:
        raise SpecError("There are no specs to run: pass at least one.")
    return chunk
