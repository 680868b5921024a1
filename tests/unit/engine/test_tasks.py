"""Children are handed to the engine in messages that it takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scythe.engine.tasks import _slices

ENGINE_LIMIT = 4 * 2**20


@pytest.mark.parametrize("text", ["x" * 10, "x" * 4300, "x" * 100_000, "中" * 4000, "😀" * 60_000])
def test_no_message_is_too_large(text: str) -> None:
    items = [SimpleNamespace(input=text) for _ in range(2500)]
    slices = _slices(items)
    assert [item for part in slices for item in part] == items
    for part in slices:
        assert 0 < len(part) <= 1000
        assert sum(len(item.input.encode()) + 300 for item in part) < ENGINE_LIMIT
    if len(text) == 10:
        assert len(slices) == 3  # not one message for each


def test_inputs_may_be_missing() -> None:
    assert len(_slices([SimpleNamespace(input=None)])) == 1
    assert _slices([]) == []
