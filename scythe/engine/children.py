"""Waits for the children of a scatter node, and polls the engine when it sends no news.

The engine notifies a node when a child ends. An engine that is killed may lose a notification for
good, so that a wait for a child would never end. A node without news for a while therefore asks for
a few of its open children, and less and less often while they are running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

Output = dict[str, Any] | BaseException
FindEnd = Callable[[str], Awaitable[Output | None]]

QUIET = 10.0  # seconds without news until the first request
LONGEST = 60.0  # seconds, the longest pause between two requests
_FEW = 4  # a node may have 1,000 children that run for hours
logger = logging.getLogger(__name__)


class OpenChildren:
    """The children that a node waits for.

    Args:
        waits: By the child's run, a future that ends with the child's output or exception when the
            engine notifies the node. Not modified here.
        find_end: Asks the engine for output or exception; None while the child has not ended.
        quiet: Seconds without news until the first request.
        longest: The longest pause between two requests, in seconds.
        on_end: Called once with each child and its output or exception.
    """

    def __init__(
        self,
        waits: Mapping[str, asyncio.Future[Output]],
        find_end: FindEnd,
        *,
        quiet: float = QUIET,
        longest: float = LONGEST,
        on_end: Callable[[str, Output], object] | None = None,
    ) -> None:
        self._find_end = find_end
        self._quiet = quiet
        self._longest = longest
        self._on_end = on_end
        self._order = tuple(waits)
        self._ends: dict[str, Output] = {}
        self._open = dict.fromkeys(waits)  # in the order of the next requests
        self._all_over = asyncio.Event()
        for run_id, wait in waits.items():
            wait.add_done_callback(partial(self._be_told, run_id))

    async def outputs(self) -> list[Output]:
        """Wait for all children; return their outputs or exceptions in the order of `waits`."""
        pause = self._quiet
        while self._open:
            before = len(self._open)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._all_over.wait()
            if len(self._open) < before:
                pause = self._quiet
            elif await self._ask_after_some():
                pause = 0.0  # others were probably lost together with this one
            else:
                pause = max(self._quiet, min(1.5 * pause, self._longest))
        return [self._ends[run_id] for run_id in self._order]

    async def _ask_after_some(self) -> bool:
        """Ask for the next children; return whether any has ended."""
        asked = list(islice(self._open, _FEW))
        found = await asyncio.gather(*map(self._find_end, asked))
        ends = {run_id: end for run_id, end in zip(asked, found, strict=True) if end is not None}
        for run_id in asked:
            if run_id in ends:
                self._close(run_id, ends[run_id])
            elif run_id in self._open:
                del self._open[run_id]
                self._open[run_id] = None
        if ends:
            logger.warning("The engine has not reported the end of these runs: %s", ", ".join(ends))
        return bool(ends)

    def _be_told(self, run_id: str, wait: asyncio.Future[Output]) -> None:
        # A wait that broke says nothing about its child; it is polled instead.
        if not wait.cancelled() and wait.exception() is None:
            self._close(run_id, wait.result())

    def _close(self, run_id: str, end: Output) -> None:
        self._open.pop(run_id, None)
        if run_id not in self._ends:
            self._ends[run_id] = end
            if self._on_end is not None:
                self._on_end(run_id, end)
        if not self._open:
            self._all_over.set()
