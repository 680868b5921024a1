"""What all unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a unit test that hangs two minutes, and half an hour to one that tries many examples."""
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            is_property = hasattr(getattr(item, "obj", None), "hypothesis")
            item.add_marker(pytest.mark.timeout(1800 if is_property else 120))
