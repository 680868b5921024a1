"""A second opinion on whether two specs are the same, written without the code under test."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime, time, timezone
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel


def described(value: Any) -> Any:
    """Return all that must arrive of a value, in a form that `==` compares exactly."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, BaseModel):
        held = {name: described(one) for name, one in vars(value).items()}
        more = [described(one) for one in (value.model_extra, value.__pydantic_private__ or {})]
        return kind, held, *more
    if dataclasses.is_dataclass(value):
        return kind, {f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return kind, [(described(key), described(one)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [described(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(repr(described(one)) for one in value)
    if isinstance(value, float):
        return kind, "nan" if math.isnan(value) else (math.copysign(1, value), float(value))
    if isinstance(value, (datetime, time)):
        return kind, value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return kind, str(value.dtype), getattr(value, "shape", ()), described(value.tolist())
    return kind, repr(value)


def _zone(zone: Any) -> Any:
    if isinstance(zone, ZoneInfo):
        return "ZoneInfo", zone.key
    if isinstance(zone, timezone):
        return "timezone", zone.utcoffset(None), zone.tzname(None)
    return repr(zone)
