"""Standard output and error lead where they should, whatever a leaf did to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BEFORE = """
import io, os, sys
from scythe.leaf.streams import Streams
streams = Streams()
file = os.open({path!r}, os.O_RDWR | os.O_CREAT | os.O_APPEND)
first = sys.stdout, sys.stderr
streams.lead_to(file)
print("leaf 1"), print("error 1", file=sys.stderr)
"""
AFTER = """
streams.lead_to(file)
print("leaf 2"), print("error 2", file=sys.stderr)
os.write(1, b"by number 1\\n"), os.write(2, b"by number 2\\n")
streams.lead_back()
print("usual"), print("usual error", file=sys.stderr)
"""
LEAF_1 = "leaf 1\nerror 1\n"
LEAF_2 = "leaf 2\nerror 2\nby number 1\nby number 2\n"


def run_buffered(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script whose streams are buffered, whatever the environment says."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run(tmp_path: Path, code: str) -> tuple[str, str, str]:
    """Return what is in the file, and what came out of the process, standard error last."""
    path = tmp_path / "log"
    script = BEFORE.format(path=str(path)) + code + AFTER
    done = run_buffered(script)
    return path.read_text(), done.stdout, done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "",
        "os.close(1), os.close(2)",
        "sys.stdout.close(), sys.stderr.close()",
        "sys.stdout = sys.stderr = None",
        "sys.stdout = sys.stderr = io.StringIO(); print('unseen')",
        "sys.stdout = open(os.devnull, 'w'); sys.stdout.close()",
        "null = os.open(os.devnull, os.O_WRONLY); os.dup2(null, 1), os.dup2(null, 2)",
    ],
)
def test_the_next_leaf_has_them_as_they_were(tmp_path: Path, code: str) -> None:
    assert run(tmp_path, code) == (LEAF_1 + LEAF_2, "usual\n", "usual error\n")


@pytest.mark.parametrize(
    ("code", "late"),
    [
        ("sys.stdout.write('no line end, '); sys.stdout = None", "no line end, "),
        ("sys.stdout.write('no line end, '); os.close(1)", "no line end, "),
    ],
)
def test_what_a_leaf_has_not_flushed_comes_before_the_next_leaf(
    tmp_path: Path, code: str, late: str
) -> None:
    assert run(tmp_path, code) == (f"{LEAF_1}{late}{LEAF_2}", "usual\n", "usual error\n")


def test_a_process_without_them(tmp_path: Path) -> None:
    code = f"""
import os, sys
os.close(1), os.close(2)
sys.stdout = sys.stderr = None
from scythe.leaf.streams import Streams
streams = Streams()
file = os.open({str(tmp_path / "log")!r}, os.O_RDWR | os.O_CREAT)
assert streams.usual is None
streams.lead_to(file)
streams.lead_back()
assert sys.stdout is None
os.write(file, b"done")
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
    assert (tmp_path / "log").read_text() == "done"
