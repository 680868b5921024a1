"""One run of Scythe, from `allocate` to the final tables, with every row checked."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.compute as pc

from benchmarks.leaves import BurnInput, NoopInput, WaitInput, burn, noop, wait
from scythe.experiments import BaseExperiment, ExperimentRun

Size = int | Literal["auto"]
_LIMIT = 1800.0  # seconds
_START = 0.5  # seconds that the process of a slot takes at most to start


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a run.

    Attributes:
        run: The run.
        n_leaves: Number of leaves.
        allocate: Seconds until `allocate` came back.
        total: Seconds until the final tables were there.
        leaf_seconds: The time that all leaves took.
        memory: Peak resident memory in MB of this script until then: what looks at the results
            afterwards holds all rows.
    """

    run: ExperimentRun[Any, Any]
    n_leaves: int
    allocate: float
    total: float
    leaf_seconds: float
    memory: int

    @property
    def rate(self) -> float:
        """Leaves per second, over all."""
        return self.n_leaves / self.total


def run_noops(n: int, size: Size = 1) -> Measured:
    """Run leaves that do nothing."""
    return run_noops_of(range(n), size)


def run_noops_of(
    numbers: Sequence[int], size: Size = 1, *, reuse: ExperimentRun[Any, Any] | None = None
) -> Measured:
    """Run leaves that do nothing, but for those that are taken from another run.

    Args:
        numbers: What their specs have.
        size: The size of a batch.
        reuse: The other run.
    """
    n = len(numbers)
    specs = (NoopInput(experiment_id="", sort_index=i, x=x) for i, x in enumerate(numbers))
    measured = _run(noop, specs, n, size, reuse=reuse)
    table = measured.run.results("scalars")
    right = pc.all(pc.equal(table.column("y"), pc.multiply(table.column("x"), 2))).as_py()
    if table.num_rows != n or not right or not _all_there(table, n):
        raise SystemExit(f"wrong rows in {measured.run.experiment_id}")
    return measured


def fill_slots(slots: int) -> None:
    """Have a leaf in every slot at one time: the processes of all slots are there afterwards."""
    seconds = 1 + _START * slots  # until the last process is there: the first ones take no other
    specs = (WaitInput(experiment_id="", sort_index=i, seconds=seconds) for i in range(slots))
    _run(wait, specs, slots, 1)


def run_burns(n: int, seconds: float, size: Size = 1) -> tuple[Measured, float]:
    """Run leaves that compute; return also which share of two processors the user's code had."""
    specs = (BurnInput(experiment_id="", sort_index=i, seconds=seconds) for i in range(n))
    measured = _run(burn, specs, n, size)
    leaves = measured.run.results("leaves")
    begun, ended = (
        pc.cast(leaves.column(name), "int64").to_numpy() / 1e6 for name in ("started", "finished")
    )
    computed = pc.sum(measured.run.results("scalars").column("cpu_seconds")).as_py()
    return measured, computed / (2 * (ended.max() - begun.min()))


def _run(
    experiment: Any,
    specs: Iterator[Any],
    n: int,
    size: Size,
    *,
    reuse: ExperimentRun[Any, Any] | None = None,
) -> Measured:
    begin = time.perf_counter()
    run, reference = BaseExperiment(runnable=experiment).allocate(
        specs, version="keep", batch_size=size, reuse=reuse
    )
    allocated = time.perf_counter() - begin
    result = reference.result(timeout=_LIMIT)
    total = time.perf_counter() - begin
    if result.n_failed or result.n_leaves != n:
        raise SystemExit(f"wrong result: {result.summary}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Measured(run, n, allocated, total, result.seconds, memory)


def _all_there(table: Any, n: int) -> bool:
    numbers = table.column("sort_index").to_numpy()
    return bool((numbers[1:] - numbers[:-1] == 1).all()) and (numbers[0], len(numbers)) == (0, n)
