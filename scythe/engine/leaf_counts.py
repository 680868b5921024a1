"""Counts the leaves of a worker for the SDK's `/metrics`.

A child process of the SDK serves the metrics, beside its health check. The counts are in memory
that both processes share, so counting costs nothing and the metrics are always current.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import sharedctypes
from multiprocessing.context import get_spawning_popen
from typing import Any

from scythe.errors import ExecutorError
from scythe.executor import Capacity, Executor
from scythe.outcomes import FailureKind, LeafCall, LeafReply

_GAUGES = {
    "scythe_slots": "Leaves that this worker runs at one time.",
    "scythe_leaves_in_flight": "Leaves that Hatchet gave to this worker and that have not ended.",
    "scythe_leaves_queued": "Leaves in flight that wait for a CPU.",
}
_COUNTERS = {
    "scythe_leaves_done": "Attempts of leaves that succeeded.",
    "scythe_leaf_seconds": "Seconds for which leaves were in flight.",
}
_FAILED = "scythe_leaves_failed"
_KINDS = tuple(kind.value for kind in FailureKind)
_PLACE = {name: n for n, name in enumerate((*_GAUGES, *_COUNTERS, *_KINDS))}

_shared: Any = None  # the numbers of this process, by _PLACE


class CountingExecutor:
    """Counts the leaves that run in an executor.

    Args:
        executor: The wrapped executor.

    Attributes:
        running: Number of leaves that it has now.
    """

    def __init__(self, executor: Executor) -> None:
        global _shared
        self._executor = executor
        self.running = 0
        self._numbers = _shared = sharedctypes.RawArray("d", len(_PLACE))
        self._show_running()

    @property
    def capacity(self) -> Capacity:
        """The capacity of the wrapped executor."""
        return self._executor.capacity

    @property
    def waiting(self) -> int:
        """Number of leaves that it has now and that wait for a CPU."""
        capacity = self.capacity
        return max(0, self.running - (capacity.places or capacity.slots))

    async def astart(self) -> None:
        """Start to watch the capacity."""
        await self._executor.astart()

    async def run(self, call: LeafCall) -> LeafReply:
        """Run one attempt of one leaf, see `scythe.executor.Executor`."""
        began = time.monotonic()
        self.running += 1
        self._show_running()
        try:
            result = await self._executor.run(call)
        except ExecutorError as error:
            self._add(error.failure.kind.value)
            raise
        else:
            self._add("scythe_leaves_done")
            return result
        finally:
            self.running -= 1
            self._show_running()
            self._add("scythe_leaf_seconds", time.monotonic() - began)

    async def aclose(self) -> None:
        """Close the wrapped executor."""
        await self._executor.aclose()

    def _show_running(self) -> None:
        self._numbers[_PLACE["scythe_slots"]] = self.capacity.slots
        self._numbers[_PLACE["scythe_leaves_in_flight"]] = self.running
        self._numbers[_PLACE["scythe_leaves_queued"]] = self.waiting

    def _add(self, name: str, amount: float = 1.0) -> None:
        self._numbers[_PLACE[name]] += amount


def shared_counts() -> Any:
    """Return the shared counts to pass to a process that is being spawned, or None."""
    return _shared if get_spawning_popen() is not None else None


def serve_counts(numbers: Any) -> None:
    """Add the counts of a worker process to the metrics of this process.

    Args:
        numbers: The result of `shared_counts` in the worker process.
    """
    from prometheus_client import REGISTRY

    with suppress(ValueError):  # already added
        REGISTRY.register(_Collector(numbers))


class _Collector:
    """Reads the counts at each request for metrics."""

    def __init__(self, numbers: Any) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(name, text, value=self._numbers[_PLACE[name]])
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(name, text, value=self._numbers[_PLACE[name]])
        failed = CounterMetricFamily(_FAILED, "Attempts of leaves that failed.", labels=["kind"])
        for kind in _KINDS:
            failed.add_metric([kind], self._numbers[_PLACE[kind]])
        yield failed
