"""Tasks that the engine counts and the worker does not have."""

from __future__ import annotations

from collections.abc import Sequence

from scythe.engine.lost_tasks import LostTasks, WorkerSight

LOOKS = 6


def look_at(*sights: WorkerSight | None, waits: bool = False) -> list[int]:
    following = iter(sights)
    tasks = LostTasks(lambda: next(following), waits=waits)
    return [tasks.found() for _ in sights]


def after_reconnecting(counts: Sequence[tuple[int, int]]) -> list[int]:
    later = [WorkerSight(1, counted, here) for counted, here in counts]
    return look_at(WorkerSight(0, 0, 0), *later)[1:]


def test_a_difference_that_stays_after_the_connection_was_renewed() -> None:
    assert after_reconnecting([(3, 1)] * LOOKS) == [0] * (LOOKS - 1) + [2]


def test_a_difference_of_a_moment_is_no_loss() -> None:
    moment = [*[(3, 1)] * (LOOKS - 1), (3, 3)]
    assert after_reconnecting(moment * 20) == [0] * (20 * LOOKS)


def test_a_difference_that_was_hidden_for_a_moment() -> None:
    seen = [(2, 1), (1, 1), *[(2, 1)] * LOOKS]
    assert after_reconnecting(seen) == [0] * (len(seen) - 1) + [1]


def test_where_the_engine_counts_none_none_is_lost() -> None:
    assert after_reconnecting([(0, 0), *[(2, 1)] * LOOKS]) == [0] * (LOOKS + 1)


def test_it_is_not_looked_for_ever() -> None:
    assert after_reconnecting([(2, 2)] * 60 + [(2, 1)] * LOOKS) == [0] * (60 + LOOKS)


def test_without_a_new_connection_nothing_can_be_lost() -> None:
    assert look_at(*[WorkerSight(0, 3, 1)] * (2 * LOOKS)) == [0] * (2 * LOOKS)


def test_an_engine_that_does_not_answer_says_nothing() -> None:
    seen = WorkerSight(1, 3, 1)
    found = look_at(WorkerSight(0, 0, 0), seen, None, None, *[seen] * (LOOKS - 1))
    assert found == [0] * (LOOKS + 2) + [2]


def test_nodes_that_wait_are_handed_on_whenever_the_connection_was_renewed() -> None:
    before, after = WorkerSight(0, 2, 2), WorkerSight(1, 2, 2)
    assert look_at(before, before, after, after, waits=True) == [0, 0, 2, 0]
    assert look_at(before, WorkerSight(1, 0, 0), waits=True) == [0, 0]


def test_nodes_that_never_arrived_are_found_as_leaves_are() -> None:
    found = look_at(WorkerSight(0, 0, 0), *[WorkerSight(1, 2, 0)] * LOOKS, waits=True)
    assert found == [0] * LOOKS + [2]
