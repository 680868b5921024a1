"""Two pytest processes side by side, on tests made here, without the local stack."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from tests.acceptance.running import wait_until
from tests.side_by_side import ROOT, Side, run

TESTS = """
    import os, time, pathlib
    import pytest

    folder = pathlib.Path(os.environ["TESTS_FOLDER"])

    def meet(mine, other):
        (folder / mine).write_text(str(os.getpid()))
        deadline = time.monotonic() + 60
        while not (folder / other).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @pytest.fixture
    def ends():
        yield
        (folder / f"{pathlib.Path(__file__).stem}-ended").touch()
"""


def sides(folder: Path, *bodies: str) -> list[Side]:
    """Write a file of tests for each body."""
    found: list[Side] = []
    for name, body in zip(("one", "two"), bodies, strict=True):
        file = folder / f"test_{name}.py"
        file.write_text(textwrap.dedent(TESTS) + textwrap.dedent(body))
        found.append(Side(name, (str(file),)))
    return found


def beside(tmp_path: Path, *bodies: str) -> int:
    work = tmp_path / "work"
    work.mkdir()
    return run(sides(tmp_path, *bodies), work, {"TESTS_FOLDER": str(tmp_path)}, ["-q"])


def test_both_run_at_one_time_and_one_failure_fails_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = beside(
        tmp_path,
        """
        def test_meets(tmp_path):
            meet("a", "b")

        def test_of_one():
            assert pathlib.Path(__file__).stem == "test_one"
        """,
        """
        def test_meets(tmp_path):
            meet("b", "a")

        def test_of_two():
            assert pathlib.Path(__file__).stem == "no such side"
        """,
    )
    assert code == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "3 passed, 1 failed, 0 skipped"
    other = lines.index("== two")
    assert any(line.startswith("2 passed") for line in lines[:other])
    assert any("test_of_two" in line for line in lines[other:])


def test_a_side_that_ends_without_a_report_has_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = beside(tmp_path, "def test(): os._exit(7)", "def test(): pass")
    assert code == 7
    output = capfd.readouterr().out
    assert output.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    assert "one: pytest is gone, with exit code 7 and no report" in output


@pytest.mark.parametrize(("body", "code"), [("", 5), ("def test(): pass", 0)])
def test_a_side_without_tests(body: str, code: int, tmp_path: Path) -> None:
    assert beside(tmp_path, "", body) == code


INTERRUPTED = """
    import signal, sys
    from pathlib import Path
    from tests.side_by_side import Side, run
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where this is in the background
    folder = Path(sys.argv[1])
    work = folder / "work"
    work.mkdir()
    sides = [Side(name, (str(folder / f"test_{name}.py"),)) for name in ("one", "two")]
    sys.exit(run(sides, work, {"TESTS_FOLDER": str(folder)}, ["-q"]))
"""


def test_ctrl_c_ends_both_in_order(tmp_path: Path) -> None:
    sides(
        tmp_path,
        """def test_waits(ends): meet("a", "never")""",
        """def test_waits(ends): meet("b", "never")""",
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        met = [tmp_path / name for name in ("a", "b")]
        wait_until(lambda: all(file.exists() and file.read_text() for file in met), "both run")
        both = [psutil.Process(int(file.read_text())) for file in met]
        parent.send_signal(signal.SIGINT)
        output, _ = parent.communicate(timeout=60)
    finally:
        parent.kill()
        parent.wait(10)
    assert parent.returncode == 130, output
    assert [(tmp_path / f"test_{name}-ended").exists() for name in ("one", "two")] == [True, True]
    assert "== two" in output
    assert output.count("KeyboardInterrupt") >= 2
    assert not any(one.is_running() for one in both)
