"""Three nodes with a worker on each: leaves run where they may, also when a node dies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.chaos.bed import Bed
from tests.chaos.report import Report
from tests.chaos.runs import Outcome, TracedRun, seconds_to_recover, wait_clean

CPUS = {"a": 2, "b": 1, "c": 1}


def test_three_nodes_one_of_which_is_killed_half_way(
    services: dict[str, str], tmp_path: Path, report: Report
) -> None:
    from tests.chaos.app.main import on_gpu, plain

    with Bed(services) as bed:
        a, b, c = (bed.add(name) for name in CPUS)
        a.start_ray(f"--num-cpus={CPUS['a']}")
        b.start_ray(f"--num-cpus={CPUS['b']}", "--num-gpus=1", head=a)
        c.start_ray(f"--num-cpus={CPUS['c']}", head=a)
        workers = [node.start_worker() for node in (a, b, c)]
        for worker in workers:
            worker.wait_ready()
        # Each leaf with a GPU has a process of its own, which takes a second or two to start.
        gpu = TracedRun(on_gpu, tmp_path, 20, lambda _: {"seconds": 1.0})
        rest = TracedRun(plain, tmp_path, 280, lambda _: {"seconds": 0.4})
        rest.wait_ended(140)
        c.wait_leaf()
        fault = time.time()
        c.kill()
        outcomes = [rest.outcome(fault, 180), gpu.outcome(fault, 180)]
        wait_clean(bed)
        for worker in workers[:2]:
            worker.stop()
    ended = sorted([*gpu.times("ended"), *rest.times("ended")])
    both = _sum(outcomes, seconds_to_recover(ended, fault))
    report.add("one of three nodes killed", both)
    assert (both.leaves, both.lost, both.twice, both.failed) == (300, 0, 0, 0)

    on_the_gpu, others = _leaves(gpu), _leaves(rest)
    assert set(on_the_gpu["node"]) == {"b"}
    assert {"a", "c"} <= set(others["node"]) <= set(CPUS)
    everything = [*_spans(on_the_gpu), *_spans(others)]
    for name, cpus in CPUS.items():
        assert _most_at_once([one for one in everything if one[2] == name]) == cpus
    assert _most_at_once(everything) == sum(CPUS.values())
    # And that was no single moment: before the fault, the CPUs without GPU were mostly busy.
    busy = [one for one in everything if one[2] != "b"]
    assert _share_busy(busy, CPUS["a"] + CPUS["c"], fault) > 0.3


def _sum(outcomes: list[Outcome], recovered: float) -> Outcome:
    counts = ("leaves", "lost", "twice", "failed", "reruns")
    sums = (sum(getattr(one, name) for one in outcomes) for name in counts)
    return Outcome(*sums, recovered, max(one.over for one in outcomes))


def _leaves(run: TracedRun) -> Any:
    return run.run.results("leaves").to_pandas()


def _spans(leaves: Any) -> list[tuple[float, float, str]]:
    began, ended = (
        leaves[name].map(lambda one: one.timestamp()) for name in ("started", "finished")
    )
    return list(zip(began, ended, leaves["node"], strict=True))


def _changes(spans: list[tuple[float, float, str]]) -> list[tuple[float, int]]:
    """Return when one more leaf runs, and when one less; at one time, ends come first."""
    return sorted([(span[0], 1) for span in spans] + [(span[1], -1) for span in spans])


def _most_at_once(spans: list[tuple[float, float, str]]) -> int:
    running = most = 0
    for _, change in _changes(spans):
        running += change
        most = max(most, running)
    return most


def _share_busy(spans: list[tuple[float, float, str]], cpus: int, until: float) -> float:
    """Return in which share of the time, from the first leaf on, all CPUs had a leaf."""
    changes = [change for change in _changes(spans) if change[0] < until]
    running, busy, before = 0, 0.0, changes[0][0]
    for moment, change in changes:
        busy += (moment - before) * (running >= cpus)
        running, before = running + change, moment
    return busy / (before - changes[0][0])
