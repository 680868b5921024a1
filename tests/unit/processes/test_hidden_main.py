"""A spawned process does not import the main script while that is hidden."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import multiprocessing

print("main script")

def shown():
    pass

if __name__ == "__main__":
    from scythe.processes.hidden_main import HiddenMain
    from there import tell

    main = HiddenMain()
    main.hide()
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=tell)
        process.start()
        process.join()
        assert process.exitcode == 0
        main.show()
"""
THERE = """
import sys

def tell():
    print("scythe" in sys.modules, hasattr(sys.modules["__main__"], "shown"))
"""


def test_a_process_that_is_started_meanwhile_imports_scythe_and_not_the_script(
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text(SCRIPT)
    (tmp_path / "there.py").write_text(THERE)
    done = subprocess.run(
        [sys.executable, "-W", "error", "main.py"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # Hidden, the child has Scythe only; shown again, it imports the script, which imports nothing.
    assert done.stdout.splitlines() == [
        *["main script", "True False"],
        *["main script", "False True"],
    ]
