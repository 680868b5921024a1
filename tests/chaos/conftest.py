"""Fixtures of the chaos suite."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.running import pointed_at
from tests.chaos.bed import why_not
from tests.chaos.report import Report

_PAGE = "SCYTHE_CHAOS_PAGE"  # the file that a session in which nothing failed writes
_report = Report()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.chaos)


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int) -> None:
    if not _report.table:
        return
    terminalreporter.section("chaos")
    terminalreporter.write(_report.table)
    if exitstatus == 0 and (page := os.environ.get(_PAGE)):
        _report.write(Path(page))


@pytest.fixture(scope="session")
def report() -> Report:
    """The table of this session."""
    return _report


@pytest.fixture(scope="session")
def services(
    request: pytest.FixtureRequest,
) -> Generator[dict[str, str]]:
    """The local stack, with this process pointed at it; skips where no bed can be made."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    stack_env: dict[str, str] = request.getfixturevalue("stack_env")
    with pointed_at(stack_env, CHAOS_TAG=uuid.uuid4().hex[:8]):
        yield stack_env
