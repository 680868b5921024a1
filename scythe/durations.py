"""Durations as people write them: `timedelta`, seconds, or text such as `1h30m`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: Any) -> Any:
    """Turn `1h30m`, `90s`, `250ms` or plain seconds into a `timedelta`.

    Anything else (ISO 8601, `HH:MM:SS`, a `timedelta`) is given back as it is, for pydantic to
    parse.
    """
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    try:
        return timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        pass
    if text and _PART.sub("", text) == "":
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        return timedelta(seconds=seconds)
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
