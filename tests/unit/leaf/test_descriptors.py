"""A process says when leaves have left too much open in it."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from scythe.leaf.descriptors import Descriptors


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors that are closed in the end, and a small limit meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    found: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        yield found
    finally:
        for number in found:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_half_of_what_was_free_is_enough(opened: list[int]) -> None:
    gap = os.dup(1)
    descriptors = Descriptors()
    free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(list(Path("/dev/fd").iterdir()))
    opened += [os.dup(1) for _ in range(free // 3)]
    os.close(gap)
    assert not descriptors.run_short()
    opened += [os.dup(1) for _ in range(free // 3)]
    os.close(opened.pop(0))
    assert descriptors.run_short()


def test_there_is_none_left(opened: list[int]) -> None:
    descriptors = Descriptors()
    with contextlib.suppress(OSError):
        while True:
            opened.append(os.dup(1))
    assert descriptors.run_short()


def test_without_a_limit_there_is_always_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    monkeypatch.setattr("scythe.leaf.descriptors._MANY", 256)
    assert not Descriptors().run_short()


def test_a_leaf_closed_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    open_ = os.open
    monkeypatch.setattr(os, "open", lambda *args: made.append(open_(*args)) or made[-1])
    descriptors = Descriptors()
    os.close(made[0])
    assert descriptors.run_short()
