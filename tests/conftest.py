"""Fixtures for all tests. Real services start once for the whole session, on free ports."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack_here import environment_of, stack_here


def pytest_configure() -> None:
    """Take Ctrl-C, also where the shell started the tests in the background: they send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack_home() -> Iterator[Path]:
    """The folder of a running local stack: this session's own, or one that was handed on to it."""
    with stack_here() as home:
        yield home


@pytest.fixture(scope="session")
def stack_env(stack_home: Path) -> dict[str, str]:
    """The environment of the running stack."""
    return environment_of(stack_home)


@pytest.fixture
def stack(stack_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The running stack, with this process (and its children) pointed at it."""
    for name, value in stack_env.items():
        monkeypatch.setenv(name, value)
    return stack_env
