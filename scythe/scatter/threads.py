"""The threads in which scatter nodes call what blocks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Not the loop's own pool, in which the SDK waits for its next task.
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="scythe-node")


async def in_thread(function: Any, *args: Any) -> Any:
    """Call a blocking function in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_threads, function, *args)
