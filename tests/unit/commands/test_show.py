"""Output of the commands: on a terminal, in a pipe, as JSON."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scythe.commands import show
from scythe.status import RunStatus

ROWS: list[dict[str, Any]] = [
    {"leaf": 3, "message": "no solution\nfor " + "a long wall " * 20, "share": 0.123456789},
    {"leaf": 14, "message": "short", "share": None},
]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))


def test_a_table_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    show.table(ROWS, ["leaf", "message", "share"], whole=["leaf"])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["LEAF", "MESSAGE", "SHARE"]
    assert len(first) <= 80 and "…" in first
    assert first.endswith("0.123457")
    assert second.split() == ["14", "short", "-"]


def test_what_must_be_whole_is_not_shortened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch, 40)
    run = "roof/v1.0.0/" + "x" * 50
    show.table([{"run": run, "state": "done"}], ["run", "state"], whole=["run", "state"])
    assert run in capsys.readouterr().out


def test_a_pipe_gets_whole_lines_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(ROWS, ["leaf", "message"])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == "LEAF\tMESSAGE"
    assert first.split("\t")[1] == " ".join(ROWS[0]["message"].split())
    assert second == "14\tshort"


def test_json_of_what_json_has_no_word_for() -> None:
    value = {
        "nan": float("nan"),
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "path": Path("/x"),
        "bytes": b"\xff",
        "half": "\ud800",
        "status": RunStatus(experiment_id="e", started=float("inf")),
        1: (2, {3}),
    }
    read = json.loads(show.as_json(value), parse_constant=pytest.fail)
    assert (read["nan"], read["path"], read["bytes"], read["1"]) == (None, "/x", "ff", [2, [3]])
    assert read["at"].startswith("2026-01-02")
    assert read["status"]["started"] is None
    assert show.as_json({"text": "a\nb"}, in_one_line=True).count("\n") == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59, "59 s"), (90, "2 min"), (7200, "2 h"), (1e6, "12 d")]
)
def test_ages(seconds: float, text: str) -> None:
    assert show.age(seconds) == text


def test_sizes() -> None:
    assert [show.size(n) for n in (0, 1023, 1536, 5 * 1024**3, 3e15)] == [
        *("0 B", "1023 B", "1.5 KiB", "5.0 GiB", "2728.5 TiB"),
    ]
