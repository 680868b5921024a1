"""The command line without services: help, version, exit codes, a new project."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scythe.cli import main
from scythe.commands.base import ExitCode, code_of, exit_code
from scythe.errors import (
    EngineError,
    NoBucketError,
    ResultNotFoundError,
    RunFailedError,
    RunNotFoundError,
    SettingsError,
    SpecError,
    StorageError,
)
from scythe.status import RunStatus

COMMANDS = (
    *("dev", "engine", "runs", "status", "watch", "workers", "errors", "logs", "results"),
    *("cancel", "rm", "pause", "resume", "retry", "run", "compare"),
    *("worker", "doctor", "cache", "init"),
)


def scythe(*words: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no stack runs and no bucket is named."""
    names = ("HATCHET_", "SCYTHE_", "AWS_")
    bare = {k: v for k, v in os.environ.items() if not k.startswith(names)}
    return subprocess.run(
        [sys.executable, "-m", "scythe.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=home,
        env={**bare, "SCYTHE_DEV_HOME": str(home / "stack"), **variables},
    )


def test_help_names_all_commands_in_whole_sentences(tmp_path: Path) -> None:
    done = scythe("--help", home=tmp_path, COLUMNS="80")
    assert done.returncode == 0
    section = done.stdout.split("Commands:\n")[1]
    assert [line.split()[0] for line in section.splitlines() if line.strip()] == [*COMMANDS]
    assert "..." not in section
    assert "130 interrupted" in done.stdout


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("dev", "engine")])
def test_every_command_has_json_and_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path) -> None:
    words = {"COMP_WORDS": "scythe r", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "scythe r"}
    asked = {"_SCYTHE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = scythe(home=tmp_path, **words, **asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in ("runs", "results", "rm"))
    assert "status" not in done.stdout


def test_the_version_needs_no_library() -> None:
    code = "import sys; from scythe.cli import main; main(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, modules = done.stdout.splitlines()
    assert first.startswith("scythe ")
    assert not {"typer", "rich", "pydantic", "boto3"} & set(modules.split())


def test_the_local_stack_needs_no_library(tmp_path: Path) -> None:
    code = """if True:
        import sys
        sys.modules["typer"] = None
        from scythe.cli import main
        assert main(["dev", "status"]) == 3
        assert main(["runs"]) == 2
    """
    env = {**os.environ, "SCYTHE_DEV_HOME": str(tmp_path / "stack")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert "typer is not installed: pip install" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nothing"], 2, "No such command 'nothing'"),
        (["dev", "stat"], 2, "No such command 'stat'. Did you mean 'status'?"),
        (["dev", "fly"], 2, "No such command 'fly'."),
        (["rm"], 2, "Missing argument 'RUN'"),
        (["runs", "--limit", "0"], 2, "--limit"),
        (["runs", "--state", "over"], 2, "--state must be one of queued, running, paused, done, "),
        (["runs"], 3, "no local stack runs"),
        (["status", "roof"], 3, "no local stack runs"),
        (["workers"], 3, "no local stack runs"),
    ],
)
def test_wrong_use_and_services_that_are_not_there(
    words: list[str], code: int, text: str, tmp_path: Path
) -> None:
    done = scythe(*words, home=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_says_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    done = scythe("doctor", "--json", home=tmp_path, SCYTHE_WORKER_EXECUTOR="cloud")
    assert done.returncode == 3
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert set(found) == {
        *("versions", "token", "engine", "bucket", "clock", "executor", "workers", "disk"),
        "/dev/shm",
    }
    assert "HATCHET_CLIENT_TOKEN is not set" in found["token"]["text"]
    assert "SCYTHE_STORAGE_BUCKET is not set" in found["bucket"]["text"]
    assert "Unknown executor 'cloud'" in found["executor"]["text"]
    assert found["disk"]["state"] in ("good", "warning")


def test_the_page_names_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "control.md").read_text()
    rows = dict(re.findall(r"^\| `scythe (\w+)([^`]*)`.* \|.* \|$", page, re.MULTILINE))
    assert set(rows) == {*COMMANDS} - {"engine"}
    for name, shown in rows.items():
        if name != "dev":
            assert main([name, "--help"]) == 0
            text = capsys.readouterr().out
            assert [option for option in re.findall(r"--\w+", shown) if option not in text] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineError("x"), 3),
        (StorageError("x"), 3),
        (NoBucketError("x"), 3),
        (RunFailedError("x"), 1),
        (SettingsError("x"), 2),
        (SpecError("x"), 2),
        (RunNotFoundError("x"), 2),
        (ResultNotFoundError("x"), 2),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code  # pyright: ignore


@pytest.mark.parametrize(
    ("state", "failed", "code"),
    [
        ("running", 0, 0),
        ("done", 0, 0),
        ("done", 1, 1),
        ("running", 2, 1),
        ("paused", 0, 0),
        ("cancelled", 0, 1),
    ],
)
def test_the_exit_code_of_a_run(state: str, failed: int, code: int) -> None:
    status = RunStatus.model_validate({"experiment_id": "e", "state": state, "failed": failed})
    assert code_of(status) == ExitCode(code)


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m scythe.cli cache | true"
    env = {**os.environ, "SCYTHE_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode in (0, 141)
    assert done.stderr == ""


def test_the_cache_is_shown_and_cleared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 0
    file = tmp_path / "files" / "one" / "data.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(2048))
    assert main(["cache"]) == 0
    assert capsys.readouterr().out.startswith("2.0 KiB in 1 files of at most 20.0 GiB: ")
    assert main(["cache", "--clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 2048
    assert not file.exists()


def test_a_new_project_is_whole_and_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "My Throws"
    assert main(["init", str(folder), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["files"]
    assert made == sorted(path.name for path in folder.iterdir())
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "my-throws"
    assert project["dependencies"][0].startswith("scythe-ray")
    for path in folder.glob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text()))
    assert "{" not in (folder / "README.md").read_text()
    (folder / "main.py").write_text("mine")
    assert main(["init", str(folder)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (folder / "main.py").read_text() == "mine"


def test_the_tests_of_a_new_project_pass(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path)]) == 0
    done = subprocess.run(
        [sys.executable, "-c", "from test_experiments import *; " + _called(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _called(folder: Path) -> str:
    tree = ast.parse((folder / "test_experiments.py").read_text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert names and all(name.startswith("test_") for name in names)
    return "; ".join(f"{name}()" for name in names)
