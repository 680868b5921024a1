"""Fixtures for all tests. Real services start once for each worker of pytest, on free ports."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import session

# `make test` tries 200 examples for each property, CI 500.
_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("default", max_examples=200, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("ci", parent=settings.get_profile("default"), max_examples=500)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# These take minutes: they begin first, or a worker would be left alone with one at the end.
_LONGEST = {
    "acceptance/test_worker_lifecycle.py",
    "contract/test_executors.py",
    "contract/test_matrix.py",
    "integration/test_ends.py",
    "integration/test_ray_cluster.py",
}


def pytest_configure(config: pytest.Config) -> None:
    """Begin this process of the run."""
    session.configure(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End this process of the run."""
    if hasattr(config, "workerinput"):
        session.end_worker()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first."""
    items.sort(key=lambda item: f"{item.path.parent.name}/{item.path.name}" not in _LONGEST)


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """Fail a test that leaves the environment changed, and restore it for the next."""
    before = session.watched_environment()
    yield
    changed = session.restore_environment(before)
    assert not changed, f"the test left these changed: {', '.join(changed)}"


@pytest.fixture(scope="session")
def stack_home() -> Path:
    """The folder of a running local stack: PostgreSQL, engine, S3, bucket, token.

    A stack that runs already (`SCYTHE_TEST_STACK_HOME`) is used and left running; else one is
    started for this worker. The process that started the workers removes it.
    """
    from scythe.stack import up

    is_alone = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") == "1"
    given = os.environ.get(session.GIVEN) if is_alone else None
    folder = session.session_folder()
    home = Path(given) if given else Path(tempfile.mkdtemp(prefix="stack-", dir=folder))
    up(home, report=print)
    return home


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
