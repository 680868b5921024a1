"""No-op leaves per second: Scythe beside a bare Hatchet program, bare Ray and scythe-engine.

    python -m benchmarks.throughput [--leaves 300] [--slots 2 8 32] [--executors local ray]
        [--rounds 3] [--batched 100000] [--batch-size 5000] [--peer PYTHON]

All take turns, some rounds of them: the speed of a machine changes within minutes. `--peer` names a
Python in whose environment scythe-engine is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.runs import fill_slots, run_noops
from benchmarks.serving import LEAVES, serving, worker_of
from benchmarks.table import Table
from scythe.environment import prepare_environment

_PEER = str(Path(__file__).with_name("peer.py"))
_WARM = 4  # leaves a slot, before those that count
_RAY_TASKS = 5000
_FLOOR = "bare Hatchet"


def floor_rate(leaves: int, slots: int, *more: str) -> float:
    """Return the rate of the bare program, with `ray` of one whose leaves are Ray tasks."""
    from benchmarks import floor

    with ExitStack() as stack:
        for role in ("fan", "leaf"):
            stack.enter_context(serving(["-m", "benchmarks.floor", role, str(slots), *more]))
        floor.run(_WARM * slots)  # the workers are there then, and their processes
        begin = time.perf_counter()
        floor.run(leaves)
        return leaves / (time.perf_counter() - begin)


def scythe_rate(leaves: int, slots: int, executor: str, size: int = 1) -> float:
    """Return the rate of Scythe, from `allocate` to the final tables."""
    with serving(LEAVES, **worker_of(executor, slots)):
        fill_slots(slots)
        run_noops(_WARM * slots, min(size, 2))
        return run_noops(leaves, size).rate


def bare_ray_rate(tasks: int) -> float:
    """Return the rate of Ray without anything else."""
    command = [sys.executable, "-m", "benchmarks.bare_ray", str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return float(done.stdout.split()[-1])


def peer_rate(python: str, leaves: int, slots: int) -> float:
    """Return the rate of scythe-engine."""
    with serving([_PEER, "worker"], python=python, SCYTHE_WORKER_SLOTS=str(slots)):
        command = [python, _PEER, "run", str(leaves)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        return float(done.stdout.split()[-1])


def measures_of(options: argparse.Namespace, slots: int) -> dict[str, Callable[[], float]]:
    """Return what takes turns with so many slots."""
    leaves = options.leaves
    measures: dict[str, Callable[[], float]] = {_FLOOR: partial(floor_rate, leaves, slots)}
    if "ray" in options.executors:
        measures["bare Hatchet with bare Ray"] = partial(floor_rate, leaves, slots, "ray")
    for executor in options.executors:
        measures[f"Scythe, {executor}"] = partial(scythe_rate, leaves, slots, executor)
    if options.peer:
        measures["scythe-engine"] = partial(peer_rate, options.peer, leaves // 5, slots)
    return measures


def in_turns(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Return the rate of each over all rounds, in which each runs the same number of leaves."""
    seconds = dict.fromkeys(measures, 0.0)  # for a leaf, in all rounds
    for _ in range(rounds):
        for what, measure in measures.items():
            seconds[what] += 1 / measure()
    return {what: rounds / taken for what, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=300)
    parser.add_argument("--slots", type=int, nargs="*", default=[2, 8, 32])
    parser.add_argument("--executors", nargs="+", default=["local", "ray"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batched", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=5000)
    parser.add_argument("--peer")
    options = parser.parse_args()
    prepare_environment()
    table = Table("what", "slots", "leaves/s", "ratio to bare Hatchet")
    for slots in options.slots:
        rates = in_turns(options.rounds, measures_of(options, slots))
        for what, rate in rates.items():
            table.row(what, slots, rate, rate / rates[_FLOOR])
    if options.batched:
        for executor in options.executors:
            rate = scythe_rate(options.batched, 2, executor, options.batch_size)
            what = f"Scythe, {executor}, batches of {options.batch_size}"
            table.row(f"{what}, {options.batched:,} leaves", 2, rate, "")
        table.row("bare Ray", 2, bare_ray_rate(_RAY_TASKS), "")


if __name__ == "__main__":
    main()
