"""Failures of a run that is watched: the most frequent ones, and how many more there are."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from scythe.commands.overview import FailureNews
from scythe.status import RunStatus


class Failing:
    """A run with 18 kinds of failures."""

    experiment_id = "throw"

    def failures(self) -> pa.Table:
        rows = [{"count": 1, "leaf": leaf, "message": f"no {leaf}"} for leaf in range(18)]
        return pa.Table.from_pylist([{**row, "kind": "timeout", "type": "E"} for row in rows])


def test_failures_that_are_not_shown_are_counted() -> None:
    run: Any = Failing()
    news = FailureNews(run)
    lines = news.of(RunStatus(experiment_id="throw", state="done", total=20, done=2, failed=18))
    assert lines[0] == "failed: 1 x E: no 0 (timeout, leaf 0)"
    assert lines[3:] == ["and 15 more: scythe errors throw --group"]
    assert len(news.failures) == 18
