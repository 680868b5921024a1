"""Passes the leaves of an experiment from Hatchet to the executor."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from scythe.durations import NO_LIMIT
from scythe.engine.tasks import TaskRun, task_error
from scythe.errors import ExecutorError
from scythe.executor import Executor, LeafCancelled
from scythe.experiment import Experiment
from scythe.labels import required_labels
from scythe.locate import code_ref
from scythe.messages import LeafInput, encode_batch, encode_failure, encode_result, hand_back
from scythe.outcomes import Batch, BatchResult, CodeRef, LeafCall, LeafReply, RunCode, StoreConfig
from scythe.processes.waiting import to_the_end
from scythe.settings import ScytheStorageSettings, code_mismatch, store_config
from scythe.storage.layout import RunLayout
from scythe.storage.store import open_store
from scythe.worker_processes.batch_calls import cut_batch, run_whole_batch
from scythe.worker_processes.code_mismatch import CodeMismatch
from scythe.worker_processes.paused_runs import PausedRuns


class LeafHandler:
    """Passes the leaves of one experiment to the executor.

    Args:
        experiment: The experiment.
        executor: The executor that runs its leaves.
        code: The reference by which a leaf process finds the experiment.
        give_back: Returns leaves of runs whose code this worker does not have.
    """

    def __init__(
        self,
        experiment: Experiment[Any, Any],
        executor: Executor,
        code: CodeRef | None = None,
        give_back: CodeMismatch | None = None,
    ) -> None:
        self._experiment = experiment
        self._executor = executor
        self._give_back = give_back
        self._code = code or code_ref(experiment)
        self._labels = required_labels(experiment.options.desired_worker_labels)
        self._timeout = experiment.execution_timeout
        self._schedule_timeout = experiment.schedule_timeout.total_seconds()
        self._stores: dict[tuple[str, str] | None, StoreConfig] = {}
        code_mismatch()  # an invalid value fails here, when the worker starts
        self._run_codes: dict[RunCode, RunCode] = {}
        self._paused = PausedRuns()

    async def __call__(self, payload: LeafInput, run: TaskRun) -> dict[str, Any]:
        """Run one attempt of one leaf, or a batch, and return its outcome to Hatchet.

        A leaf of a paused run is handed back, unless an attempt of it has run.
        """
        if run.attempt == 1 and await self._is_paused(payload):
            return hand_back()
        try:
            result = await self._run(self._call(payload, run), run)
        except ExecutorError as error:
            if self._give_back is not None and error.failure.kind.is_mismatch:
                await self._give_back.wait(payload.experiment_id, self._experiment.name)
            run.log(error.failure.log)
            message = encode_failure(error.failure, run.attempt, run.workflow_run_id)
            raise task_error(message, final=error.failure.kind.is_final) from None
        run.log(result.log)
        if isinstance(result, BatchResult):
            return encode_batch(result)
        return encode_result(result, run.attempt, run.workflow_run_id)

    async def _is_paused(self, payload: LeafInput) -> bool:
        if payload.root_workflow_run_id is None:
            return False  # a leaf without a run
        return await self._paused.has(self._store(payload.storage_settings), payload.experiment_id)

    async def _run(self, call: LeafCall, run: TaskRun) -> LeafReply:
        if call.batch is None:
            return await self._executor.run(call)
        seconds = call.timeout * call.batch.n_leaves * call.batch.tries
        await run.extend(timedelta(seconds=min(seconds, NO_LIMIT.total_seconds())))
        try:
            return await run_whole_batch(self._executor, call, call.batch)
        except LeafCancelled as cancelled:
            # Hatchet drops the result of a cancelled task, so keep the journal in the bucket.
            keeping = asyncio.to_thread(_keep_cut_batch, call, cancelled.journal or b"")
            await to_the_end(asyncio.ensure_future(keeping))
            raise

    def _store(self, storage: ScytheStorageSettings | None) -> StoreConfig:
        """Return the store of a run. Cached, because reading the settings takes a millisecond."""
        key = (storage.BUCKET, storage.BUCKET_PREFIX) if storage is not None else None
        if key not in self._stores:
            self._stores[key] = store_config(storage)
        return self._stores[key]

    def _run_code(self, given: RunCode | None) -> RunCode | None:
        """Return the code of the run, with the stricter policy of run and worker."""
        if given is None:
            return None
        if given not in self._run_codes:
            on_mismatch = code_mismatch(given.on_mismatch)
            self._run_codes[given] = replace(given, on_mismatch=on_mismatch)
        return self._run_codes[given]

    def _call(self, payload: LeafInput, run: TaskRun) -> LeafCall:
        store = self._store(payload.storage_settings)
        call = LeafCall(
            leaf_id=f"{payload.sort_index:08d}-{run.workflow_run_id}",
            code=self._code,
            spec=payload.spec,
            experiment_id=payload.experiment_id,
            store=store,
            workflow_run_id=run.workflow_run_id,
            root_workflow_run_id=payload.root_workflow_run_id,
            resources=self._experiment.options.resources,
            labels=self._labels,
            timeout=self._timeout.total_seconds(),
            schedule_timeout=self._schedule_timeout,
            attempt=run.attempt,
            run_code=self._run_code(payload.run_code),
        )
        if payload.rows is None and payload.spec_row is None:
            return call
        specs = payload.specs or RunLayout(store.prefix, payload.experiment_id).specs
        if payload.rows is None:
            return replace(call, spec_row=(specs, payload.spec_row))
        tries = self._experiment.options.retries + 1
        return replace(call, batch=Batch(specs, payload.rows, tries, payload.queued))


def _keep_cut_batch(call: LeafCall, journal: bytes) -> None:
    key = RunLayout(call.store.prefix, call.experiment_id).batch_journal(call.workflow_run_id or "")
    open_store(call.store).put_bytes(key, cut_batch(journal))
