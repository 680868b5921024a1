"""Hand the leaves of an experiment from Hatchet to the executor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from scythe.errors import ExecutorError
from scythe.executor import Executor
from scythe.experiment import Experiment
from scythe.labels import required_labels
from scythe.layout import RunLayout
from scythe.locate import code_ref
from scythe.messages import (
    SENTINEL,
    LeafInput,
    LeafRecord,
    encode_batch,
    encode_failure,
    encode_result,
)
from scythe.outcomes import CodeRef, LeafCall
from scythe.settings import store_config
from scythe.specs_file import read_spec_texts
from scythe.store import open_store
from scythe.tasks import TaskRun, leaf_error

_INLINE_CHARS = 1_000_000  # of a batch's outcomes; the engine takes messages of 4 MiB


class LeafHandler:
    """Hands the leaves of one experiment to the executor.

    Args:
        experiment: The experiment.
        executor: Where its leaves run.
        code: How the process that runs a leaf finds the experiment.
    """

    def __init__(
        self, experiment: Experiment[Any, Any], executor: Executor, code: CodeRef | None = None
    ) -> None:
        self._experiment, self._executor = experiment, executor
        self._code = code or code_ref(experiment)
        self._labels = required_labels(experiment.options.desired_worker_labels)

    async def __call__(self, payload: LeafInput, run: TaskRun) -> dict[str, Any]:
        """Run one try of one leaf, or a batch; the outcome goes back through Hatchet."""
        if payload.rows is not None:
            return await self._run_batch(payload, range(*payload.rows), run)
        row = payload.spec_row
        specs_key = RunLayout(store_config(payload.storage_settings).prefix, payload.experiment_id)
        call = self._call(
            payload,
            spec=payload.spec,
            spec_row=None if row is None else (specs_key.specs, row),
            sort_index=payload.sort_index,
            workflow_run_id=run.workflow_run_id,
            attempt=run.attempt,
        )
        try:
            result = await self._executor.run(call)
        except ExecutorError as error:
            run.log(error.failure.log)
            message = encode_failure(error.failure, run.attempt, run.workflow_run_id)
            raise leaf_error(message, final=error.failure.kind.is_final) from None
        run.log(result.log)
        return encode_result(result, run.attempt, run.workflow_run_id)

    async def _run_batch(self, payload: LeafInput, rows: range, run: TaskRun) -> dict[str, Any]:
        """Run leaves one after another. Each fails, is recorded and is tried again alone."""
        store = store_config(payload.storage_settings)
        layout = RunLayout(store.prefix, payload.experiment_id)
        specs = await asyncio.to_thread(read_spec_texts, store, layout.specs, rows)
        tries = self._experiment.options.retries + 1
        await run.extend(self._experiment.execution_timeout * len(rows) * tries)
        records: list[LeafRecord] = []
        for row, (text, sort_index) in zip(rows, specs, strict=True):
            # Files of leaves are named after this id, so each leaf of the batch has its own.
            leaf_run_id = f"{run.workflow_run_id}-{row}"
            calls = [
                self._call(
                    payload,
                    spec=text,
                    sort_index=sort_index,
                    workflow_run_id=leaf_run_id,
                    attempt=attempt + 1,
                )
                for attempt in range(tries)
            ]
            records.append(await self._run_tries(calls))
            if log := records[-1].outcome.log:
                run.log(f"Leaf {sort_index}:\n{log}")
        text = encode_batch(records)
        if len(text) <= _INLINE_CHARS:
            return {SENTINEL: "batch", "records": text}
        key = layout.batch_records(rows[0], run.workflow_run_id)
        await asyncio.to_thread(open_store(store).put_bytes, key, text.encode())
        return {SENTINEL: "batch", "key": key}

    async def _run_tries(self, calls: Sequence[LeafCall]) -> LeafRecord:
        """Run the tries of one leaf until one ends well, or none can help any more."""
        for call in calls:
            try:
                result = await self._executor.run(call)
            except ExecutorError as error:
                if call is calls[-1] or error.failure.kind.is_final:
                    return LeafRecord(error.failure, call.attempt, call.workflow_run_id)
            else:
                return LeafRecord(result, call.attempt, call.workflow_run_id)
        msg = "a leaf has at least one try"
        raise ValueError(msg)

    def _call(
        self, payload: LeafInput, *, sort_index: int, workflow_run_id: str, **values: Any
    ) -> LeafCall:
        return LeafCall(
            leaf_id=f"{sort_index:08d}-{workflow_run_id}",
            code=self._code,
            experiment_id=payload.experiment_id,
            store=store_config(payload.storage_settings),
            workflow_run_id=workflow_run_id,
            root_workflow_run_id=payload.root_workflow_run_id,
            resources=self._experiment.options.resources,
            labels=self._labels,
            timeout=self._experiment.execution_timeout.total_seconds(),
            schedule_timeout=self._experiment.schedule_timeout.total_seconds(),
            **values,
        )
