"""Runs leaves alone that may have killed their worker process, to find the guilty one."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from scythe.errors import LeafFailed
from scythe.leaf.batch import leaf_run_id
from scythe.leaf.journal import count_leaves
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafStats
from scythe.worker_processes.running_leaves import RunningLeaf, RunningLeaves, Suspect

_DEATHS_TOGETHER = 2  # one death may have another cause than a leaf
_ALONE_SECONDS_MIN = 10.0
_SETTLE_SECONDS = 1.0  # for the ends of other leaves to reach the engine
logger = logging.getLogger("scythe.leaf")


class Quarantine:
    """Decides whether a leaf may run beside others.

    A leaf that was running during two deaths of its worker process runs alone, until it has run
    for longer than it had then. In a batch, each leaf runs alone in turn. If the process dies again
    meanwhile, the leaf is guilty and fails; leaves that happened to run beside it continue.

    Args:
        leaves: Records the running leaves.
        suspects: The leaves that were running when earlier processes died.
    """

    def __init__(self, leaves: RunningLeaves, suspects: Mapping[str, Suspect]) -> None:
        self._leaves = leaves
        self._suspects = suspects
        self._unproven = self._waiting = 0
        self._is_reserved = False
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def entered(self, call: LeafCall) -> AsyncGenerator[LeafCall]:
        """Wait until a leaf may run. Yield the call to run now: one leaf of a suspected batch.

        Raises:
            LeafFailed: The leaf has killed its worker process each time it ran.
        """
        suspect = self._suspects.get(call.leaf_id, Suspect())
        is_alone = suspect.deaths >= _DEATHS_TOGETHER
        name = call.leaf_id
        if is_alone and call.batch is not None:
            batch = call.batch
            over = count_leaves(call.batch.journal)
            name = leaf_run_id(call, batch.rows[0] + over)
            call = replace(call, batch=replace(batch, until=over + 1, closely=over + 1))
        if self._suspects.get(name, Suspect()).is_guilty:
            raise LeafFailed(_failure(), call.batch and call.batch.journal)
        is_first = call.batch is None or not call.batch.journal
        await self._admitted(is_alone, _SETTLE_SECONDS if is_first else 0)
        place = self._leaves.add(RunningLeaf(name, time.monotonic(), is_alone))
        self._unproven += 1
        self._is_reserved = is_alone
        is_proven = False

        def prove() -> None:
            nonlocal is_proven
            if not is_proven:
                is_proven = True
                self._unproven -= 1
                self._is_reserved = False if is_alone else self._is_reserved
                self._leaves.share(place)
                self._changed.set()

        timer = None
        if is_alone:
            if is_first:
                logger.warning(
                    "Running leaf %s alone, because its worker process died %d times while it ran.",
                    call.leaf_id,
                    suspect.deaths,
                )
            seconds = max(_ALONE_SECONDS_MIN, 2 * suspect.seconds)
            timer = asyncio.get_running_loop().call_later(seconds, prove)
        try:
            yield call
        finally:
            if timer is not None:
                timer.cancel()
            prove()
            self._leaves.remove(place)

    async def _admitted(self, is_alone: bool, settle_seconds: float) -> None:
        if not is_alone:
            await self._until(lambda: not self._is_reserved and not self._waiting)
            return
        self._waiting += 1
        try:
            await self._until(lambda: not self._unproven)
            if settle_seconds:
                await asyncio.sleep(settle_seconds)
                await self._until(lambda: not self._unproven)
        finally:
            self._waiting -= 1
            self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def _failure() -> LeafFailure:
    return LeafFailure(
        FailureKind.WORKER_CRASH,
        "WorkerKilled",
        "the worker process died each time this leaf ran, the last time with no other leaf beside "
        "it: check whether the leaf kills other processes or uses all memory",
        stats=LeafStats(platform.node()),
    )
