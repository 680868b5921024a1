"""Wait for the children of a scatter node, and ask after those of which nothing is heard.

The engine tells a node when a child is over. An engine that is killed may lose that for good: the
child is over, and no wait for it ever ends. So a node that has had no news for a while asks after a
few of its open children, and less and less often while they are not over.
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

QUIET = 10.0  # seconds without news before it is asked
LONGEST = 60.0
_FEW = 4  # a node may have 1,000 children that run for hours
logger = logging.getLogger(__name__)


class OpenChildren:
    """The children that a node waits for.

    Args:
        waits: For each child, by its run, what ends with its output, or with the exception of one
            that failed, when the engine tells so. They are left as they are.
        find_end: Asks the engine for the same; None while the child is not over.
        quiet: Seconds without news after which is asked.
        longest: Seconds between two questions at most.
    """

    def __init__(
        self,
        waits: Mapping[str, asyncio.Future[Output]],
        find_end: FindEnd,
        *,
        quiet: float = QUIET,
        longest: float = LONGEST,
    ) -> None:
        self._find_end = find_end
        self._quiet = quiet
        self._longest = longest
        self._order = tuple(waits)
        self._ends: dict[str, Output] = {}
        self._open = dict.fromkeys(waits)  # those to ask after next are first
        self._all_over = asyncio.Event()
        for run_id, wait in waits.items():
            wait.add_done_callback(partial(self._be_told, run_id))

    async def outputs(self) -> list[Output]:
        """Wait until all are over; return their outputs, or exceptions, in the order of `waits`."""
        pause = self._quiet
        while self._open:
            before = len(self._open)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._all_over.wait()
            if len(self._open) < before:
                pause = self._quiet
            elif await self._ask_after_some():
                pause = 0.0  # what was lost with one was likely lost with others
            else:
                pause = max(self._quiet, min(1.5 * pause, self._longest))
        return [self._ends[run_id] for run_id in self._order]

    async def _ask_after_some(self) -> bool:
        """Ask after the next children; return whether any was over."""
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
            logger.warning("The engine has not told that these are over: %s", ", ".join(ends))
        return bool(ends)

    def _be_told(self, run_id: str, wait: asyncio.Future[Output]) -> None:
        # A wait that broke says nothing about its child, which is asked after.
        if not wait.cancelled() and wait.exception() is None:
            self._close(run_id, wait.result())

    def _close(self, run_id: str, end: Output) -> None:
        self._ends.setdefault(run_id, end)
        self._open.pop(run_id, None)
        if not self._open:
            self._all_over.set()
