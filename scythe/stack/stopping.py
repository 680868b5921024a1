"""End the processes of a stack, in the order in which they need each other."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from scythe.stack.paths import ENGINE, POSTGRES, S3, Layout
from scythe.stack.postgres import clean_up_postgres, data_folder
from scythe.stack.process import end, end_strays
from scythe.stack.s3 import clean_up_s3
from scythe.stack.state import State

# Seconds. The S3 server closes its files at once, and then waits up to 15 s or for ever for streams
# between its own parts; what it was sent before is in its files either way.
_GRACE = {ENGINE: 15.0, POSTGRES: 15.0, S3: 1.0}
# SIGINT is PostgreSQL's fast shutdown; at SIGTERM it would wait for its clients to go.
_SIGNALS = {POSTGRES: signal.SIGINT}
# Each line in its order; the lines side by side.
_LINES = ((ENGINE, POSTGRES), (S3,))


def stop_parts(
    layout: Layout, state: State, parts: Sequence[str], report: Callable[[str], None]
) -> bool:
    """End parts, see them dead, and remove what they leave behind.

    Args:
        layout: The files of the stack.
        state: Its state; the caller writes the new one.
        parts: The parts to end; those that do not run are cleaned up after.
        report: Called with lines that say what is being done.

    Returns:
        Whether any of them ran.

    Raises:
        StackError: A process could not be ended.
    """
    lines = [[part for part in line if part in parts] for line in _LINES]

    def stop_line(line: list[str]) -> bool:
        ran = [_stop_part(layout, state, part, report) for part in line]
        return any(ran)

    with ThreadPoolExecutor(len(lines), "scythe-dev-stop") as pool:
        return any(list(pool.map(stop_line, lines)))


def _stop_part(layout: Layout, state: State, part: str, report: Callable[[str], None]) -> bool:
    alive = state.alive(part)
    if alive:
        report(f"stopping {part}")
        ask = _SIGNALS.get(part, signal.SIGTERM)
        willing = end(state.parts[part].process, ask, _GRACE[part])
        if not willing and part != S3:
            report(f"{part} did not end within {_GRACE[part]:.0f} s and was killed")
    _clean_up(layout, state, part)
    return alive


def stop_strays(layout: Layout, parts: Sequence[str], grace: float) -> bool:
    """End what works for parts of a stack without being known to it.

    Args:
        layout: The files of the stack.
        parts: Parts that do not run, as far as is known.
        grace: Seconds until it is killed.

    Returns:
        Whether there was anything.
    """
    programs = {
        ENGINE: (layout.engine, "scythe-engine"),
        POSTGRES: (data_folder(layout), "postgres"),
        S3: (layout.s3, "weed"),
    }
    return end_strays(dict(programs[part] for part in parts), grace)


def _clean_up(layout: Layout, state: State, part: str) -> None:
    if part == S3:
        clean_up_s3(layout, state.ports)
    elif part == POSTGRES:
        stop_strays(layout, [POSTGRES], grace=5)
        clean_up_postgres(layout)
    with suppress(OSError):  # the last one finds it empty
        layout.sockets.rmdir()
