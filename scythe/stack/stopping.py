"""End the processes of a stack, in the order in which they need each other."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from scythe.stack.paths import ENGINE, POSTGRES, S3, Layout
from scythe.stack.postgres import clean_up_postgres
from scythe.stack.process import end, end_strays
from scythe.stack.state import State

_GRACE = {ENGINE: 15.0, POSTGRES: 15.0, S3: 5.0}  # seconds
# SIGINT is PostgreSQL's fast shutdown; at SIGTERM it would wait for its clients to go.
_SIGNALS = {POSTGRES: signal.SIGINT}
# Each line in its order; the lines side by side.
_LINES = ((ENGINE, POSTGRES), (S3,))
_OLD_S3_PROGRAM = "weed"


def stop_parts(
    layout: Layout, state: State, parts: Sequence[str], report: Callable[[str], None]
) -> bool:
    """End parts, see them dead, remove what they leave behind, and return whether any ran.

    The caller writes the new state.

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
        if not end(state.parts[part].process, ask, _GRACE[part]):
            report(f"{part} did not end within {_GRACE[part]:.0f} s and was killed")
    if part == POSTGRES:
        stop_strays(layout, [POSTGRES], grace=5)
        clean_up_postgres(layout)
    with suppress(OSError):  # the last one finds it empty
        layout.sockets.rmdir()
        layout.socket_link.unlink()
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
        ENGINE: [(layout.engine, "scythe-engine")],
        POSTGRES: [
            (layout.data, "postgres"),
            (layout.postgres, "initdb"),
            (layout.postgres / "data.new", "postgres"),
        ],
        S3: [(layout.s3 / "objects", "scythe-engine"), (layout.s3, _OLD_S3_PROGRAM)],
    }
    return end_strays(dict(place for part in parts for place in programs[part]), grace)
