"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from scythe.durations import Duration

ADAPTER: TypeAdapter[timedelta] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        *[
            ("90s", 90),
            ("1h30m", 5400),
            ("250ms", 0.25),
            ("1.5h", 5400),
            ("2d", 172_800),
            (" 5M ", 300),
        ],
        *[
            (90, 90),
            (0.5, 0.5),
            ("90", 90),
            ("PT5M", 300),
            ("00:01:30", 90),
            ("1h 30m".replace(" ", ""), 5400),
        ],
        *[(timedelta(minutes=2), 120)],
    ],
)
def test_durations(given: Any, seconds: float) -> None:
    assert ADAPTER.validate_python(given) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "given", ["", "soon", "5 minutes", "1h30", "h", "nan", "inf", "-", None, [], "1x"]
)
def test_what_is_no_duration(given: Any) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(given)
