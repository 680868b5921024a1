"""The driver's client for the `NodeAgent` of each Ray node, local or as an actor."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Executor as Threads
from contextlib import suppress
from pathlib import Path
from typing import Any

from scythe_ray.cluster.discovery import within
from scythe_ray.on_node.node_agent import NodeAgent, Probe
from scythe_ray.on_node.records import leaf_folder
from scythe_ray.on_node.task import Driver, NodeAgentActor

_CALL_TIMEOUT = 30.0  # seconds; a Ray node may have to start the actor's process
_CLOSE_TIMEOUT = 15.0  # seconds; the actor may have to be started for it
_RAY_TIMEOUT = 10.0  # seconds for Ray to accept the start or end of an actor
_ACTOR_CALLS = 16  # parallel calls of one actor
_UNUSED = 10.0  # seconds until an unused actor ends; a Ray node with an actor never counts as idle
_SWEEP_DELAY = 3.0  # seconds in which a damaged process has died
logger = logging.getLogger("scythe.ray")


class NodeAgentClients:
    """Finds and ends leaves on any Ray node.

    Attributes:
        folder: The records of this node's leaves; None if they belong to another user.

    Args:
        driver: This driver.
        packed: The same, pickled for the actors.
        node_id: The Ray node of this process, which needs no actor.
        threads: Runs blocking calls.
    """

    def __init__(self, driver: Driver, packed: bytes, node_id: str, threads: Threads) -> None:
        import ray

        make: Any = ray.remote
        self._actor_class: Any = make(NodeAgentActor)
        self._packed = packed
        self._threads = threads
        self._actors: dict[str, asyncio.Task[Any]] = {}
        self._used: dict[
            str, float
        ] = {}  # time of the last use, also of Ray nodes whose actor has ended
        self._asks: Counter[str] = Counter()
        self._kills: dict[str, int] = {}  # by node, as `NodeAgent.kills` there
        self._ending: set[asyncio.Future[None]] = set()
        self._sweeps: dict[str, asyncio.Task[None]] = {}
        self._here: dict[str, NodeAgent] = {}
        self.folder: Path | None = None
        if _same_user(driver.session_dir):
            self.folder = leaf_folder(driver.session_dir, driver.driver_id)
            self._here[node_id] = NodeAgent(self.folder)

    def prepare(self, nodes: Iterable[str]) -> None:
        """Start an actor on each of these Ray nodes that never had one, without waiting for it.

        It does not stay for ever: the autoscaler may remove a Ray node without leaves.
        """
        for node_id in nodes:
            if node_id not in self._here and node_id not in self._used:
                self._actor(node_id)

    async def find(self, nodes: Iterable[str], token: str) -> Probe | None:
        """Probe a leaf on these Ray nodes; None if it runs on none of them."""
        return await self._ask(nodes, "find", token)

    async def end(
        self, nodes: Iterable[str], token: str, grace: float, stack: bool
    ) -> Probe | None:
        """End a leaf with its descendants, on whichever of these Ray nodes it runs."""
        return await self._ask(nodes, "end", token, grace, stack, limit=_CALL_TIMEOUT + grace)

    async def report(self, nodes: Iterable[str], token: str) -> Probe | None:
        """Probe a leaf whose process died on one of these Ray nodes."""
        return await self._ask(nodes, "report", token)

    async def retire(self, nodes: Iterable[str], token: str) -> None:
        """Wait on these Ray nodes for the end of a process that exits after a leaf."""
        await self._ask(nodes, "retire", token)

    def sweep_soon(self, nodes: Iterable[str]) -> None:
        """Call `NodeAgent.sweep` on each of these Ray nodes, a moment from now.

        A process that a leaf has damaged may die before it can remove its files.
        """
        for node_id in nodes:
            if node_id not in self._sweeps:
                sweep = asyncio.get_running_loop().create_task(self._sweep(node_id))
                self._sweeps[node_id] = sweep

    async def forget(self, nodes: Iterable[str], token: str) -> None:
        """Remove the marks that `end` left on these Ray nodes."""
        await self._ask(nodes, "forget", token)

    async def close(self, alive: Collection[str]) -> None:
        """Remove the files of the leaves' processes, and end the actors.

        Args:
            alive: The live Ray nodes.
        """
        for sweep in self._sweeps.values():
            sweep.cancel()
        used = [node_id for node_id in self._used if node_id in alive]
        await self._ask([*self._here, *used], "close", limit=_CLOSE_TIMEOUT)
        ending = [self._kill(actor) for actor in self._actors.values()]
        self._actors.clear()
        await asyncio.gather(*ending)

    async def _sweep(self, node_id: str) -> None:
        await asyncio.sleep(_SWEEP_DELAY)
        del self._sweeps[node_id]
        await self._ask([node_id], "sweep")

    async def _ask(
        self, nodes: Iterable[str], method: str, *args: Any, limit: float = _CALL_TIMEOUT
    ) -> Probe | None:
        answers = await asyncio.gather(
            *(self._ask_one(node_id, method, args, limit) for node_id in list(nodes))
        )
        return next((answer for answer in answers if answer is not None), None)

    async def _ask_one(
        self, node_id: str, method: str, args: tuple[Any, ...], limit: float
    ) -> Probe | None:
        loop = asyncio.get_running_loop()
        if node_id in self._here:
            return await loop.run_in_executor(
                self._threads, getattr(self._here[node_id], method), *args
            )
        self._asks[node_id] += 1
        try:
            async with asyncio.timeout(limit):
                if (actor := await asyncio.shield(self._actor(node_id))) is None:
                    return None
                ref: Any = getattr(actor, method).remote(*args)
                answer = await asyncio.wrap_future(ref.future())
        except Exception as error:  # noqa: BLE001 - a Ray node that is gone has no leaf either
            logger.debug("Node %s does not answer %s(): %s", node_id[:8], method, error)
            self._actors.pop(node_id, None)
            return None
        else:
            if method == "report":
                await self._note_kills(node_id, actor)
            return answer
        finally:
            self._asks[node_id] -= 1
            self._used[node_id] = time.monotonic()

    def _actor(self, node_id: str) -> asyncio.Task[Any]:
        """Return the task that yields the actor of a Ray node, starting the actor if needed."""
        if node_id not in self._actors:
            self._actors[node_id] = asyncio.get_running_loop().create_task(self._start(node_id))
            self._used[node_id] = time.monotonic()
            self._look_later(node_id, _UNUSED)
        return self._actors[node_id]

    async def _start(self, node_id: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        create = self._actor_class.options(
            num_cpus=0,
            max_concurrency=_ACTOR_CALLS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote
        actor = await self._call_ray(lambda: create(self._packed, self._kills.get(node_id)))
        if actor is None:
            self._actors.pop(node_id, None)
        elif node_id not in self._kills:
            await self._note_kills(node_id, actor)
        return actor

    async def _note_kills(self, node_id: str, actor: Any) -> None:
        """Fetch the state that the next actor on this Ray node needs."""
        with suppress(Exception):  # it is gone, or the cluster is
            async with asyncio.timeout(_CALL_TIMEOUT):
                self._kills[node_id] = await asyncio.wrap_future(actor.kills.remote().future())

    def _look_later(self, node_id: str, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._release, node_id)

    def _release(self, node_id: str) -> None:
        """End an actor that was not used recently; the next call starts another."""
        if (actor := self._actors.get(node_id)) is None:
            return
        left = self._used[node_id] + _UNUSED - time.monotonic()
        if left > 0 or self._asks[node_id] or not actor.done():
            self._look_later(node_id, max(left, _UNUSED / 10))
            return
        del self._actors[node_id]
        ending = asyncio.ensure_future(self._kill(actor))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _kill(self, actor: asyncio.Task[Any]) -> None:
        import ray

        if not actor.done():
            actor.cancel()
        elif actor.result() is not None:
            await self._call_ray(lambda: ray.kill(actor.result()))

    async def _call_ray(self, call: Callable[[], Any]) -> Any:
        """Call a function that asks the head, with a timeout; return None on failure."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, within, _RAY_TIMEOUT, call, "Ray")
        except Exception as error:  # noqa: BLE001 - the cluster is lost
            logger.debug("Ray cannot be asked: %s", error)
            return None


def _same_user(session_dir: str) -> bool:
    """Return whether this process may signal the leaves of its node."""
    try:
        return Path(session_dir).stat().st_uid == os.geteuid()
    except OSError:
        return False
