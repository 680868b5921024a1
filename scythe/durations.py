"""Durations as people write them: `timedelta`, seconds, or text such as `1h30m`."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

# Hatchet's durations end at 292 years, and the two of a leaf are added (engine v0.104).
NO_LIMIT = timedelta(days=36_500)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_ISO = TypeAdapter(timedelta)


def parse_duration(value: Any) -> timedelta:
    """Turn `1h30m`, `90s`, `PT5M`, `00:05:00`, plain seconds or a `timedelta` into a `timedelta`.

    Raises:
        ValueError: It is none, negative or too long; the message goes behind the value's name.
    """
    seconds = _seconds_of(value)
    if math.isnan(seconds):
        raise ValueError("must be a duration such as '90s', '1h30m' or a number of seconds")
    if seconds < 0:
        raise ValueError("must not be negative")
    if seconds > NO_LIMIT.total_seconds():
        hours = NO_LIMIT // timedelta(hours=1)
        raise ValueError(f"must be at most '{hours}h', the longest that Hatchet takes")
    return timedelta(seconds=seconds)


def parse_timeout(value: Any) -> timedelta:
    """Turn what `parse_duration` takes into a `timedelta` of more than nothing.

    Raises:
        ValueError: It is none, not positive or too long.
    """
    seconds = _seconds_of(value)
    if seconds <= 0:
        raise ValueError("must be positive")
    return parse_duration(value)


def _seconds_of(value: Any) -> float:
    """Return the seconds of a duration; NaN where it is none."""
    if isinstance(value, bool):
        return math.nan
    text = str(value).strip().lower()
    sign = -1.0 if text.startswith("-") else 1.0
    parts = text.removeprefix("-")
    try:
        if isinstance(value, timedelta):
            return value.total_seconds()
        if parts and _PART.sub("", parts) == "":
            return sign * sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(parts))
        return float(text)
    except ValueError:
        pass
    try:
        return _ISO.validate_python(value).total_seconds()
    except ValidationError:
        return math.nan


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Timeout = Annotated[timedelta, BeforeValidator(parse_timeout)]
