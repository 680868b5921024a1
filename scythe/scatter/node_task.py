"""Runs a scatter node as a Hatchet task; the root also handles stops and failures of its run."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta

from scythe.durations import NO_LIMIT
from scythe.engine.tasks import NodeRun, task_error
from scythe.outcomes import FailureKind
from scythe.processes.waiting import to_the_end
from scythe.scatter.finish import finish_run
from scythe.scatter.models import ScatterGatherInput, ScatterGatherResult
from scythe.scatter.node import ScatterNode
from scythe.scatter.progress import too_many_failures
from scythe.scatter.stop import RunStopped, StopRequest, put_stop, read_stop
from scythe.scatter.threads import in_thread
from scythe.settings import TimeoutSettings
from scythe.storage.files import S3Url
from scythe.storage.store import wait_for_room

_PAUSE = 1.0  # seconds between two checks for a stop request
_LIMIT_VARIABLE = "SCYTHE_TIMEOUT_SCATTER_GATHER_EXECUTION"
logger = logging.getLogger(__name__)


async def run_node(payload: ScatterGatherInput, run: NodeRun) -> ScatterGatherResult:
    """Run one node of the tree.

    Safe to repeat after its worker died: it finds its children again by their keys, and writes
    under the same names.
    """
    wait_for_room()
    node = ScatterNode(payload, run)
    await in_thread(node.load)
    if payload.recursion_map.is_root:
        return await _Root(node).run()
    async with node.progress:
        try:
            result = await node.run()
        except RunStopped as stopped:
            raise task_error(str(stopped), final=True) from None
        await node.progress.finish(result)
        return result


class _Root:
    """The root of a run, which stops the run early on request or at its time limit."""

    def __init__(self, node: ScatterNode) -> None:
        self._node = node
        self._hatchet = node.hatchet
        self._place = node.place

    async def run(self) -> ScatterGatherResult:
        if await in_thread(self._place.is_over):
            return await self._ended_before()
        try:
            return await self._run()
        except asyncio.CancelledError:
            if await self._hatchet.is_cancelled():
                await self._finish(_cancelled_in_hatchet())
            raise
        except RunStopped:
            return await self._ended_before()
        except Exception as error:
            if not self._hatchet.is_last_attempt:
                raise
            message = f"the run failed as a whole: {type(error).__name__}: {error}"
            await self._finish(StopRequest(state="failed", kind=_CANCELLED, message=message))
            raise

    async def _run(self) -> ScatterGatherResult:
        """Run the node until it ends or the run is to stop."""
        async with self._node.progress:
            work = asyncio.ensure_future(self._node.run())
            stop = asyncio.ensure_future(self._stop_request())
            try:
                await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.cancel()
                if not work.done():
                    work.cancel()
                    await asyncio.wait(
                        {work}
                    )  # a thread that writes the tables cannot be cancelled
            if not work.cancelled() and not isinstance(work.exception(), RunStopped):
                return work.result()
        request = await in_thread(read_stop, self._node.store, self._node.layout)
        if request is not None:
            await self._finish(request)
        raise RunStopped

    async def _stop_request(self) -> StopRequest:
        """Wait for a stop request, the run's time limit, or more failures than it allows."""
        limit = TimeoutSettings().SCATTER_GATHER_EXECUTION
        while True:
            try:
                found = await in_thread(self._look_for_stop, limit)
                if found is not None:
                    return found
            except Exception as error:  # noqa: BLE001 - the run continues
                logger.warning("Cannot check for a stop request, trying again: %s", error)
            left = self._node.progress.started + limit.total_seconds() - time.time()
            await asyncio.sleep(min(_PAUSE, max(0.05, left)))

    def _look_for_stop(self, limit: timedelta) -> StopRequest | None:
        store = self._node.store
        layout = self._node.layout
        passed = time.time() - self._node.progress.started
        if limit < NO_LIMIT and passed >= limit.total_seconds():
            return put_stop(store, layout, _limit_passed(limit))
        if stop := too_many_failures(self._node.payload, self._node.progress.failed):
            return put_stop(store, layout, stop)
        return read_stop(store, layout)

    async def _finish(self, request: StopRequest) -> None:
        """Finish the run; continue even when this task is cancelled."""
        await self._node.progress.stop()
        work = in_thread(self._finish_now, request)
        await to_the_end(asyncio.ensure_future(work))

    def _finish_now(self, request: StopRequest) -> None:
        if not self._place.is_over():
            finish_run(self._place, request, spare=self._hatchet.workflow_run_id)

    async def _ended_before(self) -> ScatterGatherResult:
        """Return the result of a run whose final tables exist already, or raise its failure."""
        status = await in_thread(self._place.status)
        assert status is not None
        if status.state == "cancelled":
            await self._hatchet.be_cancelled()
        if status.state != "done":
            raise task_error(f"The run is {status.state}: {status.message}.", final=True)
        keys = await in_thread(self._final_keys)
        uris = {key.rsplit("/", 1)[-1].removesuffix(".pq"): self._uri(key) for key in keys}
        n_leaves = status.done + status.failed
        return ScatterGatherResult(uris=uris, n_leaves=n_leaves, n_failed=status.failed)

    def _final_keys(self) -> list[str]:
        return list(self._node.store.list_keys(self._node.layout.final))

    def _uri(self, key: str) -> S3Url:
        return S3Url(self._node.store.uri(key))


_CANCELLED = FailureKind.CANCELLED


def _cancelled_in_hatchet() -> StopRequest:
    message = "the run was cancelled in Hatchet"
    return StopRequest(state="cancelled", kind=_CANCELLED, message=message)


def _limit_passed(limit: timedelta) -> StopRequest:
    return StopRequest(
        state="failed",
        kind=FailureKind.RUN_LIMIT,
        message=f"the run has reached its limit of {limit.total_seconds():g} s "
        f"({_LIMIT_VARIABLE} of the worker): raise the limit, or unset it for no limit",
    )
