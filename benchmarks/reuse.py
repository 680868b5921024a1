"""A run that takes 100,000 leaves from another and runs 1,000 new ones, beside these alone.

    python -m benchmarks.reuse [--known 100000] [--new 1000] [--batch-size auto] [--rounds 3]
        [--executors local]

Both in turns; "allowed" is 1.5 times what the new ones take alone, and 10 s.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.runs import run_noops, run_noops_of
from benchmarks.serving import LEAVES, serving, worker_of
from benchmarks.table import Table
from scythe.environment import require_engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--known", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=1000)
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--executors", nargs="+", default=["local"])
    options = parser.parse_args()
    require_engine()
    size: Any = "auto" if options.batch_size == "auto" else int(options.batch_size)
    table = Table(
        *["executor", "known", "new", "round", "new alone [s]", "with reuse [s]"],
        *["of it allocate [s]", "allowed [s]"],
    )
    for executor in options.executors:
        with serving(LEAVES, **worker_of(executor, 2)):
            run_noops(4)
            source = run_noops(options.known, 5000).run
            for number in range(options.rounds):
                first = options.known + number * options.new
                new = range(first, first + options.new)
                alone = run_noops_of(new, size)
                both = run_noops_of([*range(options.known), *new], size, reuse=source)
                counts = [options.known, options.new, number + 1]
                seconds = [alone.total, both.total, both.allocate, 1.5 * alone.total + 10]
                table.row(executor, *counts, *seconds)


if __name__ == "__main__":
    main()
