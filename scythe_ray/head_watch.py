"""Notice that the head of the cluster is gone: Ray itself says so late, or never."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

_EVERY = 3.0  # seconds
_PATIENCE = 5  # connections in a row that fail
_TIMEOUT = 3.0
logger = logging.getLogger("scythe.ray")


async def watch_head(
    address: str, on_lost: Callable[[], Awaitable[None]], *, every: float = _EVERY
) -> None:
    """Connect to the head now and then, for as long as it answers.

    Args:
        address: `host:port`.
        on_lost: Awaited once when it did not answer several times in a row.
        every: Seconds between two connections.
    """
    failed = 0
    while failed < _PATIENCE:
        await asyncio.sleep(every)
        failed = 0 if await head_answers(address) else failed + 1
    logger.error("The Ray head at %s does not answer any more.", address)
    await on_lost()


async def head_answers(address: str) -> bool:
    """Return whether something takes connections at an address."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
