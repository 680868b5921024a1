"""Counts of a run."""

from __future__ import annotations

from scythe.status import NodeCounts, RunStatus


def status(**fields: object) -> RunStatus:
    values = {"experiment_id": "wall/v1.0.0/d", "total": 10, "started": 100.0, "updated": 104.0}
    return RunStatus.model_validate({**values, **fields})


def test_what_a_status_says() -> None:
    running = status(state="running", done=3, failed=1, running=2)
    assert str(running) == "wall/v1.0.0/d: running, 3 done, 1 failed, 2 running of 10 leaves"
    assert running.waiting == 4
    assert running.rate == 1.0
    assert running.seconds_left == 6.0
    assert not running.is_over
    assert status(state="done").is_over
    assert status(state="failed").is_over
    assert status(state="not_started").is_over
    waiting = status(state="running", waits_for="No worker is connected.")
    assert str(waiting).endswith("of 10 leaves. No worker is connected.")


def test_leaves_of_another_run_are_not_in_the_rate() -> None:
    assert status(done=8, failed=1, reused=7).rate == 0.5
    assert status(done=7, reused=7).rate == 0.0
    assert status(done=7, reused=7).seconds_left is None


def test_before_anything_is_known() -> None:
    queued = RunStatus(experiment_id="e")
    assert (queued.state, queued.rate, queued.seconds_left, queued.waiting) == (
        "queued",
        0.0,
        None,
        0,
    )
    assert status(updated=100.0).rate == 0.0
    assert status(done=11).waiting == 0


def test_a_status_comes_back_equal() -> None:
    given = status(state="failed", message="no \x00 disk")
    assert RunStatus.model_validate_json(given.model_dump_json()) == given


def test_counts_add_up() -> None:
    one = NodeCounts(done=1, failed=2, running=3, code_mismatches=4)
    total = one.plus(NodeCounts(done=10, failed=20, running=30, code_mismatches=40))
    assert total == NodeCounts(done=11, failed=22, running=33, code_mismatches=44)


def test_a_status_says_how_many_leaves_ran_other_code() -> None:
    said = str(status(state="done", done=10, code_mismatches=4))
    assert said.endswith("of 10 leaves, 4 ran with other code than was allocated")
    assert "code" not in str(status(state="done", done=10))
