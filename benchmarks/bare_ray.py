"""Ray alone: `python -m benchmarks.bare_ray N` prints no-op tasks per second on two CPUs."""

from __future__ import annotations

import sys
import time
from typing import Any

import ray


def task(x: int) -> int:
    return 2 * x


if __name__ == "__main__":
    n = int(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    remote: Any = ray.remote(task)
    ray.get([remote.remote(i) for i in range(100)])
    begin = time.perf_counter()
    if ray.get([remote.remote(i) for i in range(n)]) != [2 * i for i in range(n)]:
        raise SystemExit("wrong results")
    print(n / (time.perf_counter() - begin))
    ray.shutdown()
