"""Runs whose leaves leave a trace, what became of them, and what may be left over."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.errors import ResultNotFoundError
from tests.acceptance.running import wait_until
from tests.chaos.bed import Bed
from tests.chaos.nodes import Node

if TYPE_CHECKING:
    from tests.chaos.report import Report

WINDOW = 8  # leaves by which the pace is measured
SLOWER = 1.5  # as slow a window may be, against those before the fault, to count as recovered


@dataclass(frozen=True)
class Outcome:
    """The measured outcome of a run.

    Attributes:
        leaves: Its leaves.
        lost: Those that are neither in `scalars` nor in `errors`.
        twice: Those that are there more than once.
        failed: Those in `errors`.
        reruns: Further executions of leaves, their traces counted.
        recovered: Seconds from the fault until leaves finished at the pace before.
        over: Seconds from the fault to the end of the run.
    """

    leaves: int
    lost: int
    twice: int
    failed: int
    reruns: int
    recovered: float
    over: float


class TracedRun:
    """A run of a traced experiment, started.

    Args:
        experiment: The experiment.
        folder: Where the trace is written.
        count: Its leaves.
        fields: Makes further fields of the spec with a number.
        options: Further options of `allocate`.
    """

    def __init__(
        self,
        experiment: Any,
        folder: Path,
        count: int,
        fields: Callable[[int], dict[str, Any]] = lambda _: {},
        **options: Any,
    ) -> None:
        from scythe.experiments import BaseExperiment
        from tests.chaos.app.main import TracedInput

        self.count, self.trace = count, folder / f"{uuid.uuid4().hex}.trace"
        self.trace.touch()
        trace = str(self.trace)
        specs = [
            TracedInput(experiment_id="x", sort_index=number, trace=trace, **fields(number))
            for number in range(count)
        ]
        self.run, self.ref = BaseExperiment(runnable=experiment).allocate(
            specs, version="bumppatch", **options
        )

    def times(self, what: str) -> list[float]:
        """Return when leaves `began` or `ended`, in order."""
        lines = [line.split() for line in self.trace.read_text().splitlines()]
        return sorted(float(line[2]) for line in lines if line[1] == what)

    def wait_ended(self, count: int) -> None:
        """Wait until so many leaves have ended."""
        wait_until(lambda: len(self.times("ended")) >= count, f"{count} leaves have ended", 120)

    def wait_began(self, number: int) -> None:
        """Wait until a leaf has begun."""
        line = f"{number} began "
        wait_until(lambda: f"\n{line}" in f"\n{self.trace.read_text()}", f"leaf {number}", 120)

    def wait_over(self, seconds: float, state: str) -> None:
        """Wait until the run is over; one that takes longer is cancelled."""
        from scythe.engine.client import cancel_run

        try:
            status = self.run.wait(timeout=seconds)
        except BaseException:
            cancel_run(self.ref.workflow_run_id)
            raise
        assert status.state == state, status
        counts = (status.total, status.done + status.failed, status.running, status.waiting)
        assert counts == (self.count, self.count, 0, 0), status

    def _reruns(self) -> int:
        began = [line for line in self.trace.read_text().splitlines() if " began " in line]
        return len(began) - len({line.split()[0] for line in began})

    def numbers(self, table: str) -> list[int]:
        """Return the leaves of a final table."""
        try:
            return self.run.results(table).to_pandas().reset_index()["sort_index"].tolist()
        except ResultNotFoundError:
            return []

    def survives(
        self,
        case: str,
        fault: Callable[[], None],
        bed: Bed,
        report: Report,
        *,
        within: float = 180,
    ) -> None:
        """Break something now, report the case, and check that every leaf ended well, once."""
        began = time.time()
        fault()
        outcome = self.outcome(began, within)
        report.add(case, outcome)
        assert (outcome.lost, outcome.twice, outcome.failed) == (0, 0, 0)
        wait_clean(bed)

    def outcome(self, fault: float, within: float, state: str = "done") -> Outcome:
        """Wait until the run is over and say what became of its leaves.

        Args:
            fault: When the fault was.
            within: Seconds that it may still take.
            state: The state in which it ends.
        """
        self.wait_over(within, state)
        over = time.time() - fault
        failed = self.numbers("errors")
        found = Counter([*self.numbers("scalars"), *failed])
        assert sorted(self.numbers("leaves")) == list(range(self.count))
        return Outcome(
            leaves=self.count,
            lost=len(set(range(self.count)) - found.keys()),
            twice=sum(times > 1 for times in found.values()),
            failed=len(failed),
            reruns=self._reruns(),
            recovered=seconds_to_recover(self.times("ended"), fault),
            over=over,
        )


def seconds_to_recover(ended: Sequence[float], fault: float) -> float:
    """Return when, after a fault, leaves began to finish again at the pace before.

    That is at the first of `WINDOW` leaves in a row that took no more than `SLOWER` times as long
    as such a row took (in the median) before the fault; or at the last leaf if there is none.

    Args:
        ended: When leaves ended, in order.
        fault: When the fault was.
    """
    before = [one for one in ended if one <= fault]
    after = [one for one in ended if one > fault]
    if not after:
        return 0.0  # the fault came too late to be felt
    if len(before) < WINDOW:
        return after[-1] - fault  # there was no pace yet
    usual = sorted(_windows(before))[(len(before) - WINDOW) // 2]
    quick = (n for n, took in enumerate(_windows(after)) if took <= SLOWER * usual)
    return after[next(quick, -1)] - fault


def _windows(times: Sequence[float]) -> list[float]:
    pairs = zip(times, times[WINDOW - 1 :], strict=False)
    return [last - first for first, last in pairs]


def wait_clean(bed: Bed) -> None:
    """Wait until nothing of a run is left on the nodes that are alive."""
    for node in bed.nodes.values():
        if node.is_alive:
            with suppress(AssertionError):  # what is left says more
                wait_until(lambda node=node: not left_over(node), f"{node.name} is clean", 40)
            left = left_over(node)
            assert left == [], f"{node.name}: {left}"


def left_over(node: Node) -> list[str]:
    """Return what leaves have left on a node: Ray tasks, processes, temporary files, slots."""
    left = [f"Ray task in process {one.pid}" for one in node.running_leaves()]
    left += [f"process {one.pid}" for one in node.find(lambda line: line == ["sleep", "600"])]
    temporary = (node.folder / "tmp").glob("scythe-leaf-*/*")
    left += [f"file {path}" for path in temporary if path.name != ".in-use"]
    return left + _slots_in_use(node)


def _slots_in_use(node: Node) -> list[str]:
    from scythe.engine.client import client

    left: list[str] = []
    for row in client().workers.list().rows or []:
        if not row.name.startswith(f"chaos-{node.name}-") or row.status != "ACTIVE":
            continue
        for kind, slots in (row.slot_config or {}).items():
            if slots.available is not None and slots.available < slots.limit:
                left.append(f"{slots.limit - slots.available} {kind} slot(s) of {row.name}")
    return left


def check_failures(run: TracedRun, outcome: Outcome, bed: Bed, kind: str) -> None:
    """Check that every leaf ended once, and that those which failed are of one kind."""
    assert (outcome.lost, outcome.twice) == (0, 0)
    errors = run.run.errors().to_pandas()
    assert set(errors["kind"]) == {kind}, errors["message"].tolist()
    wait_clean(bed)
