"""Builds a `LeafFailure` from an exception."""

from __future__ import annotations

import traceback
from pathlib import Path

from pydantic import ValidationError

from scythe.errors import FetchError, MismatchError, OutputError, SchemaMismatchError
from scythe.leaf.meter import LeafMeter
from scythe.locate import CodeNotFoundError
from scythe.outcomes import FailureKind, LeafFailure
from scythe.texts import printable

_TRACEBACK_CHARS = 20_000
_MESSAGE_CHARS = 5_000
_OWN_FOLDER = str(Path(__file__).parents[1])


def failure_of(error: BaseException, meter: LeafMeter) -> LeafFailure:
    """Return the failure for an exception that a leaf raised."""
    kind = FailureKind.APPLICATION
    message = _message_of(error)
    if isinstance(error, CodeNotFoundError):
        kind = FailureKind.ENVIRONMENT
    elif isinstance(error, MismatchError):
        is_schema = isinstance(error, SchemaMismatchError)
        kind = FailureKind.SCHEMA_MISMATCH if is_schema else FailureKind.CODE_MISMATCH
    elif isinstance(error, MemoryError):
        kind = FailureKind.OUT_OF_MEMORY
        message = message or f"the leaf's process used {meter.stats().peak_rss / 1e9:.2f} GB"
    elif isinstance(error, SystemExit):
        message = f"the experiment called sys.exit({error.code!r})"
    elif isinstance(error, FetchError):
        message = f"{message} (an input file of the leaf)"
    return LeafFailure(
        kind=kind,
        type=type(error).__qualname__,
        message=printable(message[:_MESSAGE_CHARS]),
        traceback=format_traceback(error),
        stats=meter.stats(),
    )


def format_traceback(error: BaseException) -> str:
    """Return the traceback as text, from the user's first frame on; a long one loses its start."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frames = frames.tb_next
    try:
        lines = traceback.format_exception(type(error), error, frames or error.__traceback__)
        text = "".join(lines)
    except Exception:  # noqa: BLE001 - a user's exception may fail to print itself
        text = "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__
    return printable(text if len(text) <= _TRACEBACK_CHARS else f"…{text[-_TRACEBACK_CHARS:]}")


def _message_of(error: BaseException) -> str:
    try:
        if isinstance(
            error, ValidationError
        ):  # pydantic wraps Scythe's own errors in further lines
            contexts = [one.get("ctx", {}).get("error") for one in error.errors()]
            return next((str(one) for one in contexts if isinstance(one, OutputError)), str(error))
        return str(error)
    except Exception as second:  # noqa: BLE001 - a user's exception may fail to print itself
        return f"(its message cannot be shown: {type(second).__name__})"
