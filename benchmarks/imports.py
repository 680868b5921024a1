"""The time until the first leaf runs: imports, the local stack, the worker.

python -m benchmarks.imports [--executors local ray]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.runs import run_noops
from benchmarks.serving import LEAVES, serving, worker_of
from benchmarks.table import Table
from scythe.environment import prepare_environment

_MODULES = [
    *["scythe", "scythe.base", "scythe.registry", "scythe.experiments", "scythe.worker"],
    *["scythe.leaf.run", "scythe.leaf.batch", "scythe.engine.client", "hatchet_sdk", "ray"],
]
_REPEATS = 5


def import_seconds(module: str) -> float:
    """Return the shortest of some fresh imports, without the start of Python."""

    def run(code: str) -> float:
        times: list[float] = []
        for _ in range(_REPEATS):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
            times.append(time.perf_counter() - begin)
        return min(times)

    return max(0.0, run(f"import {module}") - run("pass"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executors", nargs="+", default=["local", "ray"])
    options = parser.parse_args()
    table = Table("what", "seconds")
    for module in _MODULES:
        table.row(f"import {module}", import_seconds(module))
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "scythe.cli", "dev"], check=True, capture_output=True)
    table.row("`scythe dev`, when it runs already", time.perf_counter() - begin)
    prepare_environment()
    for executor in options.executors:
        begin = time.perf_counter()
        with serving(LEAVES, **worker_of(executor, 2)):
            run_noops(1)
            table.row(
                f"start a worker, and the first leaf, {executor}", time.perf_counter() - begin
            )
            table.row(f"one more leaf, {executor}", run_noops(1).total)


if __name__ == "__main__":
    main()
