"""No-op leaves per second: Scythe beside a bare Hatchet program, bare Ray and scythe-engine.

    python -m benchmarks.throughput [--leaves 600] [--slots 2 8 32] [--executors local ray]
        [--rounds 3] [--batched 100000] [--batch-size 5000] [--peer PYTHON]

The speed of a machine changes within minutes. So the workers of what is compared are up together,
and take short turns with the bare program; one that does not have its turn is paused. Scythe tells
the engine of leaves that end together in one message, the bare program of each, as the SDK does.
`--peer` names a Python in whose environment scythe-engine is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.runs import fill_slots, run_noops
from benchmarks.serving import LEAVES, paused, serving, worker_of
from benchmarks.table import Table
from scythe.environment import require_engine

_PEER = str(Path(__file__).with_name("peer.py"))
_WARM = 4  # leaves a slot, before those that count
_RAY_TASKS = 5000


@dataclass(frozen=True, slots=True)
class Side:
    """A contestant, which takes turns with the others.

    Attributes:
        workers: The processes of its workers.
        rate: Runs so many leaves; returns how many a second, over all.
    """

    workers: list[psutil.Process]
    rate: Callable[[int], float]


Up = AbstractContextManager[Side]


@contextmanager
def floor(name: str, slots: int) -> Generator[Side]:
    """Have the bare program up; with leaves on Ray if its name ends so."""
    from benchmarks.floor import Floor  # needs the environment

    program = Floor(name)
    program.register()

    def rate(leaves: int) -> float:
        begin = time.perf_counter()
        program.run(leaves)
        return leaves / (time.perf_counter() - begin)

    with ExitStack() as stack:
        command = ["-m", "benchmarks.floor", name]
        yield Side(
            [
                stack.enter_context(serving([*command, role, str(slots)]))
                for role in ("fan", "leaf")
            ],
            rate,
        )


@contextmanager
def scythe(slots: int, executor: str, size: int = 1) -> Generator[Side]:
    """Have Scythe up, which is measured from `allocate` to the final tables."""
    with serving(LEAVES, **worker_of(executor, slots)) as worker:
        fill_slots(slots)
        yield Side([worker], lambda leaves: run_noops(leaves, size).rate)


@contextmanager
def peer(python: str, slots: int) -> Generator[Side]:
    """Have scythe-engine up, which is slow, and runs a fifth of the leaves."""

    def rate(leaves: int) -> float:
        command = [python, _PEER, "run", str(max(1, leaves // 5))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        return float(done.stdout.split()[-1])

    with serving([_PEER, "worker"], python=python, SCYTHE_WORKER_SLOTS=str(slots)) as worker:
        yield Side([worker], rate)


def in_turns(sides: list[Side], slots: int, leaves: int, rounds: int) -> list[float]:
    """Return the rate of each over all rounds, each of the same number of leaves."""
    seconds = [0.0 for _ in sides]  # for a leaf, in all rounds
    for turn in range(-1, rounds):  # the first one does not count
        for which, side in enumerate(sides):
            with paused(one for other in sides if other is not side for one in other.workers):
                side.rate(_WARM * slots)
                seconds[which] += 1 / side.rate(leaves) if turn >= 0 else 0.0
    return [rounds / taken for taken in seconds]


def bare_ray_rate(tasks: int) -> float:
    """Return the rate of Ray without anything else."""
    command = [sys.executable, "-m", "benchmarks.bare_ray", str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return float(done.stdout.split()[-1])


def beside_floor(options: argparse.Namespace, slots: int) -> dict[str, Up]:
    """Return what has turns with the bare program."""
    found: dict[str, Up] = {}
    if "ray" in options.executors:
        found["bare Hatchet with bare Ray"] = floor("floor_ray", slots)
    for executor in options.executors:
        found[f"Scythe, {executor}"] = scythe(slots, executor)
    if options.peer:
        found["scythe-engine"] = peer(options.peer, slots)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=600)
    parser.add_argument("--slots", type=int, nargs="*", default=[2, 8, 32])
    parser.add_argument("--executors", nargs="+", default=["local", "ray"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batched", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=5000)
    parser.add_argument("--peer")
    options = parser.parse_args()
    require_engine()
    table = Table("what", "slots", "leaves/s", "bare Hatchet, in turns with it", "ratio")
    for slots in options.slots:
        for what, up in beside_floor(options, slots).items():
            with floor("floor", slots) as base, up as side:
                rates = in_turns([base, side], slots, options.leaves, options.rounds)
            table.row(what, slots, rates[1], rates[0], rates[1] / rates[0])
    if options.batched:
        for executor in options.executors:
            with scythe(2, executor, options.batch_size) as side:
                side.rate(2 * options.batch_size)
                rate = side.rate(options.batched)
            what = f"Scythe, {executor}, batches of {options.batch_size}"
            table.row(f"{what}, {options.batched:,} leaves", 2, rate, "", "")
        table.row("bare Ray", 2, bare_ray_rate(_RAY_TASKS), "", "")


if __name__ == "__main__":
    main()
