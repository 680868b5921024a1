"""Advice about failed leaves: the command that runs them again."""

from __future__ import annotations

import pickle

import pytest

from scythe.errors import NothingToRetryError
from scythe.runs.advice import retry_advice

OWN = {"kind": "application_error", "type": "ValueError"}
CANCELLED = {"kind": "cancelled", "type": "LeafCancelled"}
LOST = {"kind": "worker_crash", "type": "WorkerLost"}


@pytest.mark.parametrize(
    ("failures", "text"),
    [
        ([], ""),
        ([OWN, OWN], "Run the failed leaves again: scythe retry throw"),
        ([CANCELLED, LOST], "Run the missing leaves again: scythe retry throw --missing"),
        (
            [OWN, LOST],
            "Run the failed and missing leaves again: scythe retry throw --failed --missing",
        ),
    ],
)
def test_the_command_fits_the_failures(failures: list[dict[str, str]], text: str) -> None:
    assert retry_advice("throw", failures) == text


def test_nothing_to_retry_names_the_argument_or_the_option() -> None:
    error = NothingToRetryError("throw", 0, 73)
    assert str(error) == (
        "Nothing to retry in throw: no leaves failed by their own code, 73 leaves were cancelled "
        "or lost their place (they count as failed; run them with missing=True)."
    )
    assert "run them with --missing)" in error.text("--failed", "--missing")
    assert "3 leaves failed by their own code (run them again with failed=True), no" in str(
        NothingToRetryError("throw", 3, 0)
    )
    assert str(NothingToRetryError("throw", 0, 0)).endswith("throw: no leaf failed.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
