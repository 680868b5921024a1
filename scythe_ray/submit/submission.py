"""One submission of a leaf to Ray, until its end is confirmed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from scythe.errors import ExecutorUnavailable, LeafFailed
from scythe.executor import LeafCancelled
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafOutcome
from scythe.processes.ending import GRACE
from scythe.processes.waiting import to_the_end
from scythe_ray.config.resources import RayNode
from scythe_ray.on_node.node_agent import Probe
from scythe_ray.on_node.task import UsedProcess, load_outcome
from scythe_ray.submit.failures import (
    START_TIMEOUT,
    crash_failure,
    damage_failure,
    ended_itself,
    failure_of,
    node_lost_failure,
    stats_of,
    timeout_failure,
    waited_failure,
)
from scythe_ray.submit.node_agent_client import NodeAgentClients
from scythe_ray.submit.task_reuse import ReusedTask

_END_WAIT = 30.0  # seconds from SIGKILL or cancellation until Ray reports the end of the task
_LOOK_AGAIN = 1.0
logger = logging.getLogger("scythe.ray")


class ProcessFault(Exception):  # noqa: N818 - an event, not an error
    """Something failed in the leaf's process outside of the user's function."""

    def __init__(self, failure: LeafFailure, journal: bytes | None = None) -> None:
        self.failure = failure
        self.journal = journal
        super().__init__(failure.summary)


class PlacementLost(Exception):  # noqa: N818 - an event, not an error
    """The leaf's Ray node is gone, or its process died; the leaf may be submitted again."""

    def __init__(self, failure: LeafFailure, *, is_crash: bool) -> None:
        self.failure = failure
        self.is_crash = is_crash
        super().__init__(failure.summary)


