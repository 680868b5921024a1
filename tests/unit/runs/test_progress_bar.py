"""A bar on a terminal, plain lines elsewhere, nothing when it is not wanted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
import time

import pytest

from scythe.runs.progress_bar import ProgressView, describe, format_seconds
from scythe.status import RunStatus

SHOW = """
    import sys
    from scythe.runs.progress_bar import ProgressView
    from scythe.status import RunStatus
    def status(**fields):
        return RunStatus(experiment_id="wall[/]/v1.0.0/d", started=1.0, updated=11.0, **fields)
    with ProgressView(sys.stderr if {enabled} else None) as view:
        view.show(status(state="queued"))
        view.show(status(state="running", total=40, done=9, failed=1, running=2))
        view.show(status(state="done", total=40, done=37, failed=3, code_mismatches=5))
"""


def status(**fields: object) -> RunStatus:
    values = {"experiment_id": "wall/v1.0.0/d", "started": 1.0, "updated": 11.0, **fields}
    return RunStatus.model_validate(values)


def run_on_a_terminal(code: str, columns: int = 120) -> str:
    """Return what a script writes to a terminal."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
    )
    os.close(child)
    data = b""
    while True:
        try:
            block = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        data += block
    os.close(parent)
    assert process.wait(30) == 0, data.decode()
    return data.decode()


def test_a_live_bar_on_a_terminal() -> None:
    text = run_on_a_terminal(SHOW.format(enabled=True))
    assert "\x1b[" in text  # drawn in place
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    last = [line for line in plain.splitlines() if "40/40" in line][-1]
    for part in ("wall[/]", "37 done", "3 failed", "0 running", "4.0/s", "5 other code"):
        assert part in last


def test_nothing_when_disabled() -> None:
    assert run_on_a_terminal(SHOW.format(enabled=False)) == ""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHOW.format(enabled=False))],
        capture_output=True,
        check=True,
    )
    assert done.stdout + done.stderr == b""


def test_plain_lines_without_a_terminal() -> None:
    code = textwrap.dedent(SHOW.format(enabled=True))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == ""
    first, last = done.stderr.splitlines()
    assert first.startswith("10/40 leaves (25 %): 9 done, 1 failed, 2 running")
    counts = "37 done, 3 failed, 0 running, 5 ran with other code than was allocated"
    assert last == f"40/40 leaves (100 %): {counts}, 4.0/s"


def test_equal_lines_are_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(sys.stderr) as view:
        for _ in range(3):
            view.show(status(state="done", total=1, done=1))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_that_no_worker_takes_up_says_so_after_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProgressView(sys.stderr) as view:
        view.show(status(state="queued", total=40))
        assert capsys.readouterr().err == ""
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 6)
        view.show(status(state="queued", total=40))
    assert "40 leaves wait for a worker" in capsys.readouterr().err


def test_the_line_of_a_run_that_failed_says_why() -> None:
    text = describe(status(state="failed", total=4, done=1, message="the bucket is full"))
    assert text == (
        "1/4 leaves (25 %): 1 done, 0 failed, 0 running, 0.1/s - the run failed: the bucket is full"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0, "0:00"),
        (42.4, "0:42"),
        (59.6, "1:00"),
        (3909, "1:05:09"),
        (360_000, "100:00:00"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


def test_what_a_run_waits_for_takes_the_place_of_a_rate() -> None:
    reason = "No worker serves 'roof'."
    for state in ("queued", "running"):
        line = describe(status(state=state, total=6, waits_for=reason))
        assert line == "0/6 leaves (0 %): 0 done, 0 failed, 0 running - No worker serves 'roof'."
    assert "left" in describe(status(state="running", total=6, done=1))


def test_what_a_run_waits_for_is_said_above_the_bar() -> None:
    text = run_on_a_terminal(
        """
        import sys
        from scythe.runs.progress_bar import ProgressView
        from scythe.status import RunStatus
        with ProgressView(sys.stderr) as view:
            for _ in range(3):
                view.show(RunStatus(experiment_id="roof/v1.0.0/d", state="running", total=6,
                                    waits_for="No worker serves 'roof[/]'."))
        """
    )
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert plain.count("No worker serves 'roof[/]'.") == 1
    assert "? left" not in plain


@pytest.mark.parametrize(("total", "done"), [(40, 9), (10_000_000, 1_234_567)])
def test_all_fits_into_80_columns(total: int, done: int) -> None:
    text = run_on_a_terminal(
        f"""
        import sys
        from scythe.runs.progress_bar import ProgressView
        from scythe.status import RunStatus
        with ProgressView(sys.stderr) as view:
            view.show(RunStatus(experiment_id="scythe_experiment_a_long_name/v1.0.0/d",
                state="running", total={total}, done={done}, failed=17000, running=1280,
                started=1.0, updated=101.0))
        """,
        80,
    )
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    bar = next(line for line in plain.splitlines() if "17000 failed" in line)
    assert f"{done + 17000}/{total} 17000 failed 1280 running" in bar
    assert "…" not in bar and bar.rstrip().endswith("left") and len(bar.rstrip()) < 80
    assert plain.count("scythe_experiment_a_long_name/v1.0.0/d") == 1


def test_a_run_that_was_not_started_says_so() -> None:
    line = describe(status(state="not_started", message="Allocate it again."))
    assert line == "the run was not started: Allocate it again."
