"""Records that every executor can carry."""

from __future__ import annotations

import pickle

import pytest

from scythe.outcomes import (
    CodeRef,
    FailureKind,
    LeafCall,
    LeafFailure,
    LeafResources,
    LeafResult,
    LeafStats,
    StoreConfig,
)

CONFIG = StoreConfig("b", access_key_id="AKIA", secret_access_key="hush", session_token="shh")
CALL = LeafCall("id", CodeRef("e", "m", "q", pickled=b"hush"), "{}", "e/v1/d", CONFIG)


@pytest.mark.parametrize(
    "record",
    [
        CALL,
        CONFIG,
        LeafResources(cpus=0.5, custom={"a": 1}),
        LeafResult(
            "{}", {"a": "s3://b/k"}, {"t": b"\x00", "u": "key"}, LeafStats("n", 1, 1.0, 2.0)
        ),
        LeafFailure(FailureKind.NODE_LOST, "T", "m", "t", LeafStats("n", 1)),
    ],
    ids=lambda record: type(record).__name__,
)
def test_records_travel_by_pickle(record: object) -> None:
    assert pickle.loads(pickle.dumps(record)) == record


def test_keys_are_in_no_repr() -> None:
    assert "hush" not in repr(CALL)
    assert "AKIA" not in repr(CALL)
    assert "shh" not in repr(CONFIG)


def test_failure_kinds() -> None:
    assert {kind for kind in FailureKind if kind.is_final} == {
        FailureKind.ENVIRONMENT,
        FailureKind.INFEASIBLE,
        FailureKind.CODE_MISMATCH,
        FailureKind.SCHEMA_MISMATCH,
    }
    assert FailureKind("application_error") is FailureKind.APPLICATION


def test_summaries_and_seconds() -> None:
    failure = LeafFailure(FailureKind.TIMEOUT, "Timeout", "over 60 s")
    assert failure.summary == "timeout: Timeout: over 60 s"
    here = LeafFailure(FailureKind.TIMEOUT, "T", "m", stats=LeafStats("node-1", 9))
    assert here.summary == "timeout: T: m [node node-1, pid 9]"
    assert LeafStats(started=2.0, finished=1.0).seconds == 0.0
    assert LeafStats(started=1.0, finished=2.5).seconds == 1.5
