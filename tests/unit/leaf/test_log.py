"""The output of a leaf is kept in a file while it runs. `tests/contract` tests most of it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scythe.leaf.log import CAP, LEFT_OUT, LeafLog, keep_small, read_log
from scythe.outcomes import LeafResult, LeafStats
from tests.unit.leaf.test_streams import run_buffered

RESULT = LeafResult("{}", {}, {}, LeafStats())


def test_a_leaf_that_prints_nothing_costs_next_to_nothing(tmp_path: Path) -> None:
    log = LeafLog(tmp_path / "1.log")

    def one() -> float:
        began = time.perf_counter()
        with log:
            pass
        assert log.added_to(RESULT) is RESULT
        return time.perf_counter() - began

    assert min(one() for _ in range(200)) < 100e-6  # 5 µs on an idle machine


def test_what_is_printed_is_taken_once_and_shown_where_it_was_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = LeafLog(tmp_path / "1.log")
    with log:
        os.write(1, b"one\n")
        os.write(2, b"t\xffo\x00")
    assert read_log(tmp_path / "1.log") == "one\nt\ufffdo\\x00"  # what a kill would leave
    assert log.added_to(RESULT).log == "one\nt\ufffdo\\x00"
    assert log.added_to(RESULT) is RESULT
    os.write(1, b"between leaves\n")
    assert capfd.readouterr().out == "one\nt\ufffdo\x00\nbetween leaves\n"


def test_between_leaves_what_was_printed_belongs_to_the_one_before(tmp_path: Path) -> None:
    code = f"""
import ctypes, os, pathlib, sys
from scythe.leaf.log import LeafLog
from scythe.outcomes import LeafResult, LeafStats
log = LeafLog(pathlib.Path({str(tmp_path / "log")!r}))
texts = []
with log:
    for number in range(4):
        sys.stdout.write(f"no line end {{number}}")
        if number == 0:
            ctypes.CDLL(None).printf(b", nor in C")
        if number == 1:
            os.close(1)
        if number == 2:
            sys.stdout = None
        log.renew()
        texts.append(log.added_to(LeafResult("", {{}}, {{}}, LeafStats())).log)
        print(number, "and more")
print(texts)
"""
    run = run_buffered(code)
    assert run.stderr == ""
    texts = ast.literal_eval(run.stdout.splitlines()[-1])
    assert set(texts[0].split(", ")) == {"no line end 0", "nor in C"}
    assert texts[1:] == [f"{n - 1} and more\nno line end {n}" for n in (1, 2, 3)]


def test_a_log_that_grows_is_shortened_while_its_leaf_runs(tmp_path: Path) -> None:
    path = tmp_path / "7.log"
    keep_small(tmp_path, "*.log")
    writes = (
        "import sys; [print('line', n) for n in range(500_000)]; "
        "print('written', file=sys.stderr, flush=True); input(); print('end')"
    )
    with path.open("ab") as file:
        writer = subprocess.Popen(
            [sys.executable, "-c", writes],
            stdout=file,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    assert writer.stderr is not None
    assert writer.stderr.readline() == b"written\n"
    deadline = time.monotonic() + 30
    # Of more than 5 MB; what was printed last is there again when the shortening is over.
    while path.stat().st_size > 16 * CAP or not read_log(path).endswith("line 499999\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    writer.communicate(b"\n", timeout=30)
    text = read_log(path)
    # What is printed in the moment of the shortening may come before.
    assert "line 0\nline 1\n" in text
    assert text.endswith("end\n")
    assert text.count(LEFT_OUT) == 1
    assert len(text.encode()) < CAP + 200


def test_a_process_that_never_had_a_log(tmp_path: Path) -> None:
    assert read_log(tmp_path / "nowhere.log") == ""


def test_the_users_own_logging_is_left_alone(tmp_path: Path) -> None:
    code = f"""
import logging, pathlib
from scythe.leaf.log import LeafLog
from scythe.outcomes import LeafResult, LeafStats
log = LeafLog(pathlib.Path({str(tmp_path / "log")!r}))
with log:
    logging.getLogger("a").info("by default")
    logging.getLogger("botocore.credentials").info("of no interest")
    logging.getLogger("botocore").warning("of interest")
    logging.basicConfig(level=logging.DEBUG, format="mine %(message)s")
    logging.debug("configured")
print(log.added_to(LeafResult("", {{}}, {{}}, LeafStats())).log)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    shown = "INFO a: by default\nWARNING botocore: of interest\nmine configured\n"
    assert run.stdout == f"{shown}{shown}\n", run.stderr
