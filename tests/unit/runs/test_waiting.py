"""Waiting for a run whose status does not come in time."""

from __future__ import annotations

import threading

import pytest

from scythe.errors import RunTimeoutError
from scythe.runs import waiting
from scythe.runs.progress_bar import ProgressView
from scythe.runs.waiting import wait_for_run
from scythe.status import RunStatus
from scythe.storage.layout import RunLayout

RUN = "roof/v1.0.0/2026-01-01_00-00-00"


class Hanging:
    """Knows the counts of the bucket, and waits for an answer of the engine."""

    no_answer = "The engine does not answer."

    def __init__(self) -> None:
        self.stored = RunStatus(experiment_id=RUN, state="running", total=6, done=2, running=2)
        self.answered = threading.Event()

    def look(self) -> RunStatus:
        self.answered.wait(60)
        return self.stored


def test_the_counts_are_those_of_the_bucket_while_the_engine_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_PATIENCE", 0.05)
    watch = Hanging()
    seen: list[RunStatus] = []
    with pytest.raises(RunTimeoutError, match="2 done"):
        wait_for_run(
            watch,
            RunLayout("", RUN),
            view=ProgressView(None),
            timeout=0.2,
            on_progress=seen.append,
        )
    watch.answered.set()
    assert [(one.done, one.total, one.waits_for) for one in seen] == [(2, 6, watch.no_answer)]
