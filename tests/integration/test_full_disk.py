"""The disk of the S3 server is full: it is said, and what waits goes on when there is room."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scythe.errors import RunTimeoutError, StorageError
from scythe.processes.blocking import start_call
from scythe.storage import store as storage
from scythe.storage.store import Store
from tests.acceptance.running import wait_until, worker
from tests.integration.conftest import APP
from tests.small_s3 import SmallS3, small_s3

NO_ROOM = "the disk of the S3 server is full, make room on it"


@pytest.fixture
def full(
    stack: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SmallS3]:
    """A small S3 server that this process, and the workers that it starts, use."""
    with small_s3(tmp_path / "s3") as small:
        for name, value in small.env.items():
            monkeypatch.setenv(name, value)
        yield small


def test_a_full_disk_is_told_from_a_store_that_is_away(full: SmallS3) -> None:
    assert full.store.probe("probe") == ""
    full.fill()
    with pytest.raises(StorageError, match=NO_ROOM):
        full.store.put_bytes("large", bytes(300_000))
    assert NO_ROOM in full.store.probe("probe")
    full.make_room()
    assert full.store.probe("probe") == ""
    assert list(full.store.list_keys("")) == []


def test_a_worker_writes_when_there_is_room(
    full: SmallS3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full.fill()  # which would wait for room too
    monkeypatch.setattr(storage, "_room_patience", 60.0)  # as `wait_for_room` has it
    writing = start_call(lambda: Store(full.store.config, patience=0).put_bytes("x", bytes(9999)))
    wait_until(lambda: NO_ROOM in caplog.text, "the log names the full disk", 20)
    assert not writing.done()
    full.make_room()
    assert writing.result(30) == "s3://small/x"


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_run_goes_on_when_there_is_room(
    full: SmallS3, start: Any, tmp_path: Path, batch_size: int
) -> None:
    run, _ = start([{"x": float(i)} for i in range(6)], batch_size=batch_size)
    full.fill()
    with worker(APP, tmp_path / "log", SCYTHE_WORKER_SLOTS="2"):
        wait_until(lambda: NO_ROOM in run.status().waits_for, "the status says why", 60)
        assert NO_ROOM in str(run.status())
        with pytest.raises(RunTimeoutError, match=NO_ROOM):
            run.wait(timeout=15)
        wait_until(lambda: NO_ROOM in (tmp_path / "log").read_text(), "the worker says why", 60)
        full.make_room()
        status = run.wait(timeout=120)
    assert (status.state, status.done, status.waits_for) == ("done", 6, "")
    assert run.results().num_rows == 6
    assert time.time() - status.updated < 120
