"""Order and time limits of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no unit test hang for long, and let the files that try many examples begin first."""
    longest = {item.path for item in items if _is_property(item)}
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1800 if _is_property(item) else 120))
    items.sort(key=lambda item: (_HERE in item.path.parents) * (2 - (item.path in longest)))


def _is_property(item: pytest.Item) -> bool:
    return hasattr(getattr(item, "obj", None), "hypothesis")
