"""Leaves whose worker is stopped until their time is over. Run by `test_stopped.py`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scythe.errors import ExecutorError
from scythe.executor import ExecutorRequest, load_executor_factory
from tests.contract import experiments
from tests.contract.conftest import announced, call_of

LEAVES = 2
LIMIT = 2.0  # seconds
STOPPED = 4.0


def stop() -> None:
    """Stop this process for a while."""
    subprocess.Popen(["sh", "-c", f"sleep {STOPPED}; kill -CONT {os.getpid()}"])
    began = time.monotonic()
    os.kill(os.getpid(), signal.SIGSTOP)
    assert time.monotonic() - began >= STOPPED - 0.5


async def observe(name: str) -> list[str]:
    """Say what becomes of leaves that end while this process is stopped."""
    executor = load_executor_factory(name)(ExecutorRequest(slots=LEAVES))
    with tempfile.TemporaryDirectory() as folder:
        calls = [
            call_of(experiments.announces, number, folder=folder, timeout=LIMIT)
            for number in range(LEAVES)
        ]
        try:
            await asyncio.gather(*(executor.run(call_of(experiments.noop)) for _ in calls))
            tasks = [asyncio.ensure_future(executor.run(call)) for call in calls]
            for number in range(LEAVES):
                await announced(Path(folder), number)
            stop()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await executor.aclose()
    return [one.failure.summary if isinstance(one, ExecutorError) else "done" for one in found]


if __name__ == "__main__":
    print(*asyncio.run(observe(sys.argv[1])), sep="\n")
