"""Messages arrive unchanged through Hatchet, and nothing else is taken for one."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from scythe.messages import (
    CANCELLED,
    LOST,
    SENTINEL,
    LeafInput,
    decode_failure,
    decode_result,
    encode_failure,
    encode_result,
    find_payload,
)
from scythe.outcomes import FailureKind, LeafFailure, LeafResult, LeafStats
from scythe.settings import ScytheStorageSettings

STATS = LeafStats(node="n", pid=7, started=1.5, finished=2.5, peak_rss=2**41)
RESULT = LeafResult(
    scalars='{"y": NaN, "z": [Infinity, null, "\\u0000"]}',
    files={"report": "s3://b/r%20x.html"},
    tables={"small": b"\x00\xff" * 100, "large": "scythe/x/large.arrow"},
    stats=STATS,
    scalars_key="scythe/x/scalars.json",
)
FAILURE = LeafFailure(
    kind=FailureKind.OUT_OF_MEMORY,
    type="MemoryError",
    message="all gone",
    traceback="Traceback\n  line 1\n",
    stats=STATS,
)


def test_a_result_comes_back_equal() -> None:
    output = encode_result(RESULT, 2, "run-1")
    text = json.dumps(output)
    assert "\x00" not in text
    assert "\\u0000" not in text.replace("\\\\", "")  # the engine's JSONB refuses it
    assert "NaN" not in json.dumps({**output, "record": None})
    record = decode_result(json.loads(text))
    assert (record.outcome, record.attempts, record.workflow_run_id) == (RESULT, 2, "run-1")


def test_nan_in_scalars_is_nan() -> None:
    record = decode_result(encode_result(RESULT, 1, "r"))
    assert isinstance(record.outcome, LeafResult)
    assert math.isnan(json.loads(record.outcome.scalars)["y"])


@pytest.mark.parametrize("kind", FailureKind)
def test_a_failure_of_each_kind_comes_back_equal(kind: FailureKind) -> None:
    failure = replace(FAILURE, kind=kind)
    record = decode_failure(encode_failure(failure, 3, "run-1"))
    assert (record.outcome, record.attempts, record.workflow_run_id) == (failure, 3, "run-1")


@pytest.mark.parametrize(
    "message",
    [
        *["", "a\x00b", "é😀中", "line\nline", "tab\t\r\n", '"quotes" \\back\\', "x" * 5000],
        *["scythe-failure: ", "scythe-failure: AAAA", "scythe-failure: eyJhIjogMX0=\nmore", "{}"],
    ],
    ids=lambda text: repr(text)[:25],
)
def test_any_message_comes_back(message: str) -> None:
    failure = replace(FAILURE, message=message, traceback=f"Traceback\n{message}")
    text = encode_failure(failure, 1, "r")
    assert "\x00" not in text
    assert decode_failure(text).outcome == failure


def test_a_message_that_holds_another_failure_is_not_taken_for_it() -> None:
    other = encode_failure(replace(FAILURE, message="not this one"), 9, "other")
    failure = replace(FAILURE, message=f"a leaf of mine failed: {other}")
    record = decode_failure(encode_failure(failure, 1, "r"))
    assert (record.outcome, record.attempts, record.workflow_run_id) == (failure, 1, "r")


def test_a_message_that_no_utf8_holds_is_escaped() -> None:
    failure = replace(FAILURE, message="file \udcff.txt", type="OSError")
    text = encode_failure(failure, 1, "r")
    text.encode()
    found = decode_failure(text).outcome
    assert isinstance(found, LeafFailure)
    assert found.message == "file \\udcff.txt"


def test_the_failure_reads_well_in_the_dashboard() -> None:
    first, *rest = encode_failure(FAILURE, 1, "r").splitlines()
    assert first == "out_of_memory: MemoryError: all gone [node n, pid 7]"
    assert rest[:2] == ["Traceback", "  line 1"]


def test_of_a_long_traceback_the_end_is_kept() -> None:
    failure = replace(FAILURE, traceback="start" + "x" * 100_000 + "ValueError: end")
    text = encode_failure(failure, 1, "r")
    assert len(text) < 50_000
    found = decode_failure(text).outcome
    assert isinstance(found, LeafFailure)
    assert found.traceback.endswith("ValueError: end")
    assert "start" not in found.traceback


def test_a_failure_inside_the_texts_of_the_sdk() -> None:
    text = encode_failure(FAILURE, 2, "r")
    for wrapped in (
        f"TaskRunError: {text}",
        f"[{text}]",
        f"{text}\nTraceback of the SDK\n",
        f"{text}\\n",
    ):
        assert decode_failure(wrapped).outcome == FAILURE


@pytest.mark.parametrize(
    ("text", "kind", "name", "message"),
    [
        (
            "Task exceeded timeout of 60s",
            FailureKind.TIMEOUT,
            "HatchetError",
            "Task exceeded timeout of 60s",
        ),
        ("ValueError: no\nTraceback", FailureKind.APPLICATION, "ValueError", "no"),
        ("", FailureKind.WORKER_CRASH, "WorkerLost", LOST.message),
        (
            "Task reached its maximum reassignment count",
            FailureKind.WORKER_CRASH,
            "WorkerLost",
            LOST.message,
        ),
        (
            "HatchetError: task was cancelled",
            FailureKind.CANCELLED,
            "Cancelled",
            CANCELLED.message,
        ),
        ("scythe-failure: !!!", FailureKind.APPLICATION, "scythe-failure", "!!!"),
        ("x\nscythe-failure: bm90IGpzb24=", FailureKind.APPLICATION, "HatchetError", "x"),
    ],
)
def test_texts_that_are_not_ours(text: str, kind: FailureKind, name: str, message: str) -> None:
    record = decode_failure(text)
    assert isinstance(record.outcome, LeafFailure)
    assert (record.outcome.kind, record.outcome.type, record.outcome.message) == (
        kind,
        name,
        message,
    )
    assert (record.attempts, record.workflow_run_id) == (0, None)


@pytest.mark.parametrize(
    ("output", "payload"),
    [
        ({SENTINEL: "done", "record": "{}"}, {SENTINEL: "done", "record": "{}"}),
        ({"task": {SENTINEL: "done"}}, {SENTINEL: "done"}),
        ({"task": 1}, {"task": 1}),
        ({"a": {}, "b": {}}, {"a": {}, "b": {}}),
        ({}, {}),
    ],
)
def test_the_output_of_the_task_is_found(output: dict, payload: dict) -> None:
    assert find_payload(output) == payload


def test_a_plain_spec_typed_into_the_dashboard() -> None:
    plain = {"experiment_id": "e", "sort_index": 4, "x": 1.5, "storage_settings": {"BUCKET": "b"}}
    found = LeafInput.model_validate(plain)
    assert json.loads(found.spec) == plain
    assert (found.experiment_id, found.sort_index) == ("e", 4)
    assert found.storage_settings == ScytheStorageSettings(BUCKET="b")


def test_a_leaf_input_comes_back_equal() -> None:
    given = LeafInput(spec="", spec_row=7, experiment_id="e", root_workflow_run_id="r")
    assert LeafInput.model_validate_json(given.model_dump_json()) == given
    given = LeafInput(spec='{"x": NaN, "t": "\x00"}', experiment_id="e")
    assert LeafInput.model_validate_json(given.model_dump_json()) == given
