"""No-op leaves per second: Scythe beside a bare Hatchet program, in one run.

    python -m benchmarks.throughput [--leaves 500] [--slots 2 8] [--executors local ray]

The local stack must run (`scythe dev`), or the usual variables name another engine and bucket.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager

from scythe.environment import prepare_environment
from scythe.processes import end_tree

_READY_SECONDS = 60.0


@contextmanager
def serving(command: Sequence[str], **variables: str) -> Generator[None]:
    """Run a worker while the block runs."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        end_tree(process.pid, grace=20.0)
        process.wait(timeout=10)


def timed(start: Callable[[int], None], leaves: int) -> float:
    """Return leaves per second of a run, after a small one that waits for the workers."""
    start(4)
    begin = time.perf_counter()
    start(leaves)
    return leaves / (time.perf_counter() - begin)


def floor_rate(leaves: int, slots: int) -> float:
    """Return the rate of the bare program."""
    from benchmarks import floor

    with ExitStack() as stack:
        for role in ("fan", "leaf"):
            stack.enter_context(serving(["-m", "benchmarks.floor", role, str(slots)]))
        return timed(floor.run, leaves)


def scythe_rate(leaves: int, slots: int, executor: str) -> float:
    """Return the rate of Scythe: from allocate to the final tables."""
    from benchmarks.noop import NoopInput, noop
    from scythe.experiments import BaseExperiment

    def start(n: int) -> None:
        specs = [NoopInput(experiment_id="", sort_index=i, x=i) for i in range(n)]
        run, reference = BaseExperiment(runnable=noop).allocate(specs, version="keep")
        result = reference.result(timeout=_READY_SECONDS + n)
        values = run.results("scalars").column("y").to_pylist()
        if result.n_failed or values != [2 * i for i in range(n)]:
            raise SystemExit(f"wrong result: {result.summary}")

    variables = {"SCYTHE_WORKER_EXECUTOR": executor, "SCYTHE_WORKER_SLOTS": str(slots)}
    with serving(["-m", "benchmarks.noop"], **variables):
        return timed(start, leaves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=500)
    parser.add_argument("--slots", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--executors", nargs="+", default=["local", "ray"])
    options = parser.parse_args()
    prepare_environment()
    print(f"{options.leaves} no-op leaves, leaves/s (ratio to the bare Hatchet program)")
    for slots in options.slots:
        floor = floor_rate(options.leaves, slots)
        print(f"{slots:>3} slots  bare Hatchet {floor:6.1f}")
        for executor in options.executors:
            rate = scythe_rate(options.leaves, slots, executor)
            print(f"{slots:>3} slots  {executor:<12} {rate:6.1f}  ({rate / floor:.2f})")


if __name__ == "__main__":
    main()
