"""The journal of a batch: nothing that is over is lost, whenever its writer dies."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scythe.leaf.journal import (
    Journal,
    Part,
    count_leaves,
    read_journal,
    read_lines,
    time_left,
    with_failure,
)
from scythe.messages import LeafRecord
from scythe.outcomes import FailureKind, LeafFailure, LeafResult, LeafStats

STATS = LeafStats("node 1", 77, 1000.125, 1001.25, 2**33)
DONE = LeafRecord(LeafResult('{"y":1.5,"n":NaN}', {}, {}, STATS), 1, "run-0")
FULL = LeafRecord(
    LeafResult(
        json.dumps({"t": "☃ \n"}), {"f": "s3://b/k"}, {"a": b"\x00\xff", "b": "key"}, STATS, "k"
    ),
    2,
    'odd "id"',
)
FAILED = LeafRecord(LeafFailure(FailureKind.TIMEOUT, "T", "m\n☃", "trace", STATS), 3, "run-2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_what_is_written_is_read(path: Path) -> None:
    with Journal(path) as journal:
        for record in (DONE, FULL, FAILED):
            journal.begin(5.0)
            journal.add(record)
        text = read_journal(path)
    assert text is not None
    assert count_leaves(text) == 3
    parts, records = read_lines(text)
    assert parts == []
    assert records[1:] == [FULL, FAILED]
    first = records[0].outcome
    assert isinstance(first, LeafResult)
    assert math.isnan(json.loads(first.scalars)["n"])
    assert not path.exists(), "who ends well leaves none"
    assert read_journal(path) is None


def test_stored_parts_count_and_their_lines_are_not_read_again(path: Path) -> None:
    with Journal(path) as journal:
        journal.add(DONE)
        journal.add(DONE)
        journal.add_part(Part("k1", 2, 1, 0.5))
        journal.add(FAILED)
        text = read_journal(path)
    assert text is not None
    assert count_leaves(text) == 3
    assert read_lines(text) == ([Part("k1", 2, 1, 0.5)], [FAILED])


def test_a_line_that_was_being_written_does_not_count(path: Path) -> None:
    with Journal(path) as journal:
        journal.add(DONE)
        before = path.read_bytes()
        journal.add(FULL)
        after = path.read_bytes()
        changed = [i for i in range(len(after)) if before[i : i + 1] != after[i : i + 1]]
        first = before.index(b"\n") + 1
        for cut in range(first, max(changed) + 1):  # the head, which says what counts, comes last
            path.write_bytes(before[:first] + after[first:cut] + before[cut:])
            text = read_journal(path)
            assert text is not None
            assert count_leaves(text) == len(read_lines(text)[1]) == 1
        for cut in range(max(changed)):
            path.write_bytes(after[:cut])
            assert count_leaves(read_journal(path) or b"") <= 1


def test_a_journal_grows(path: Path) -> None:
    large = LeafRecord(LeafResult(json.dumps({"t": "x" * 300_000}), {}, {}, STATS), 1, "run-1")
    with Journal(path) as journal:
        for _ in range(3000):
            journal.add(DONE)
        journal.add(large)
        journal.add(FULL)
        text = read_journal(path) or b""
    assert count_leaves(text) == 3002
    assert read_lines(text)[1][-2:] == [large, FULL]


def test_what_was_written_outlives_a_process_that_is_killed(path: Path) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from tests.unit.leaf.test_journal import DONE, Journal
        journal = Journal(Path({str(path)!r}))
        os.closerange(3, 256)  # as a leaf may
        for _ in range(5000):
            journal.add(DONE)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_lines(read_journal(path) or b"")[1] == [DONE] * 5000


def test_half_of_a_surrogate_pair(path: Path) -> None:
    odd = LeafRecord(LeafResult("{}", {"f": "s3://b/\ud800"}, {}, STATS), 1, "run-1")
    with Journal(path) as journal:
        journal.add(odd)
        assert read_lines(read_journal(path) or b"")[1] == [odd]


def test_another_process_goes_on_where_one_ended(path: Path) -> None:
    with Journal(path) as journal:
        journal.add(DONE)
        text = read_journal(path) or b""
    text = with_failure(text, LeafFailure(FailureKind.WORKER_CRASH, "SIGSEGV", "gone"), 2, "run-1")
    with Journal(path, text) as journal:
        journal.add(FAILED)
        again = read_journal(path) or b""
    _, records = read_lines(again)
    assert [record.workflow_run_id for record in records] == ["run-0", "run-1", "run-2"]
    assert [record.attempts for record in records] == [1, 2, 3]


def test_the_time_of_the_step_that_goes_on(path: Path) -> None:
    assert time_left(path) is None
    with Journal(path) as journal:
        journal.begin(100.0)
        assert 99 < (time_left(path) or 0) <= 100
        journal.add(DONE)
        journal.begin(-1.0)
        assert (time_left(path) or 0) <= -1
    path.write_bytes(b"")
    assert time_left(path) is None