class Submission:
    """A leaf that Ray was given. Call `outcome` once.

    Attributes:
        nodes: The nodes that may run it, see `on_joined` and `on_gone`.

    Args:
        call: The try of the leaf.
        token: Unique for this submission.
        lease: The task that has it.
        nodes: The nodes that may run it.
        needs: What it needs, for messages.
        controls: The channel to the nodes.
        retire: Whether its process ends after it, which is waited for.
        is_fixed: Whether Ray was asked to keep it on its node.
    """

    def __init__(
        self,
        call: LeafCall,
        token: str,
        lease: ReusedTask,
        nodes: Sequence[str],
        needs: str,
        controls: NodeAgentClients,
        *,
        retire: bool,
        is_fixed: bool = False,
    ) -> None:
        self._retire = retire
        self._is_fixed = is_fixed
        self._call = call
        self._token = token
        self._lease = lease
        self.nodes = list(nodes)
        self._needs = needs
        self._controls = controls
        self._result = lease.result
        self._lost: asyncio.Future[LeafFailure] = asyncio.get_running_loop().create_future()
        self._aborted: LeafFailure | None = None
        self._ending: asyncio.Task[Probe | None] | None = None

    async def outcome(self) -> LeafOutcome | UsedProcess | None:
        """Wait for the leaf; end it when its time is over, or when this is cancelled.

        Returns:
            What came of it; None where its task ended before it took the leaf.

        Raises:
            LeafFailed: It ended its own process, or ran too long.
            ExecutorUnavailable: Ray did not start it in time, or it was aborted.
            PlacementLost: Its process or its node is gone.
            ProcessFault: Its process failed, not the leaf.
        """
        try:
            await self._watch()
        except asyncio.CancelledError:
            seen = await to_the_end(self._end())
            raise LeafCancelled(seen.journal if seen else None) from None
        if self._lost.done() and not self._result.done():
            raise PlacementLost(self._lost.result(), is_crash=False)
        try:
            data = self._result.result()
        except Exception as error:  # noqa: BLE001 - all exceptions of Ray are classified
            if self._aborted is not None:
                raise ExecutorUnavailable(self._aborted) from None
            raise await self._classified(error) from None
        if self._retire:
            await self._controls.retire(self.nodes, self._token)
        outcome = load_outcome(data) if data else None
        if isinstance(outcome, LeafFailure) and outcome.kind is FailureKind.ENVIRONMENT:
            raise ProcessFault(outcome)  # another leaf may have damaged the process
        return outcome

    def on_joined(self, node_ids: Sequence[str]) -> None:
        """Add nodes that could run the leaf: Ray may start it there while it waits."""
        if node_ids and not self._is_fixed:
            self.nodes.extend(node_ids)
            self._controls.prepare(node_ids)

    def on_gone(self, nodes: Mapping[str, RayNode]) -> None:
        """Remove nodes that are gone; give the leaf up if it can only have run on these.

        Args:
            nodes: The nodes that are gone, by id.
        """
        left = [node_id for node_id in self.nodes if node_id not in nodes]
        if left:
            self.nodes = left
        elif self.nodes:
            self.give_up(node_lost_failure(nodes[self.nodes[0]]))

    async def abort(self, failure: LeafFailure) -> None:
        """End the leaf; `outcome` then raises the failure as `ExecutorUnavailable`."""
        self._aborted = failure
        await asyncio.shield(self._end())

    def give_up(self, failure: LeafFailure) -> None:
        """Make `outcome` raise the failure at once, because Ray no longer answers."""
        if not self._lost.done():
            self._lost.set_result(failure)

    async def _watch(self) -> None:
        """Wait until Ray reports the end of the task; check the leaf when a limit is due."""
        now = time.monotonic()
        latest_start = now + self._call.schedule_timeout
        due = now + self._call.timeout
        started = False
        while not await self._is_over(due if started else min(due, latest_start)):
            seen = await self._controls.find(self.nodes, self._token)
            now = time.monotonic()
            if self._result.done():  # it arrived while this process was suspended
                return
            if seen is None:
                if now >= latest_start and not started:
                    await self._stop_waiting()
                    return
                due = now + (_LOOK_AGAIN if started else self._call.timeout)
                continue
            started = True
            importing = seen.state == "importing"
            left = (START_TIMEOUT if importing else self._call.timeout) - seen.elapsed
            if seen.remaining is not None:
                left = seen.remaining  # each leaf of a batch has its own limit
            if left <= 0:
                await self._time_out(importing=importing)
                return
            due = now + min(left, self._call.timeout)

    async def _is_over(self, due: float) -> bool:
        # `wait` does not cancel the futures at the timeout or when it is cancelled.
        left = max(0.0, due - time.monotonic())
        done, _ = await asyncio.wait(
            {self._result, self._lost}, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        return bool(done)

    async def _time_out(self, *, importing: bool) -> None:
        seen = await to_the_end(self._end(stack=True))
        if seen is not None and seen.state == "ended" and self._aborted is None:
            failure = timeout_failure(self._call.timeout, seen, importing=importing)
            raise LeafFailed(failure, seen.journal)

    async def _stop_waiting(self) -> None:
        seen = await to_the_end(self._end())
        if seen is None or seen.state != "done":
            raise ExecutorUnavailable(waited_failure(self._call, self._needs))

    def _end(self, *, stack: bool = False) -> asyncio.Task[Probe | None]:
        """End the leaf on whatever Ray node it runs; later calls return the same task."""
        if self._ending is None:
            work = self._end_for_good(stack)
            self._ending = asyncio.get_running_loop().create_task(work)
        return self._ending

    async def _end_for_good(self, stack: bool) -> Probe | None:
        deadline = time.monotonic() + _END_WAIT
        seen = await self._controls.end(self.nodes, self._token, GRACE, stack)
        if seen is None and not self._result.done():
            # Not begun: should it begin now, it waits to be ended, so Ray's cancel is safe.
            self._lease.cancel()
        while not await self._is_over(time.monotonic() + _LOOK_AGAIN):
            again = await self._controls.end(self.nodes, self._token, GRACE, False)
            seen = seen or again
            if time.monotonic() > deadline:
                logger.error("Ray does not report the end of leaf %s.", self._call.leaf_id)
                break
        await self._controls.forget(self.nodes, self._token)
        if seen is not None and seen.left:
            logger.error(
                "Leaf %s: processes %s on %s did not end after SIGKILL.",
                self._call.leaf_id,
                list(seen.left),
                seen.node,
            )
        return seen

    async def _classified(self, error: Exception) -> Exception:  # noqa: PLR0911 - a table
        failure = failure_of(error)
        if failure.kind is FailureKind.ENVIRONMENT:
            is_node = failure.type == "RuntimeEnvSetupError"  # not the process
            return LeafFailed(failure) if is_node else ProcessFault(failure)
        if failure.kind not in (FailureKind.WORKER_CRASH, FailureKind.OUT_OF_MEMORY):
            return PlacementLost(failure, is_crash=False)
        seen = await self._controls.report(self.nodes, self._token)
        out_of_memory = failure.kind is FailureKind.OUT_OF_MEMORY
        if seen is None:  # it had not begun; Ray assigned it to a process that was ending
            return LeafFailed(failure) if out_of_memory else PlacementLost(failure, is_crash=False)
        if out_of_memory:
            return LeafFailed(replace(failure, stats=stats_of(seen), log=seen.log), seen.journal)
        if (damage := damage_failure(seen)) is not None:
            return ProcessFault(damage, seen.journal)
        failure = crash_failure(seen)
        known = seen.journal is not None  # the caller resumes the batch
        if known or ended_itself(seen) or failure.kind is not FailureKind.WORKER_CRASH:
            return LeafFailed(failure, seen.journal)
        return PlacementLost(failure, is_crash=True)
