"""Task reuse, driver side: Ray tasks that run several leaves one after another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections import deque
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from scythe.processes.frames import HEADER, framed
from scythe_ray.on_node.records import RecordError, private_folder
from scythe_ray.on_node.reused_task import WELCOME, socket_address

_IDLE = 0.2  # seconds for which a task waits for the next leaf
_WANTED = 0.02  # the same while another Ray task may wait for its CPU
_SOON = 0.01  # seconds for which a leaf waits for a busy task; Ray takes as long to start a new one
_DRAIN = 1.0  # seconds after the task's end, by which all that its process sent has arrived
_HELLO_WAIT = 10.0
logger = logging.getLogger("scythe.ray")


class ReusedTask:
    """One reusable Ray task, which has a leaf or waits for the next one.

    Attributes:
        result: The outcome of its leaf: bytes of `run_envelope`, or an exception of Ray; empty if
            the task ended without taking the leaf.
        over: The return value of the Ray task.
        took: Run time of the last leaf with an outcome, in seconds.

    Args:
        ref: Ray's reference to the task's result.
        kind: The key of its leaves; None for the task of a single leaf.
        on_idle: Called when it waits for another leaf.
    """

    def __init__(self, ref: Any, kind: Hashable, on_idle: Callable[[ReusedTask], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.kind = kind
        self._ref = ref
        self._on_idle = on_idle
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begun = self.took = 0.0
        self.result = self._new_result()
        self.over: asyncio.Future[bytes] = asyncio.wrap_future(ref.future())
        self.over.add_done_callback(self._settle)

    @property
    def is_waiting(self) -> bool:
        """Whether it can take a leaf."""
        is_open = self._reading is not None and not self._reading.done()
        return is_open and self.result.done() and not self.over.done() and not self._is_closed

    @property
    def is_pending(self) -> bool:
        """Whether the task has not connected yet: it was not started, or not on this host."""
        return self._reading is None and not self.over.done()

    @property
    def is_busy(self) -> bool:
        """Whether it has a leaf whose outcome will come over the socket."""
        return self._reading is not None and not self.result.done() and not self.over.done()

    def send(self, job: bytes) -> None:
        """Send it another leaf."""
        self._stop_timer()
        self._begun = self._loop.time()
        self.result = self._new_result()
        if self._writer is not None:
            self._writer.write(framed(job))

    def keep(self, seconds: float) -> None:
        """Keep it waiting for another leaf for some seconds."""
        self._timer = self._loop.call_later(seconds, self.close)

    def close(self) -> None:
        """End the task once it has no leaf."""
        self._stop_timer()
        if self._writer is not None:
            self._writer.close()

    def cancel(self) -> None:
        """Cancel the Ray task, which must not have begun its leaf."""
        import ray

        with contextlib.suppress(Exception):
            ray.cancel(self._ref, force=True)

    def attach(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use this connection of the task's process."""
        if self.over.done():
            writer.close()
            return
        self._reader = reader
        self._writer = writer
        self._begun = self._loop.time()
        writer.write(WELCOME)
        self._reading = self._loop.create_task(self._read(reader))
        self._reading.add_done_callback(self._settle)

    @property
    def _is_closed(self) -> bool:
        return self._writer is None or self._writer.is_closing()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                data = await _read_frame(reader)
                self.took = self._loop.time() - self._begun
                if not self.result.done():
                    self.result.set_result(data)
                self._on_idle(self)

    def _settle(self, _: object) -> None:
        """Settle the leaf with Ray's result once both the Ray task and the socket have ended."""
        if self._reading is not None and not self._reading.done():
            if self.over.done():
                self._loop.call_later(_DRAIN, self._stop_reading)
            return
        self.close()
        if not self.over.done():
            return
        error = self.over.exception()
        if self.result.done():
            return
        if error is None:
            self.result.set_result(self.over.result())
        else:
            self.result.set_exception(error)

    def _stop_reading(self) -> None:
        """Stop waiting for a socket that a fork of the leaf keeps open."""
        if self._reader is not None and self._reading is not None and not self._reading.done():
            self._reader.feed_eof()

    def _new_result(self) -> asyncio.Future[bytes]:
        result: asyncio.Future[bytes] = self._loop.create_future()
        result.add_done_callback(_look_at)
        return result

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class TaskReuse:
    """The reusable Ray tasks of a driver, on a socket in the folder of its records.

    Args:
        folder: The folder; None if processes on this Ray node cannot reach it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._leases: dict[str, ReusedTask] = {}
        self._idle: dict[Hashable, list[ReusedTask]] = {}
        self._turns: dict[
            Hashable, deque[asyncio.Future[ReusedTask]]
        ] = {}  # queues of waiting leaves
        self._pace: dict[Hashable, float] = {}  # run time of the last leaf in seconds
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Start to listen, unless it does already."""
        folder = self._folder
        self._folder = None
        if folder is None:
            return
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_address(private_folder(folder)) as address:
                link.bind(address)
            self._server = await asyncio.start_unix_server(self._welcome, sock=link)
        except (OSError, RecordError) as error:
            link.close()
            logger.warning("Cannot reuse Ray tasks, so that short leaves take longer: %s", error)

    async def take(self, kind: Hashable) -> ReusedTask | None:
        """Return an idle task for a leaf of this kind, the most recently used first.

        If none is idle, but leaves of this kind are shorter than the start of a Ray task, wait for
        one; otherwise leaves that come together would spread over many processes, each with its own
        start-up time. If there is none at all, release the idle tasks of other kinds, whose CPUs a
        new task may need.
        """
        waiting = self._idle.get(kind, [])
        while waiting:
            lease = waiting.pop()
            if lease.is_waiting:
                return lease
        if (lease := await self._next_free(kind)) is not None:
            return lease
        self._release()
        return None

    def add(self, token: str, ref: Any, kind: Hashable) -> ReusedTask:
        """Add a new Ray task.

        Args:
            token: The name by which its process connects.
            ref: Ray's reference to its result.
            kind: The key of its leaves; None for the task of a single leaf.
        """
        lease = ReusedTask(ref, kind, self._on_idle)
        if kind is not None:
            self._leases[token] = lease
            lease.over.add_done_callback(lambda _: self._leases.pop(token, None))
        return lease

    async def close(self) -> None:
        """End all tasks once they have no leaf, and close the socket."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()  # do not wait for a peer that does not read
        closing = [writer.wait_closed() for writer in self._writers]
        await asyncio.gather(*closing, return_exceptions=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accept the connection of a process that has just begun a task."""
        self._writers = {other for other in self._writers if not other.is_closing()} | {writer}
        token = b""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, TimeoutError):
            async with asyncio.timeout(_HELLO_WAIT):
                token = await _read_frame(reader)
        lease = self._leases.get(token.decode(errors="replace"))
        if lease is None:
            writer.close()
        else:
            lease.attach(reader, writer)

    async def _next_free(self, kind: Hashable) -> ReusedTask | None:
        """Wait for a task that is about to be idle, if there is one."""
        turns = self._turns.setdefault(kind, deque())
        busy = sum(lease.is_busy for lease in self._leases.values() if lease.kind == kind)
        if not busy or (len(turns) + 1) / busy * self._pace.get(kind, math.inf) >= _SOON:
            return None
        turn: asyncio.Future[ReusedTask] = asyncio.get_running_loop().create_future()
        turns.append(turn)
        try:
            async with asyncio.timeout(_SOON):
                lease = await turn
        except TimeoutError:
            return None
        finally:
            if turn in turns:
                turns.remove(turn)
        return lease if lease.is_waiting else None

    def _on_idle(self, lease: ReusedTask) -> None:
        self._pace[lease.kind] = lease.took
        pending = any(other.is_pending for other in self._leases.values())
        lease.keep(_WANTED if pending else _IDLE)
        turns = self._turns.get(lease.kind)
        while turns:
            if not (turn := turns.popleft()).done():
                turn.set_result(lease)
                return
        others = [other for other in self._idle.get(lease.kind, []) if other.is_waiting]
        self._idle[lease.kind] = [*others, lease]

    def _release(self) -> None:
        for waiting in self._idle.values():
            for lease in waiting:
                if lease.is_waiting:
                    lease.close()
        self._idle.clear()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
    return await reader.readexactly(size)


def _look_at(result: asyncio.Future[bytes]) -> None:
    """Keep asyncio from logging the error of a leaf that was ended on purpose."""
    if not result.cancelled():
        result.exception()
