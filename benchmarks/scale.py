"""The needs of a run as it grows: seconds, memory, objects, rows of the engine's database.

    python -m benchmarks.scale [--leaves 1000 10000 100000 1000000] [--executors local ray]
        [--batch-size 5000]

Specs come from an iterator; each size is allocated by a script of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.runs import run_noops
from benchmarks.serving import LEAVES, peak_memory, serving, worker_of
from benchmarks.table import Table
from scythe.environment import require_engine
from scythe.settings import store_config
from scythe.storage.store import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, nargs="+", default=[1000, 10**4, 10**5, 10**6])
    parser.add_argument("--executors", nargs="+", default=["local", "ray"])
    parser.add_argument("--batch-size", default="5000")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    require_engine()
    size: Any = "auto" if options.batch_size == "auto" else int(options.batch_size)
    if options.one:
        print(json.dumps(measure(options.one, size)))
        return
    table = Table(
        *["executor", "leaves", "allocate [s]", "all [s]", "leaves/s", "objects/leaf"],
        *["bytes/leaf", "script [MB]", "fan [MB]", "leaf worker [MB]", "leaf process [MB]"],
    )
    for executor in options.executors:
        for leaves in options.leaves:
            with serving(LEAVES, **worker_of(executor, 2)) as worker:
                run_noops(4)
                began = time.perf_counter()
                one = [sys.executable, "-m", "benchmarks.scale", "--one", str(leaves)]
                done = subprocess.run(
                    [*one, "--batch-size", options.batch_size],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                found = json.loads(done.stdout.splitlines()[-1])
                peaks = peak_memory(worker)
                assert time.perf_counter() > began
            table.row(
                executor,
                leaves,
                *(found[name] for name in ("allocate", "total", "rate", "objects", "bytes", "rss")),
                *(peaks.get(name, "") for name in ("fan", "leaf worker", "leaf process")),
            )


def measure(leaves: int, size: Any) -> dict[str, float]:
    """Run so many leaves, and look at what the run left in the bucket."""
    found = run_noops(leaves, size)
    store = open_store(store_config())
    pages = store.client.get_paginator("list_objects_v2").paginate(
        Bucket=store.bucket, Prefix=found.run.layout.prefix
    )
    sizes = [item["Size"] for page in pages for item in page.get("Contents", [])]
    return {
        "allocate": found.allocate,
        "total": found.total,
        "rate": found.rate,
        "objects": len(sizes) / leaves,
        "bytes": sum(sizes) / leaves,
        "rss": found.memory,
    }


if __name__ == "__main__":
    main()
