"""Whose token counts. (The local stack itself: see the integration tests.)"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from scythe.environment import TOKEN, prepare_environment, token_is_given


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if re.match("SCYTHE_|AWS_|HATCHET_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SCYTHE_DEV_HOME", str(tmp_path / "no-stack"))
    monkeypatch.chdir(tmp_path)


def test_no_token_and_no_stack(capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    assert not token_is_given()
    assert prepare_environment() is None
    assert dict(os.environ) == before
    assert capsys.readouterr().err == ""


def test_the_users_own_token_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "mine")
    assert token_is_given()
    before = dict(os.environ)
    assert prepare_environment() is None
    assert dict(os.environ) == before
    monkeypatch.setenv(TOKEN, "")
    assert not token_is_given()


@pytest.mark.parametrize("name", [".env", ".env.hatchet", ".env.dev", ".env.local"])
def test_a_token_in_a_file_that_hatchet_reads(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"# comment\nOTHER=1\n{TOKEN}=\n")
    assert not token_is_given()
    (tmp_path / name).write_text(f'export {TOKEN}="mine"\n')
    assert token_is_given()
    assert TOKEN not in os.environ


def test_a_folder_of_that_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert not token_is_given()


def test_a_process_of_a_process_says_nothing_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCYTHE_LOCAL_STACK", "http://127.0.0.1:1")
    assert prepare_environment() == "http://127.0.0.1:1"
    assert capsys.readouterr().err == ""
