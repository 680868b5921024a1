"""The way from the network of the test bed to the local stack, which listens on loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

# Whoever cancels it is interested in nothing but the dropped connections.
_GONE = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_ANSWER = "HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SLOW_DOWN, NO_ROOM, SILENCE = "503 Slow Down", "507 Insufficient Storage", ""


class Forwarder:
    """Listens in another network namespace, and forwards to the same ports of this one's loopback.

    Args:
        namespace: The file of the namespace (`/proc/<pid>/ns/net`).
        host: The address to listen at there.
        ports: The ports.
    """

    def __init__(self, namespace: Path, host: str, ports: Sequence[int]) -> None:
        self._failing: dict[int, str] = {}
        self._open: dict[asyncio.Task[Any], int] = {}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        sockets = {port: _listen_in(namespace, host, port) for port in ports}
        up: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(sockets, up),), daemon=True
        )
        self._thread.start()
        up.result(10)

    def fail(self, port: int, answer: str = SLOW_DOWN) -> None:
        """Answer each HTTP request to a port with an error, and drop the connections it has.

        Args:
            port: The port.
            answer: The error; `SILENCE` to take requests and never answer.
        """
        self._call(self._start_failing, port, answer)

    def heal(self, port: int) -> None:
        """Forward again, and drop the connections that wait for an answer."""
        self._call(self._stop_failing, port)

    def close(self) -> None:
        """Drop all connections and listen no more."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def _call(self, function: Any, *args: Any) -> None:
        done: Future[None] = Future()

        def do() -> None:
            function(*args)
            done.set_result(None)

        self._loop.call_soon_threadsafe(do)
        done.result(10)

    def _start_failing(self, port: int, answer: str) -> None:
        self._failing[port] = answer
        self._drop(port)

    def _stop_failing(self, port: int) -> None:
        if self._failing.pop(port, None) == SILENCE:
            self._drop(port)

    def _drop(self, port: int) -> None:
        for task, its_port in self._open.items():
            if its_port == port:
                task.cancel()

    async def _serve(self, sockets: Mapping[int, socket.socket], up: Future[None]) -> None:
        servers = [
            await asyncio.start_server(self._taker(port), sock=sock)
            for port, sock in sockets.items()
        ]
        up.set_result(None)
        await self._stop.wait()
        for server in servers:
            server.close()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _taker(self, port: int) -> Any:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._open[task] = port
            try:
                # Cancelled, it has dropped its connections: nobody is interested in more.
                with contextlib.suppress(
                    OSError, asyncio.IncompleteReadError, asyncio.CancelledError
                ):
                    if (answer := self._failing.get(port)) is None:
                        await _forward(reader, writer, port)
                    else:
                        await _refuse(reader, writer, answer)
            finally:
                writer.transport.abort()
                del self._open[task]

        return take


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: str) -> None:
    await reader.readuntil(b"\r\n\r\n")
    if answer == SILENCE:
        await asyncio.Event().wait()  # until the connection is dropped
    writer.write(_ANSWER.format(answer).encode())
    await writer.drain()
    writer.write_eof()
    await reader.read()  # until the other side has seen it


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
    ways = [
        asyncio.ensure_future(_copy(reader, there_writer)),
        asyncio.ensure_future(_copy(there_reader, writer)),
    ]
    try:
        await asyncio.gather(*ways)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        there_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _listen_in(namespace: Path, host: str, port: int) -> socket.socket:
    made: Future[socket.socket] = Future()

    def listen() -> None:
        # A thread of its own: it is in the other namespace from here to its end.
        try:
            descriptor = os.open(namespace, os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEW_NETWORK) != 0:
                    raise OSError(ctypes.get_errno(), "setns", str(namespace))
            finally:
                os.close(descriptor)
            made.set_result(socket.create_server((host, port)))
        except OSError as error:
            made.set_exception(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    return made.result()
