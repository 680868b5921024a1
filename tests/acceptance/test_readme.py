"""The README, and the pages that continue it, pasted into a folder: real stack, real Ray."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.running import wait_until, worker

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
# Later pages continue the earlier ones: the block of a file replaces that file.
PAGES = (README, ROOT / "docs" / "experiments.md", ROOT / "docs" / "workers.md")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder into which each code block was pasted, under the name in its first line."""
    folder = tmp_path / "project"
    folder.mkdir()
    text = "".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        name = re.match(r"# (\w+\.py)", block)
        assert name, f"a code block that names no file cannot be pasted:\n{block}"
        (folder / name[1]).write_text(block)
    return folder


def test_every_block_runs(folder: Path, stack_env: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert {file.name for file in folder.iterdir()} >= {"experiments.py", "main.py", "allocate.py"}

    def script(name: str) -> str:
        done = subprocess.run(
            [sys.executable, name],
            cwd=folder,
            env={**os.environ, **stack_env},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with worker(str(folder), log, **stack_env):
        wait_until(lambda: " is ready." in log.read_text(), "the worker is ready", 120)
        output = script("allocate.py")
        roofs = script("allocate_roofs.py")
    assert "done, 100 done, 0 failed" in output
    assert "heat_loss" in output
    assert "done, 20 done, 0 failed" in roofs
    for file in folder.glob("*.py"):
        if file.name not in ("main.py", "allocate.py", "allocate_roofs.py"):
            script(file.name)


def test_the_readme_names_extras_before_they_are_needed() -> None:
    text = README.read_text()
    assert text.index("[ray,dev]") < text.index("scythe dev  ")
    assert "placeholder" not in text
    assert text.count("\n") < 150
