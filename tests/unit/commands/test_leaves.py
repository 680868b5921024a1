"""Columns of the list of errors: the fields of the specs, as far as there is room."""

from __future__ import annotations

from typing import Any

from scythe.commands.leaves import spec_columns

ROW: dict[str, Any] = {
    "kind": "application_error",
    "type": "ValueError",
    "message": "m" * 60,
    "leaf": 41,
    "traceback": "t" * 500,
    "attempts": 1,
    "experiment_id": "throw",
    "sort_index": 41,
    "speed": 12.5,
    "notes": "n" * 30,
    "angle": 45,
    "surface": "concrete",
}


def test_all_fields_where_nothing_is_shortened() -> None:
    assert spec_columns([ROW], None) == ["speed", "notes", "angle", "surface"]


def test_short_fields_as_far_as_there_is_room() -> None:
    assert spec_columns([ROW], 200) == ["speed", "angle", "surface"]
    assert spec_columns([ROW], 80) == ["speed", "angle"]
    assert spec_columns([ROW], 60) == []
