"""The lines that a worker prints once it is ready."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scythe.outcomes import StoreConfig
from scythe.worker_processes.process_spec import ProcessReady, ProcessSpec


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A worker process that is ready.

    Attributes:
        plan: Its work.
        ready: Its slots, labels and placement.
        pid: Its process id; 0 if it was not started because no leaf would reach it.
    """

    plan: ProcessSpec
    ready: ProcessReady
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker that is ready.

    Attributes:
        parts: Its worker processes; the first one has the worker's name.
        engine: Address and version of the engine.
        store: The bucket, or None for a worker that does not use it.
        needs: By experiment, the labels that a worker must have to take its leaves.
        weights: By experiment, the slots that one of its leaves holds.
    """

    children: Sequence[ProcessFacts]
    engine: str
    store: StoreConfig | None = None
    needs: Mapping[str, Mapping[str, str]] | None = None
    weights: Mapping[str, int] | None = None


def banner(facts: WorkerFacts) -> str:
    """Return the lines that describe a worker that is ready."""
    main = facts.children[0]
    lines = {
        "serves": _serves(facts),
        "executor": _executor(main),
        "slots": _slots(facts),
        "labels": _pairs(main.ready.labels),
        "engine": facts.engine,
        "bucket": _bucket(facts.store),
        "processes": ", ".join(
            [
                f"worker {os.getpid()}",
                *(f"{child.plan.title} {child.pid}" for child in facts.children if child.pid),
            ]
        ),
        "to stop": f"Ctrl-C; running leaves get {main.plan.shutdown_timeout:g} s",
    }
    body = "".join(f"\n  {name:<10} {text}" for name, text in lines.items() if text)
    waiting = "".join(f"\n  {line}" for line in _not_taken(facts))
    return f"{main.plan.name} is ready.{body}{waiting}"


def _serves(facts: WorkerFacts) -> str:
    names = {
        "leaves of": [ref.experiment for child in facts.children for ref in child.plan.experiments],
        "tasks": [ref.experiment for child in facts.children for ref in child.plan.workflows],
    }
    fan = (
        ["scatter and gather"] if any(child.plan.role == "fan" for child in facts.children) else []
    )
    return "; ".join(fan + [f"{what} {', '.join(many)}" for what, many in names.items() if many])


def _executor(child: ProcessFacts) -> str:
    if child.plan.role != "leaf":
        return ""
    return (
        f"{child.plan.executor}, {child.ready.place}" if child.ready.place else child.plan.executor
    )


def _slots(facts: WorkerFacts) -> str:
    kinds: list[str] = []
    for child in facts.children:
        if not child.pid:
            continue  # not started
        if child.plan.role == "fan":
            kinds.append(f"{child.plan.durable_slots} for scatter and gather")
        else:
            source = f" ({child.ready.source})" if child.ready.source else ""
            kinds.append(f"{child.ready.slots}{source}")
    return ", ".join(kinds)


def _bucket(store: StoreConfig | None) -> str:
    if store is None:
        return ""
    where = f" at {store.endpoint_url}" if store.endpoint_url else ""
    return f"s3://{store.bucket}/{store.prefix}{where}"


def _not_taken(facts: WorkerFacts) -> list[str]:
    """Name the experiments whose leaves will wait for another worker."""
    lines: list[str] = []
    for child in facts.children:
        for ref in child.plan.experiments:
            needed = (facts.needs or {}).get(ref.experiment, {})
            missing = {k: v for k, v in needed.items() if child.ready.labels.get(k) != v}
            if missing:
                lines.append(
                    f"{ref.experiment} needs {_pairs(missing)}, which this worker does not have; "
                    "its leaves wait for another worker."
                )
                continue
            weight = (facts.weights or {}).get(ref.experiment, 1)
            if weight > child.ready.slots:
                lines.append(
                    f"A leaf of {ref.experiment} needs {weight} slots, and this worker has "
                    f"{child.ready.slots}; its leaves wait for another worker."
                )
    return lines


def _pairs(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
