"""A scatter node: it divides its specs among child nodes or runs leaves, then gathers."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from scythe.engine.tasks import Child, NodeRun, PlainInput
from scythe.messages import LeafInput
from scythe.processes.waiting import to_the_end
from scythe.scatter.finish import end_in_bucket
from scythe.scatter.known_leaves import RunPlace
from scythe.scatter.leaf_outcomes import batch_of, error_text, record_of
from scythe.scatter.leaf_tasks import LeafTasks, MakeInputs
from scythe.scatter.models import NODE_TASK, ScatterGatherInput, ScatterGatherResult
from scythe.scatter.output import (
    LostBatch,
    NodeFailure,
    NodeOutput,
    write_base_node,
    write_batch_node,
    write_inner_node,
)
from scythe.scatter.progress import NodeProgress
from scythe.scatter.reused import add_reused
from scythe.scatter.stop import RunStopped, check_goes_on, ending_right
from scythe.scatter.threads import in_thread
from scythe.scatter.tree import AUTO, PROBES, RecursionMap, Rows, plan_batches, plan_tree
from scythe.scatter.user_tasks import plain_spec
from scythe.settings import store_config
from scythe.specs.file import count_specs, index_of, read_rows, sort_indices, spec_texts
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store, open_store
from scythe.tables.gather import LeafSlice

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

# Larger specs do not travel in the message: the leaf reads them from the stored specs.
_SPEC_BYTES = 200_000
_NodeBelow = tuple[ScatterGatherInput, Child]


class ScatterNode:
    """A running node of the tree.

    Args:
        payload: Its input.
        run: Its Hatchet run.
    """

    def __init__(self, payload: ScatterGatherInput, run: NodeRun) -> None:
        self.payload = payload
        self.hatchet = run
        self.config = store_config(payload.storage_settings)
        self.store: Store = open_store(self.config)
        self.layout = RunLayout(self.config.prefix, payload.experiment_id)
        self.root_id = payload.root_workflow_run_id or run.workflow_run_id
        self.n_specs = payload.n_specs or 0
        self.tasks = payload.tasks(self.n_specs)
        self.output = NodeOutput(self.store, self.config, self.layout, payload, self.root_id)
        self.place = RunPlace(self.store, self.config, self.layout, payload.specs_key, self.root_id)

    def load(self) -> None:
        """Determine the leaves of the node."""
        if self.payload.n_specs is None:
            self.n_specs = count_specs(self.config, self.payload.specs_key)
            self.tasks = self.payload.tasks(self.n_specs)
        self.progress = NodeProgress(
            self.layout, self.store, self.hatchet, self.payload, self.tasks
        )

    async def run(self) -> ScatterGatherResult:
        """Run all leaves of the node, here or in child nodes, and write its tables."""
        maps = self.payload.nodes_below(self.tasks)
        if self.payload.batch_size == AUTO:
            return await self._run_measured(maps)
        if maps:
            return await self._run_nodes(maps)
        return await (self._run_batches() if self.payload.batch_size > 1 else self._run_leaves())

    async def _run_leaves(self) -> ScatterGatherResult:
        """Run each spec of this node as one task."""
        queued = time.time()
        rows = self.tasks.single_rows()
        specs = await in_thread(read_rows, self.config, self.payload.specs_key, rows)
        inputs = dict(zip(rows, await in_thread(self._leaf_inputs, specs, rows), strict=True))
        tasks = self._leaf_tasks(lambda parts: [inputs[part.start] for part in parts])
        ends = await tasks.run([Rows(row, row + 1) for row in rows])
        records = [record_of(output) for _, output in ends]
        leaves = LeafSlice(rows, index_of(specs), records, queued, self.root_id)
        return await self._write(write_base_node, leaves)

    async def _run_batches(self) -> ScatterGatherResult:
        """Run the specs of this node in batches."""
        queued = time.time()
        ends = await self._leaf_tasks(self._batch_inputs).run(self.tasks.parts)
        batches = [
            batch_of(output) or LostBatch(part, record_of(output), queued) for part, output in ends
        ]
        return await self._write(write_batch_node, batches)

    def _leaf_tasks(self, make_inputs: MakeInputs) -> LeafTasks:
        return LeafTasks(
            self.hatchet,
            self.payload,
            self.store,
            self.layout,
            self.progress,
            make_inputs,
            self._metadata,
        )

    async def _run_nodes(self, maps: Sequence[RecursionMap]) -> ScatterGatherResult:
        """Divide the tasks of this node among child nodes, and merge their tables."""
        nodes = await self._start_nodes([{"recursion_map": child} for child in maps])
        return await self._write(write_inner_node, await self._results(nodes))

    async def _run_measured(self, maps: Sequence[RecursionMap]) -> ScatterGatherResult:
        """Run some leaves alone, and the others in batches whose size follows from their run time.

        The first half of the single leaves is measured; the second half keeps the slots busy until
        the batches start.
        """
        window = self.tasks.cut.rows
        depth = self.payload.recursion_map.depth + 1
        *first, last = maps
        alone = min(window.start + PROBES, window.stop)
        middle = (window.start + alone) // 2
        halves = [
            {
                "batch_size": 1,
                "window": part,
                "window_depth": depth,
                "recursion_map": child.model_copy(update={"max_depth": depth}),
            }
            for child, part in zip(first, [(window.start, middle), (middle, alone)], strict=True)
        ]
        nodes = await self._start_nodes(halves)
        (measured,) = await self._results(nodes[:1])
        if count := window.stop - alone:
            is_known = isinstance(measured, ScatterGatherResult)
            seconds = measured.seconds / max(1, measured.n_leaves) if is_known else math.inf
            size = plan_batches(count, seconds)
            plan = plan_tree(count, size)
            levels = {"factor": plan.factor, "max_depth": depth + plan.max_depth}
            rest: dict[str, Any] = {
                "batch_size": size,
                "tapers": True,
                "window": (alone, window.stop),
                "window_depth": depth,
                "recursion_map": last.model_copy(update=levels),
            }
            logger.info(
                "Leaves take %.4g s; running the other %d in batches of %d.", seconds, count, size
            )
            nodes += await self._start_nodes([rest])
        results = [measured, *await self._results(nodes[1:])]
        return await self._write(write_inner_node, results)

    async def _start_nodes(self, updates: Sequence[dict[str, Any]]) -> list[_NodeBelow]:
        """Start child nodes, each with this node's input and one of these updates."""
        common = {"root_workflow_run_id": self.root_id, "n_specs": self.n_specs}
        inputs = [self.payload.model_copy(update={**common, **update}) for update in updates]
        keys = [f"node-{child.recursion_map.node}" for child in inputs]
        metadata = {**self._metadata, "level": self.payload.recursion_map.depth + 1}
        await in_thread(check_goes_on, self.store, self.layout)
        runs = await self.hatchet.start_children(
            NODE_TASK, inputs, keys, metadata, priority=self.payload.priority
        )
        return list(zip(inputs, runs, strict=True))

    async def _results(
        self, nodes: Sequence[_NodeBelow]
    ) -> list[ScatterGatherResult | NodeFailure]:
        outputs = await self.hatchet.outputs([run for _, run in nodes])
        results = [
            _node_result(payload, output)
            for (payload, _), output in zip(nodes, outputs, strict=True)
        ]
        if any(isinstance(result, NodeFailure) for result in results):
            await in_thread(check_goes_on, self.store, self.layout)
        return results

    async def _write(self, write: Any, ends: Sequence[Any] | LeafSlice) -> ScatterGatherResult:
        """Write the tables of the node completely, even if this task is cancelled meanwhile."""
        await self.progress.stop()
        call = asyncio.ensure_future(in_thread(self._write_now, write, ends))
        return await to_the_end(call)

    def _write_now(self, write: Any, ends: Any) -> ScatterGatherResult:
        if not self.payload.recursion_map.is_root:
            result: ScatterGatherResult = write(self.output, ends)
            if not result.n_lost:  # the nodes and leaves below know more
                self.output.keep(result)
            return result
        with ending_right(self.store, self.layout, self.place.is_over) as is_ours:
            if not is_ours:
                raise RunStopped("another process has written the final tables")
            result = write(self.output, ends)
            if self.payload.reused is not None:
                result = add_reused(self.output, result, self.n_specs)
            self.place.write_codes(result.codes, result.code_mismatches)
            status = self.progress.status_of(result)
            end_in_bucket(self.place, status)
            if status.state == "failed":
                raise RunStopped(status.message)
            return result

    @property
    def _metadata(self) -> dict[str, Any]:
        """Return the metadata of all that this node starts."""
        return {
            "experiment_id": self.payload.experiment_id,
            "experiment_name": self.payload.task_name,
        }

    @property
    def _own_specs(self) -> str | None:
        """The key of the specs, where the leaves are not all of the run's."""
        return None if self.payload.reused is None else self.payload.specs_key

    def _batch_inputs(self, parts: Sequence[Rows]) -> list[BaseModel]:
        queued = time.time()
        return [
            LeafInput(
                rows=(part.start, part.stop),
                specs=self._own_specs,
                queued=queued,
                experiment_id=self.payload.experiment_id,
                root_workflow_run_id=self.root_id,
                storage_settings=self.payload.storage_settings,
                run_code=self.payload.run_code,
            )
            for part in parts
        ]

    def _leaf_inputs(self, specs: pa.Table, rows: range) -> list[BaseModel]:
        texts = list(spec_texts(specs))
        if self.payload.leaf_format == "plain":
            return [
                PlainInput.model_validate(
                    plain_spec(text, self.root_id, self.payload.storage_settings)
                )
                for text in texts
            ]
        return [
            LeafInput(
                spec=text if len(text) <= _SPEC_BYTES else "",
                spec_row=None if len(text) <= _SPEC_BYTES else row,
                specs=None if len(text) <= _SPEC_BYTES else self._own_specs,
                experiment_id=self.payload.experiment_id,
                sort_index=number,
                root_workflow_run_id=self.root_id,
                storage_settings=self.payload.storage_settings,
                run_code=self.payload.run_code,
            )
            for text, row, number in zip(texts, rows, sort_indices(specs), strict=True)
        ]


def _node_result(
    child: ScatterGatherInput, output: dict[str, Any] | BaseException
) -> ScatterGatherResult | NodeFailure:
    with suppress(ValueError):
        if isinstance(output, dict) and "uris" in output:
            return ScatterGatherResult.model_validate(output)
    reason = error_text(output) if isinstance(output, BaseException) else "Hatchet cancelled it"
    logger.error("node %s failed: %s", child.recursion_map.node, reason)
    return NodeFailure(child, reason)
