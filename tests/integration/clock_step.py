"""Leaves on Ray while the wall clock of their machine steps. Run by `test_clock_step.py`.

It runs in a mount namespace of its own: what tells processes there when the machine was booted, by
the wall clock, can be changed without harm to others.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from scythe.errors import ExecutorError
from scythe.executor import Executor, ExecutorRequest, load_executor_factory
from scythe.outcomes import LeafResult
from tests.contract import experiments
from tests.contract.conftest import announced, call_of, is_alive

STEP = 10  # seconds
HEALTHY = 40


def step_the_clock(folder: Path) -> None:
    """Let the kernel say that it was booted later, as it does when the clock is put forward."""
    text = Path("/proc/stat").read_text()
    later = re.sub(r"(?m)^btime (\d+)$", lambda m: f"btime {int(m[1]) + STEP}", text)
    (folder / "stat").write_text(later)
    subprocess.run(["mount", "--bind", str(folder / "stat"), "/proc/stat"], check=True)


async def observe(executor: Executor, folder: Path) -> dict[str, Any]:
    """Say what becomes of leaves that ran when the clock stepped, and of those after it."""
    limited = call_of(experiments.hangs, 0, how="sleep", folder=str(folder), timeout=3.0)
    endless = call_of(experiments.hangs, 1, how="sleep", folder=str(folder), timeout=600.0)
    tasks = [asyncio.ensure_future(executor.run(call)) for call in (limited, endless)]
    processes = [await announced(folder, number) for number in range(2)]
    step_the_clock(folder)
    await asyncio.wait({tasks[0]}, timeout=20)
    kind = "still running"
    if tasks[0].done():
        error = tasks[0].exception()
        kind = error.failure.kind.value if isinstance(error, ExecutorError) else repr(error)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=20)
    alive = [pid for one in processes for pid in one.values() if is_alive(pid)]
    (folder / "tries").touch()
    calls = [call_of(experiments.many, n, folder=str(folder)) for n in range(HEALTHY)]
    found = await asyncio.gather(*map(executor.run, calls), return_exceptions=True)
    lost = [repr(one) for one in found if not isinstance(one, LeafResult)]
    return {"kind": kind, "alive": alive, "lost": lost}


def main(folder: Path) -> None:
    """Print what was observed, as one line of JSON."""
    executor = load_executor_factory("ray")(ExecutorRequest(slots=2))
    with asyncio.Runner() as runner:
        try:
            seen = runner.run(observe(executor, folder))
        finally:
            runner.run(executor.aclose())
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
