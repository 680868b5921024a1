"""The executor `local`: a pool of as many processes as slots on this machine.

A leaf that crashes, hangs or ends its process costs only itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scythe.errors import ExecutorUnavailable, LeafFailed, WorkerStartError
from scythe.executor import Capacity, ExecutorRequest, LeafCancelled, closed_failure
from scythe.leaf.faults import Reruns
from scythe.leaf.log import keep_small
from scythe.local.failures import (
    crash_failure,
    damage_failure,
    infeasible_failure,
    no_process_failure,
    start_failure,
    timeout_failure,
    waited_failure,
)
from scythe.local.pool_events import Ending, LeafTimeout, ProcessLost, StartFailed
from scythe.local.pool_messages import Finished
from scythe.local.pool_process import PoolProcess
from scythe.local.slots import NoSlotInTimeError, Slots, default_slots
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafReply
from scythe.processes.ending import GRACE, MARK, end_tree, oom_kills
from scythe.processes.guard import Guard
from scythe.processes.spawning import is_preparing, preparation
from scythe.processes.waiting import to_the_end

logger = logging.getLogger("scythe.local")


def open_executor(request: ExecutorRequest) -> LocalExecutor:
    """Start the pool; its processes import the worker's script while the worker connects.

    Raises:
        WorkerStartError: No process can be started, or the number of slots is invalid.
    """
    if is_preparing():
        raise WorkerStartError(
            "The worker's script starts its worker whenever it is imported. Put the start below "
            "`if __name__ == '__main__':`."
        )
    slots, source = default_slots() if request.slots is None else (request.slots, "")
    if slots < 1:
        raise WorkerStartError(f"SLOTS must be at least 1, got {slots}.")
    capacity = Capacity(
        slots=slots,
        source=source or f"SLOTS={slots}",
        labels=dict(request.labels),
        place=f"{slots} process{'es' if slots > 1 else ''} on {platform.node()}",
    )
    try:
        return LocalExecutor(capacity)
    except OSError as error:
        raise WorkerStartError(
            f"The processes that run leaves cannot be started ({error}). Check the limits on "
            f"processes, files and disk space, or use fewer slots than {slots}."
        ) from error


@dataclass(frozen=True)
class _Attempt:
    """The outcome of a leaf in one process.

    Attributes:
        outcome: The result.
        failure: The failure, if there is no result.
        journal: The journal of the batch.
        is_fault: Whether the process failed rather than the leaf.
        was_killed: Whether the process was killed, perhaps from outside.
    """

    outcome: LeafReply | None = None
    failure: LeafFailure | None = None
    journal: bytes | None = None
    is_fault: bool = False
    was_killed: bool = False


class LocalExecutor:
    """Runs leaves in processes of this machine. It belongs to the loop that first uses it.

    Args:
        capacity: Its slots.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._slots = Slots(capacity.slots)
        # Begins with the mark of this process, so that ending this process also ends its pool.
        self._mark = f"{os.environ.get(MARK, '')}{uuid.uuid4().hex}."
        self._folder = Path(tempfile.mkdtemp(prefix="scythe-pool-"))
        keep_small(self._folder, "*.log")
        self._threads = ThreadPoolExecutor(capacity.slots + 2, "scythe-pool")
        self._preparation = preparation()
        self._guard = Guard(self._mark, str(self._folder))
        self._started = 0
        self._processes: set[PoolProcess] = set()
        self._idle: list[PoolProcess] = []
        self._bound = False
        self._start_fails = False
        self._background: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._oom_kills = oom_kills()
        try:
            self._fill()
        except OSError:
            end_tree([one.root for one in self._processes], 0, mark=self._mark)
            self._remove()
            raise

    @property
    def capacity(self) -> Capacity:
        """The slots of this machine."""
        return self._capacity

    async def astart(self) -> None:
        """Do nothing: the capacity of this machine does not change."""

    async def run(self, call: LeafCall) -> LeafReply:
        """Run one attempt of a leaf, see `scythe.executor.Executor`.

        A leaf whose process is killed from outside runs once more in a new process. So does a leaf
        whose process crashed, which looks the same. A second death is the leaf's failure.
        """
        slots = max(1, math.ceil(call.resources.cpus))
        if slots > self._capacity.slots:
            raise ExecutorUnavailable(infeasible_failure(slots, self._capacity))
        self._bind()
        try:
            async with self._slots.held(slots, call.schedule_timeout):
                return await self._run(call)
        except NoSlotInTimeError:
            raise ExecutorUnavailable(waited_failure(call, slots)) from None

    async def aclose(self) -> None:
        """Kill all processes, including those that run a leaf, and remove the pool's folder."""
        if self._closing is None:
            self._bind(closing=True)
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await to_the_end(self._closing)

    async def _run(self, call: LeafCall) -> LeafReply:
        again = False
        reruns = Reruns(call)
        while True:
            attempt = await self._attempt(reruns.call, again)
            failure = attempt.failure
            if attempt.outcome is not None:
                return attempt.outcome
            assert failure is not None
            if attempt.is_fault:
                reruns.add(failure, attempt.journal)
                continue
            if again or not attempt.was_killed:
                raise LeafFailed(failure, attempt.journal)
            again = True
            logger.warning(
                "Leaf %s: %s. Running it once more in another process.",
                call.leaf_id,
                failure.summary,
            )

    async def _attempt(self, call: LeafCall, again: bool) -> _Attempt:
        """Run a leaf in a process."""
        process = await self._ready_process(fresh=call.resources.fresh_process)
        try:
            finished = await process.run(call)
        except LeafTimeout:
            ending = await self._discard(process, dump=True)
            failure = timeout_failure(call, process.pid, process.leaf_started, ending)
            return _Attempt(failure=failure, journal=ending.journal)
        except StartFailed as event:
            await self._discard(process)
            return _Attempt(failure=start_failure(event, process.pid))
        except ProcessLost:
            ending = await self._discard(process)
            self._check_open()
            kills = self._oom_kills
            self._oom_kills = oom_kills()
            where = (process.pid, process.leaf_started, ending)
            if (failure := damage_failure(*where)) is not None:
                return _Attempt(failure=failure, journal=ending.journal, is_fault=True)
            failure = crash_failure(*where, again=again, out_of_memory=self._oom_kills > kills)
            killed = ending.status is None or ending.status < 0
            killed = killed and failure.kind is FailureKind.WORKER_CRASH and ending.journal is None
            return _Attempt(failure=failure, journal=ending.journal, was_killed=killed)
        except asyncio.CancelledError:
            ending = await self._discard(process)
            raise LeafCancelled(ending.journal) from None
        except BaseException:
            await self._discard(process)
            raise
        await self._put_back(process, call, finished)
        if not isinstance(finished.outcome, LeafFailure):
            return _Attempt(finished.outcome)
        used = finished.outcome.kind is FailureKind.ENVIRONMENT and process.leaves > 1
        return _Attempt(failure=finished.outcome, is_fault=used)

    async def _ready_process(self, *, fresh: bool) -> PoolProcess:
        for last_chance in (False, True):
            self._check_open()
            try:
                process = self._take(fresh=fresh)
            except OSError as error:
                raise ExecutorUnavailable(no_process_failure(str(error))) from None
            try:
                await process.ready()
            except StartFailed as event:
                self._start_fails = True
                await self._discard(process)
                raise LeafFailed(start_failure(event, process.pid)) from None
            except ProcessLost:
                ending = await self._discard(process)
                if last_chance:
                    self._check_open()
                    self._start_fails = True
                    failure = crash_failure(process.pid, time.time(), ending, again=True)
                    raise ExecutorUnavailable(failure) from None
            except BaseException:
                self._return(process)  # the process is fine
                raise
            else:
                self._start_fails = False
                return process
        raise AssertionError

    def _take(self, *, fresh: bool) -> PoolProcess:
        """Take an idle process, the most recently used first, or start one."""
        fitting = [one for one in self._idle if not (fresh and one.leaves)]
        if fitting:
            process = next((one for one in reversed(fitting) if one.is_ready), fitting[-1])
            self._idle.remove(process)
            return process
        if self._idle and self._usable >= self._capacity.slots:
            self._in_background(self._discard(self._idle.pop(0)))
        return self._start()

    async def _put_back(self, process: PoolProcess, call: LeafCall, finished: Finished) -> None:
        if finished.left:
            logger.warning(
                "Leaf %s left behind: %s. Ending its process, with all of it.",
                call.leaf_id,
                ", ".join(finished.left),
            )
        if finished.left or call.resources.fresh_process or self._closing:
            await self._discard(process)
        else:
            self._return(process)

    def _return(self, process: PoolProcess) -> None:
        if process.gone:
            self._in_background(self._discard(process))
        else:
            self._idle.append(process)

    async def _discard(
        self, process: PoolProcess, *, dump: bool = False, swept: bool = False
    ) -> Ending:
        """End a process and start another in its place."""
        try:
            return await process.end(dump=dump, swept=swept)
        finally:
            self._processes.discard(process)
            try:
                self._fill()
            except OSError as error:
                logger.warning("Cannot start a process for the next leaf: %s", error)

    @property
    def _usable(self) -> int:
        return sum(not process.is_ending for process in self._processes)

    def _fill(self) -> None:
        while self._usable < self._capacity.slots and not (self._closing or self._start_fails):
            self._idle.insert(0, self._start())

    def _start(self) -> PoolProcess:
        self._guard.ensure()
        self._started += 1
        number = str(self._started)
        process = PoolProcess(
            self._folder / number, f"{self._mark}{number}.", self._preparation, self._threads
        )
        self._processes.add(process)
        if self._bound:
            process.attach(self._on_gone)
        return process

    def _bind(self, *, closing: bool = False) -> None:
        if not closing:
            self._check_open()
        if not self._bound:
            self._bound = True
            for process in self._processes:
                process.attach(self._on_gone)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise ExecutorUnavailable(closed_failure())

    def _on_gone(self, process: PoolProcess) -> None:
        """Replace an idle process that has ended."""
        if process not in self._idle or self._closing is not None:
            return
        self._idle.remove(process)
        if not process.leaves:
            self._start_fails = (
                True  # the next leaf starts one, and reports the reason if that fails too
            )
        logger.warning("Process %s ended while it was idle; no leaf is lost.", process.pid)
        self._in_background(self._discard(process))

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        pids = [process.root for process in self._processes]
        await loop.run_in_executor(self._threads, end_tree, pids, GRACE)
        while self._processes or self._background:
            ending = [self._discard(process, swept=True) for process in self._processes]
            await asyncio.gather(*ending, *self._background, return_exceptions=True)
        await loop.run_in_executor(None, self._remove)

    def _remove(self) -> None:
        self._guard.close()
        self._threads.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)
