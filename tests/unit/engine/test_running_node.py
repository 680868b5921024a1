"""The engine's answers about a child. `tests/integration` asks a real engine."""

from __future__ import annotations

from typing import Any

import pytest
from hatchet_sdk.clients.admin import RunStatus, TaskRunDetail, WorkflowRunDetail
from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus
from hatchet_sdk.exceptions import TaskRunError

from scythe.engine.running_node import end_of
from scythe.messages import decode_failure, encode_failure, find_payload
from scythe.outcomes import FailureKind, LeafFailure


def answer(state: str, *, done: bool = True, **tasks: dict[str, Any]) -> WorkflowRunDetail:
    return WorkflowRunDetail(
        external_id="run",
        status=RunStatus(state),
        task_runs={
            name: TaskRunDetail(
                external_id=name, readable_id=name, **{"status": V1TaskStatus(state), **task}
            )
            for name, task in tasks.items()
        },
        done=done,
    )


def test_a_child_that_ended_well_gives_what_its_task_gave() -> None:
    end = end_of(answer("COMPLETED", leaf={"output": {"a": 1}}))
    assert isinstance(end, dict)
    assert find_payload(end) == {"a": 1}


def test_a_workflow_of_several_tasks_gives_all_their_outputs() -> None:
    outputs = {"first": {"output": {"a": 1}}, "second": {"output": None}}
    assert end_of(answer("COMPLETED", **outputs)) == {"first": {"a": 1}, "second": {}}


def test_a_child_that_failed_gives_its_failure_whole() -> None:
    failure = LeafFailure(FailureKind.TIMEOUT, "TimeoutError", "too long\nfor it", "Traceback …")
    sent = TaskRunError(encode_failure(failure, 3, "run"), "LeafError", "trace", None)
    end = end_of(answer("FAILED", leaf={"error": sent.serialize(include_metadata=True)}))
    assert isinstance(end, BaseException)
    record = decode_failure(str(end))
    assert (record.outcome, record.attempts) == (failure, 3)


def test_one_failed_task_of_several_is_the_failure_of_all() -> None:
    failed = {"status": V1TaskStatus.FAILED, "error": "ValueError: no\ntrace"}
    end = end_of(answer("COMPLETED", first={"output": {"a": 1}}, second=failed))
    assert isinstance(end, TaskRunError)
    assert "ValueError: no" in str(end)


def test_a_failure_without_a_word() -> None:
    assert "failed" in str(end_of(answer("FAILED", leaf={})))


def test_a_child_that_was_cancelled_gives_nothing() -> None:
    assert end_of(answer("CANCELLED", leaf={})) == {}


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING"])
def test_a_child_that_is_not_over(state: str) -> None:
    assert end_of(answer(state, done=False, leaf={})) is None


def test_a_run_of_which_the_engine_knows_no_task_is_not_over() -> None:
    assert end_of(answer("COMPLETED")) is None
