"""Names of runs; a wrong one is shown as it was typed."""

from __future__ import annotations

import pytest

from scythe.catalog import RunName, parse_name
from scythe.errors import RunNotFoundError, SpecError
from scythe.semver import SemVer


def test_names() -> None:
    assert parse_name("@latest") == RunName()
    assert parse_name("throw@latest") == RunName("throw")
    assert parse_name("throw@v1.2.0") == RunName("throw", SemVer(major=1, minor=2))
    assert parse_name("throw/v1.2.0") == RunName("throw", SemVer(major=1, minor=2))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("@last", "'@last' does not name a run: after '@'.* Did you mean '@latest'"),
        ("throw@1.x", "'throw@1.x' does not name a run: .* Did you mean 'throw@latest'"),
        ("@v1.0.0", "'@v1.0.0' does not name a run: before '@' .* '@latest' is the latest"),
    ],
)
def test_a_wrong_name_is_shown_as_it_was_typed(name: str, text: str) -> None:
    with pytest.raises(RunNotFoundError, match=text):
        parse_name(name)


def test_a_name_that_is_no_path() -> None:
    with pytest.raises(SpecError, match="RUN 'a//b' is not a plain relative path"):
        parse_name("a//b")
