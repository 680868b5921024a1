"""When a process is made as it was, between the leaves of a batch."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scythe.leaf.state import DUMP_SIGNAL, ProcessState


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr("scythe.leaf.state.time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


@pytest.fixture
def state(tmp_path: Path, now: list[float]) -> Iterator[ProcessState]:
    with (tmp_path / "crash").open("ab", buffering=0) as crash:
        yield ProcessState(crash)
        faulthandler.unregister(DUMP_SIGNAL)
        faulthandler.enable(sys.__stderr__)


def test_after_very_short_leaves_it_is_looked_at_now_and_then(
    state: ProcessState, now: list[float]
) -> None:
    assert state.is_due(0.00001), "it never was"
    state.restore_soon()
    assert not state.is_due(0.00001)
    assert state.is_due(0.001), "a process may have been started in that time"
    now[0] += 0.06
    assert state.is_due(0.00001)


def test_a_timer_is_gone_at_once_and_a_handler_soon(state: ProcessState, now: list[float]) -> None:
    state.restore_soon()
    usual = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 60.0)
    state.restore_soon()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is not usual
    now[0] += 0.06
    state.restore_soon()
    assert signal.getsignal(signal.SIGALRM) is usual
