"""Why a run waits, told from the workers that are connected."""

from __future__ import annotations

from typing import Any

import pytest

from scythe.engine.lookup import ConnectedWorker
from scythe.runs.explain import LeafTask, explain_wait
from scythe.scatter.models import NODE_TASK
from scythe.status import RunStatus

ROOF = LeafTask("scythe_experiment_simulate_roof")
GPU = LeafTask("simulate_roof", {"has_gpu": "yes"})


def worker(*tasks: str, **fields: Any) -> ConnectedWorker:
    values: dict[str, Any] = {"labels": {}, "slots": 4, "free_slots": 4, **fields}
    return ConnectedWorker("w", frozenset(tasks), **values)


FAN = worker(NODE_TASK)
WALL, OTHER = worker("scythe_experiment_simulate_wall"), worker("simulate_wall")
SERVES = "scythe_experiment_simulate_roof"
CASES: dict[str, tuple[list[ConnectedWorker], LeafTask, str]] = {
    "none": (
        [],
        ROOF,
        "No worker is connected. Start one that serves 'simulate_roof': python main.py.",
    ),
    "others": (
        [FAN, WALL, OTHER],
        ROOF,
        (
            "No worker serves 'simulate_roof'. 2 workers are connected; they serve "
            "'simulate_wall'. Start one that imports it: python main.py."
        ),
    ),
    "another": (
        [FAN, worker("b", "a")],
        ROOF,
        (
            "No worker serves 'simulate_roof'. 1 worker is connected; it serves 'a', 'b'. "
            "Start one that imports it: python main.py."
        ),
    ),
    "fan only": (
        [FAN],
        ROOF,
        (
            "No worker serves 'simulate_roof'. 1 worker is connected; it serves nothing but "
            "scatter nodes. Start one that imports it: python main.py."
        ),
    ),
    "no fan": (
        [worker(SERVES)],
        ROOF,
        (
            "No worker serves scatter nodes. 1 worker is connected; it serves 'simulate_roof'. "
            "Start one without SCYTHE_WORKER_DOES_FAN=false."
        ),
    ),
    "no label": (
        [FAN, worker("simulate_roof"), worker("simulate_roof", labels={"has_gpu": "no"})],
        GPU,
        (
            "No worker that serves 'simulate_roof' has the label has_gpu=yes, which it needs. "
            "2 workers serve it without."
        ),
    ),
    "paused": (
        [FAN, worker("simulate_roof", is_paused=True, labels={"has_gpu": "yes"})],
        GPU,
        (
            "1 worker serves 'simulate_roof', but takes no leaves now: the place where leaves run "
            "is away, the worker is stopping, or it was drained (scythe workers)."
        ),
    ),
    "busy": (
        [FAN, worker(SERVES, free_slots=0), worker(SERVES, free_slots=0)],
        ROOF,
        "All 8 slots for 'simulate_roof' are taken.",
    ),
    "a workflow needs no fan": ([worker("two_steps")], LeafTask("two_steps", is_alone=True), ""),
    "well": ([FAN, worker("simulate_roof", labels={"has_gpu": "yes", "more": "1"})], GPU, ""),
    "upper case": ([FAN, worker("roof")], LeafTask("Roof"), ""),
}


@pytest.mark.parametrize("what", CASES)
def test_why_a_run_waits(what: str) -> None:
    workers, task, reason = CASES[what]
    status = RunStatus(experiment_id="roof/v1.0.0/d", total=6)
    assert explain_wait(workers, task, status) == reason


def test_leaves_that_run_are_news_enough() -> None:
    status = RunStatus(experiment_id="roof/v1.0.0/d", total=6, running=2)
    assert explain_wait([FAN, worker(SERVES, free_slots=0)], ROOF, status) == ""


def test_many_names_are_cut() -> None:
    many = worker(*(f"e{number:02d}" for number in range(30)))
    reason = explain_wait([FAN, many], ROOF, RunStatus(experiment_id="roof/v1.0.0/d"))
    assert "they serve" not in reason
    assert reason.endswith("'e08', 'e09' and 20 more. Start one that imports it: python main.py.")
