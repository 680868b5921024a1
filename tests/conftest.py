"""Fixtures for all tests. Real services start once for the whole session, on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `make test` tries 200 examples for each property, CI 2,000.
_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("default", max_examples=200, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("ci", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") else "default")

_GIVEN = "SCYTHE_TEST_STACK_HOME"


def pytest_configure() -> None:
    """Take Ctrl-C, also where the shell started the tests in the background: they send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack_home() -> Iterator[Path]:
    """The folder of a running local stack: PostgreSQL, engine, S3, bucket, token.

    A stack that runs already (`SCYTHE_TEST_STACK_HOME`) is used and left running; else one is
    started in a folder of its own, and removed afterwards.
    """
    from scythe.stack import reset, up

    given = os.environ.get(_GIVEN)
    home = Path(given) if given else Path(tempfile.mkdtemp(prefix="scythe-test-", dir="/tmp"))
    try:
        up(home, report=print)
        yield home
    finally:
        if not given:
            reset(home)
            shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def stack_env(stack_home: Path) -> dict[str, str]:
    """The environment of the running stack."""
    from scythe.stack import running

    found = running(stack_home)
    assert found is not None
    return dict(found.env)


@pytest.fixture
def stack(stack_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The running stack, with this process (and its children) pointed at it."""
    for name, value in stack_env.items():
        monkeypatch.setenv(name, value)
    return stack_env
