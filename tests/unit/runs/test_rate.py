"""The rate of the last minutes: right for quick and slow leaves, and after waiting."""

from __future__ import annotations

import pytest

from scythe.runs.rate import RecentRate
from scythe.status import RunStatus


def status(at: float, done: int, **fields: object) -> RunStatus:
    values = {"experiment_id": "e", "state": "running", "total": 10**7, "started": 1.0}
    return RunStatus.model_validate({**values, "updated": at, "done": done, **fields})


@pytest.mark.parametrize("rate", [0.01, 1.0, 30_000.0])
def test_a_rate_that_changes_is_followed(rate: float) -> None:
    recent = RecentRate()
    done, at, shown = 0.0, 1.0, 0.0
    for speed, seconds in ((10 * rate, 3_600), (rate, 3_600)):
        for _ in range(seconds):
            at, done = at + 1, done + speed
            shown = recent.added_to(status(at, int(done))).rate
        assert shown == pytest.approx(speed, rel=0.25)


def test_time_that_a_run_waits_does_not_count() -> None:
    recent = RecentRate()
    for at in range(100):
        recent.added_to(status(10.0 + at, 10 * at))
    for at in range(1000):
        recent.added_to(status(110.0 + at, 990, waits_for="No worker is connected."))
    for at in range(20):
        last = recent.added_to(status(1200.0 + at, 990 + 10 * at))
    assert last.rate == pytest.approx(10.0)


def test_the_average_is_shown_at_the_beginning_and_at_the_end() -> None:
    recent = RecentRate()
    assert recent.added_to(status(11.0, 50)).rate == 5.0
    recent.added_to(status(111.0, 150))
    assert recent.added_to(status(201.0, 200, state="done")).rate == 1.0
