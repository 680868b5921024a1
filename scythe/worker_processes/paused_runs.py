"""Checks which runs are paused: their leaves are handed back to their scatter nodes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from scythe.errors import StorageError
from scythe.outcomes import StoreConfig
from scythe.scatter.pause import is_paused
from scythe.storage.layout import RunLayout
from scythe.storage.store import open_store

_FRESH_SECONDS = 1.0  # for which an answer of the bucket counts
_ANSWER_SECONDS = 15.0  # the first answer takes longer, since the client is made first
_AWAY_SECONDS = 30.0  # until a bucket that did not answer is asked again
_MOST_RUNS = 200
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="scythe-paused")
logger = logging.getLogger("scythe.worker")


@dataclass(slots=True)
class _Look:
    """The last answer of the bucket about a run."""

    ask_at: float = -math.inf
    is_paused: bool = False
    asking: asyncio.Task[None] | None = None


class PausedRuns:
    """The runs that are paused, asked for once a second at most."""

    def __init__(self) -> None:
        self._looks: dict[str, _Look] = {}

    async def has(self, config: StoreConfig, run_id: str) -> bool:
        """Return whether a run is paused; where the bucket does not answer, what it was before.

        Args:
            config: The bucket of the run.
            run_id: The run.
        """
        look = self._looks.get(run_id)
        if look is None:
            if len(self._looks) >= _MOST_RUNS:
                self._looks.clear()
            look = self._looks[run_id] = _Look()
        if look.asking is None and time.monotonic() >= look.ask_at:
            look.asking = asyncio.create_task(_ask(look, config, run_id))
        if look.asking is not None:
            await asyncio.shield(look.asking)
        return look.is_paused


async def _ask(look: _Look, config: StoreConfig, run_id: str) -> None:
    def ask() -> bool:
        store = open_store(config).with_patience(_ANSWER_SECONDS)
        return is_paused(store, RunLayout(config.prefix, run_id))

    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            look.is_paused = await asyncio.get_running_loop().run_in_executor(_threads, ask)
        look.ask_at = time.monotonic() + _FRESH_SECONDS
    except (StorageError, TimeoutError) as error:
        look.ask_at = time.monotonic() + _AWAY_SECONDS
        reason = str(error) or "the bucket does not answer"
        logger.warning("Cannot check whether run %s is paused: %s", run_id, reason)
    finally:
        look.asking = None
