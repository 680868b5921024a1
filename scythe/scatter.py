"""One scatter node: split the specs further, or run leaves; then gather."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from scythe.errors import ScytheError
from scythe.files import split_s3_uri
from scythe.gather import LeafSlice
from scythe.layout import RunLayout
from scythe.messages import (
    CANCELLED,
    SENTINEL,
    LeafInput,
    LeafRecord,
    decode_batch,
    decode_failure,
    decode_result,
)
from scythe.node_models import NODE_TASK, ScatterGatherInput, ScatterGatherResult
from scythe.node_output import NodeFailure, write_base_node, write_inner_node
from scythe.outcomes import FailureKind, LeafFailure
from scythe.plain_tasks import plain_record, plain_spec
from scythe.progress import NodeProgress
from scythe.settings import store_config
from scythe.specs_file import SPEC_COLUMN, index_of, read_specs, sort_indices
from scythe.store import Store, open_store
from scythe.tasks import NodeRun, PlainInput

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

# A spec that is larger than this is read from the stored specs by the leaf itself.
_SPEC_BYTES = 200_000
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="scythe-node")


async def run_node(payload: ScatterGatherInput, run: NodeRun) -> ScatterGatherResult:
    """Run one node of the tree to its end.

    Safe to run again after its worker died: the children are found again by their keys, and what
    it writes has the same names.
    """
    node = _Node(payload, run)
    specs = await node.in_thread(node.load)
    progress = NodeProgress(node.layout, node.store, run, payload, node.rows)
    try:
        async with progress:
            if payload.recursion_map.is_base_case(len(node.rows)):
                return await node.run_leaves(specs, progress)
            return await node.run_nodes(specs, progress)
    except asyncio.CancelledError:
        if payload.recursion_map.is_root and await run.is_cancelled():
            await run.cancel_tree(payload.experiment_id)
        raise


class _Node:
    """What a node works with."""

    def __init__(self, payload: ScatterGatherInput, run: NodeRun) -> None:
        self.payload, self.run = payload, run
        self.config = store_config(payload.storage_settings)
        self.store: Store = open_store(self.config)
        self.layout = RunLayout(self.config.prefix, payload.experiment_id)
        self.root_id = payload.root_workflow_run_id or run.workflow_run_id
        self.rows: range = range(0)

    async def in_thread(self, function: Any, *args: Any) -> Any:
        """Call a function that blocks, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(_threads, function, *args)

    def load(self) -> pa.Table:
        """Read the specs of this node."""
        import pyarrow as pa

        _, key = split_s3_uri(str(self.payload.specs_uri))
        specs = read_specs(self.config, key)
        self.rows = self.payload.recursion_map.rows(specs.num_rows)
        return specs.take(pa.array(list(self.rows), pa.int64()))

    async def run_leaves(self, specs: pa.Table, progress: NodeProgress) -> ScatterGatherResult:
        """Run every spec of this node as a leaf, and write the node's tables."""
        queued = time.time()
        inputs = await self.in_thread(self._leaf_inputs, specs)
        batched = self.payload.batch_size > 1
        keys = [f"leaf-{rows[0]}" for rows in (self._batches() if batched else _single(self.rows))]
        metadata = {
            "experiment_id": self.payload.experiment_id,
            "experiment_name": self.payload.task_name,
        }
        results: list[Any] = []
        if inputs:
            results = await self.run.run_children(self.payload.task_name, inputs, keys, metadata)
        records = await self.in_thread(self._records, results)
        leaves = LeafSlice(self.rows, index_of(specs), records, queued, self.root_id)
        result = await self.in_thread(write_base_node, self._output(), leaves)
        await progress.finish(result)
        return result

    async def run_nodes(self, specs: pa.Table, progress: NodeProgress) -> ScatterGatherResult:
        """Split the specs of this node over nodes below it, and merge their tables."""
        del specs
        tree = self.payload.recursion_map
        maps = [tree.child(offset) for offset in range(min(tree.factor, len(self.rows)))]
        inputs = [
            self.payload.model_copy(
                update={"recursion_map": child, "root_workflow_run_id": self.root_id}
            )
            for child in maps
        ]
        metadata = {
            "experiment_id": self.payload.experiment_id,
            "experiment_name": self.payload.task_name,
            "level": tree.depth + 1,
        }
        keys = [f"node-{child.node}" for child in maps]
        outputs = await self.run.run_children(NODE_TASK, inputs, keys, metadata)
        children = [
            _node_result(child, output) for child, output in zip(inputs, outputs, strict=True)
        ]
        result = await self.in_thread(write_inner_node, self._output(), children)
        await progress.finish(result)
        return result

    def _output(self) -> Any:
        from scythe.node_output import NodeOutput

        return NodeOutput(self.store, self.config, self.layout, self.payload, self.root_id)

    def _leaf_inputs(self, specs: pa.Table) -> list[BaseModel]:
        texts: list[str] = specs.column(SPEC_COLUMN).to_pylist()
        order = sort_indices(specs)
        if self.payload.leaf_format == "plain":
            return [
                PlainInput.model_validate(
                    plain_spec(text, self.root_id, self.payload.storage_settings)
                )
                for text in texts
            ]
        if self.payload.batch_size > 1:
            return [self._batch_input(rows) for rows in self._batches()]
        return [
            LeafInput(
                spec=text if len(text) <= _SPEC_BYTES else "",
                spec_row=None if len(text) <= _SPEC_BYTES else row,
                experiment_id=self.payload.experiment_id,
                sort_index=number,
                root_workflow_run_id=self.root_id,
                storage_settings=self.payload.storage_settings,
            )
            for text, row, number in zip(texts, self.rows, order, strict=True)
        ]

    def _records(self, results: Sequence[dict[str, Any] | BaseException]) -> list[LeafRecord]:
        if self.payload.batch_size == 1:
            return [self._record(result) for result in results]
        batches = zip(self._batches(), results, strict=True)
        return [record for rows, result in batches for record in self._batch_records(rows, result)]

    def _batches(self) -> list[range]:
        size = self.payload.batch_size
        return [self.rows[first : first + size] for first in range(0, len(self.rows), size)]

    def _batch_input(self, rows: range) -> LeafInput:
        return LeafInput(
            rows=(rows.start, rows.stop, rows.step),
            experiment_id=self.payload.experiment_id,
            root_workflow_run_id=self.root_id,
            storage_settings=self.payload.storage_settings,
        )

    def _batch_records(
        self, rows: range, result: dict[str, Any] | BaseException
    ) -> list[LeafRecord]:
        if not isinstance(result, dict) or result.get(SENTINEL) != "batch":
            return [self._record(result)] * len(rows)
        text = result.get("records") or self.store.get_bytes(result["key"]).decode()
        return decode_batch(text)

    def _record(self, result: dict[str, Any] | BaseException) -> LeafRecord:
        if isinstance(result, BaseException):
            return decode_failure(_error_text(result))
        if result.get(SENTINEL) == "done":
            return decode_result(result)
        if self.payload.leaf_format == "plain" and result:
            return _plain_record(result)
        return LeafRecord(CANCELLED, 0, None)


def _plain_record(output: dict[str, Any]) -> LeafRecord:
    """Read the output of a task of the user's; one that cannot be read is that leaf's failure."""
    try:
        return plain_record(output)
    except (ScytheError, ValueError, TypeError) as error:
        message = f"the task's output is not that of an experiment: {error}"
        failure = LeafFailure(FailureKind.APPLICATION, type(error).__name__, message[:2000])
        return LeafRecord(failure, 1, None)


def _single(rows: range) -> list[range]:
    return [rows[number : number + 1] for number in range(len(rows))]


def _error_text(error: BaseException) -> str:
    inner: Sequence[Any] = getattr(error, "exceptions", ()) or (error,)
    return "\n".join(str(item) for item in inner)


def _node_result(
    child: ScatterGatherInput, output: dict[str, Any] | BaseException
) -> ScatterGatherResult | NodeFailure:
    with suppress(ValueError):
        if isinstance(output, dict) and "uris" in output:
            return ScatterGatherResult.model_validate(output)
    reason = _error_text(output) if isinstance(output, BaseException) else "Hatchet cancelled it"
    logger.error("node %s failed: %s", child.recursion_map.node, reason)
    return NodeFailure(child, reason)
