"""Which share of two processors the user's code gets, by the length of a leaf.

    python -m benchmarks.compute [--seconds 0.01 0.1 1 10] [--executors local ray]
        [--sizes 1 auto] [--prefetch 0 4] [--work 40]

Leaves compute in pure Python. The share is their processor time, over the time between the start of
the first and the end of the last one, over two. Prefetch is the number of slots beyond the two
CPUs: SCYTHE_RAY_PREFETCH with Ray, a larger SCYTHE_WORKER_SLOTS with the executor local.
"""

from __future__ import annotations

import argparse

from benchmarks.runs import Size, run_burns
from benchmarks.serving import LEAVES, serving, worker_of
from benchmarks.table import Table
from scythe.environment import require_engine

_LEAST_LEAVES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.01, 0.1, 1.0, 10.0])
    parser.add_argument("--executors", nargs="+", default=["local", "ray"])
    parser.add_argument("--sizes", nargs="+", default=["1", "auto"])
    parser.add_argument("--prefetch", nargs="+", default=["0", "4"])
    parser.add_argument("--work", type=float, default=40.0, help="seconds of computing in a run")
    options = parser.parse_args()
    require_engine()
    table = Table("executor", "prefetch", "batch size", "leaf [s]", "leaves", "share of 2 CPUs")
    for executor in options.executors:
        for prefetch in options.prefetch:
            more = int(prefetch) if executor == "local" else 0
            variables = worker_of(executor, 2 + more, SCYTHE_RAY_PREFETCH=prefetch)
            with serving(LEAVES, **variables):
                run_burns(4, 0.01)
                for text in options.sizes:
                    size: Size = "auto" if text == "auto" else int(text)
                    for seconds in options.seconds:
                        n = max(_LEAST_LEAVES, round(options.work / seconds))
                        n = min(n, 1000) if size == 1 else n
                        _, share = run_burns(n, seconds, size)
                        table.row(executor, prefetch, text, seconds, n, share)


if __name__ == "__main__":
    main()
