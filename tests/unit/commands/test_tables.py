"""Leaves that a table of results lacks are counted."""

from __future__ import annotations

import pytest

from scythe.commands.tables import missing_note
from scythe.status import RunStatus


@pytest.mark.parametrize(
    ("done", "failed", "text"),
    [
        (100, 0, ""),
        (82, 18, "82 of 100 leaves; 18 failed: see scythe errors throw"),
        (82, 0, "82 of 100 leaves; 18 are not over"),
        (80, 2, "80 of 100 leaves; 18 are not over, 2 failed: see scythe errors throw"),
    ],
)
def test_missing_leaves_are_counted(done: int, failed: int, text: str) -> None:
    status = RunStatus(experiment_id="throw", total=100, done=done, failed=failed)
    assert missing_note(status) == text
