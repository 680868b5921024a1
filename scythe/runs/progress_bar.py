"""Show how far a run is: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self, TextIO

from scythe.status import RunStatus, mismatch_note

_LINE_PAUSE = 5.0  # seconds between two plain lines
_WIDE = 110  # columns of a terminal in which all fits into one line
_TITLES = {"queued": "waiting for a worker", "paused": "paused"}
_PATIENCE = 5.0  # seconds for a worker to take up a run, before it is said that none does


def format_seconds(seconds: float | None) -> str:
    """Return a duration such as `1:05:09` or `0:42`, and `?` when it is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def describe(status: RunStatus) -> str:
    """Return the counts of a run as one plain line."""
    if status.state == "not_started":
        return f"the run was not started: {status.message}"
    if status.state == "queued" and not status.waits_for:
        return f"{status.total} leaves wait for a worker: start one with `python main.py`"
    ended = status.done + status.failed
    share = f" ({100 * ended / status.total:.0f} %)" if status.total else ""
    text = (
        f"{ended}/{status.total} leaves{share}: {status.done} done, {status.failed} failed, "
        f"{status.running} running{mismatch_note(status.code_mismatches)}"
    )
    if status.waits_for:  # a rate would say nothing
        return f"{text} - {status.waits_for}"
    text += f", {status.rate:.1f}/s"
    if not status.is_over:
        text += f", {format_seconds(status.seconds_left)} left"
    if status.state == "failed":
        text += f" - the run failed: {status.message}"
    return text


class ProgressView:
    """Shows the status of one run as it changes.

    Args:
        stream: Where it is shown; None to show nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._bar: Any = None
        self._task: Any = None
        self._last_line = self._reason = ""
        self._last_time = 0.0
        self._named = ""
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self._stream is not None and self._stream.isatty():
            self._bar = _make_bar(self._stream)
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=None, count="", done="", failed="", running="", rate="", left="", code=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, status: RunStatus) -> None:
        """Show a status."""
        young = time.monotonic() - self._began < _PATIENCE
        if self._stream is None or (status.state == "queued" and young):
            return
        if status.waits_for != self._reason:
            self._reason = status.waits_for
            self._last_time = 0.0  # it is news
            if self._bar is not None and self._reason:
                self.note(self._reason)
        if self._bar is not None:
            self._update_bar(status)
        else:
            self._print_line(status)

    def note(self, text: str) -> None:
        """Show a line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._stream is not None:
            print(text, file=self._stream, flush=True)

    def _update_bar(self, status: RunStatus) -> None:
        is_still = status.is_over or bool(status.waits_for)
        others = status.code_mismatches
        self._bar.update(
            self._task,
            description=_TITLES.get(status.state) or self._title(status),
            total=status.total or None,
            completed=status.done + status.failed,
            count=f"{status.done + status.failed}/{status.total}",
            done=f"{status.done} done",
            failed=f"[red]{status.failed} failed[/]" if status.failed else "0 failed",
            running=f"{status.running} running",
            rate="" if status.waits_for else f"{status.rate:.1f}/s",
            left="" if is_still else f"{format_seconds(status.seconds_left)} left",
            code=f"[yellow]{others} other code[/]" if others else "",
        )

    def _title(self, status: RunStatus) -> str:
        """Return what stands before the bar; on a narrow terminal it is a line above, once."""
        name = status.experiment_id.rsplit("/", 2)[0]
        if self._bar.console.width >= _WIDE:
            return name
        if self._named != name:
            self._named = name
            self.note(status.experiment_id)
        return ""

    def _print_line(self, status: RunStatus) -> None:
        line = describe(status)
        now = time.monotonic()
        due = status.is_over or now - self._last_time >= _LINE_PAUSE
        if due and line != self._last_line:
            self.note(line)
            self._last_line = line
            self._last_time = now


def _make_bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream)
    is_wide = console.width >= _WIDE
    names = ("count", *("done",) * is_wide, "failed", "running", "rate", "left", "code")
    return Progress(
        TextColumn("{task.description}", markup=False),  # a name may look like markup
        BarColumn(bar_width=30 if is_wide else 10),
        *[TextColumn(f"{{task.fields[{name}]}}") for name in names],
        console=console,
    )
